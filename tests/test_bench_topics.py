# SPDX-License-Identifier: Apache-2.0
"""The benchmark of topics finds what goes wrong, and leaves nothing. Each process that it starts imports this file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.topics import crowd, ways


class Wrong(ways.SsmTopic):
    """Something is wrong with the packet of that number."""

    at = 50

    def publisher(self):
        publish = super().publisher()
        return lambda number: publish(number) if number < self.at else self.wrong(publish, number)


class Skips(Wrong):
    def wrong(self, publish, number):
        return publish(number + 1)


class Repeats(Wrong):
    def wrong(self, publish, number):
        return publish(number - (number > self.at))


class Tears(ways.SsmTopic):
    """The last eight bytes are those of another packet."""

    def put(self):
        publish = super().put()

        def tear(packet):
            packet[-8:] = bytes(8)
            return publish(packet)

        return tear


class Hangs(Wrong):
    def wrong(self, publish, number):
        time.sleep(100)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Skips, "2 packets were missed, of which none may be"),
        (Repeats, "2 packets were torn, came twice, or out of order"),
        (Tears, "packets were torn"),
        (Hangs, "the publisher hangs"),
    ],
)
def test_what_goes_wrong_with_a_topic_is_told(kind, fault, monkeypatch):
    monkeypatch.setattr(crowd, "LATE_S", 0.5)
    monkeypatch.setattr(crowd, "ENDS_S", 1 if kind is Hangs else crowd.ENDS_S)
    outcome = crowd.run(kind, 64, 64, 2, None, 0.1, 0)
    assert fault in outcome.faults[0]


MADE = []


class Iceoryx(ways.IceoryxEvents):
    def __init__(self, *args):
        super().__init__(*args)
        MADE.append(self)


def test_no_file_of_iceoryx2_is_left():
    pytest.importorskip("iceoryx2")
    outcome = crowd.run(Iceoryx, 64, 64, 2, None, 0.1, 0.05)
    assert outcome.killed
    assert outcome.remains  # what it leaves by itself
    assert not list(Path("/dev/shm").glob(f"{MADE[-1].prefix}*"))
    assert not Path(MADE[-1].root).exists()
