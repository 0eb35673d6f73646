# SPDX-License-Identifier: Apache-2.0
"""`ssm record` and `replay`: what was taken out of a ring is in the file, in the next ring or in its ring again."""

import contextlib
import resource
import signal
import struct
import subprocess
import time

import pytest

import ssm
from ssm.captures import recording
from ssm.captures.errors import CaptureError
from ssm.commands.record import ENDING
from tests.processes import wait_until
from tests.ssm.test_commands import TIMEOUT_S, ssm_command, ssm_json, started

CAPACITY = 256


@pytest.fixture
def pool(make_pool):
    return make_pool(classes={512: 2 * CAPACITY})


def send(ring, numbers):
    for number in numbers:
        ring.send(b"%d" % number)


def drain(ring):
    numbers = []
    with contextlib.suppress(ssm.RingEmpty, ssm.RingShutDown):
        while True:
            numbers.append(int(bytes(ring.get_nowait())))
    return numbers


def recorded(file):
    """The numbers in the file, also in one whose writer was killed."""
    numbers = []
    with contextlib.suppress(CaptureError):
        numbers.extend(int(record.data) for record in recording.read(file))
    return numbers


@contextlib.contextmanager
def recording_of(pool, ring, *args, **options):
    """`ssm record`, once it takes packets."""
    ring.send(b"-1")
    with started("record", pool.name, ring.name, *args, stderr=subprocess.PIPE, **options) as process:
        wait_until(ring.empty, "the first packet is taken out")
        yield process


SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_loses_nothing(pool, tmp_path, number):
    assert number in ENDING
    ring, file = pool.ring("r", CAPACITY), tmp_path / "x"
    with recording_of(pool, ring, file) as process:
        for _ in range(3):
            send(ring, range(50))
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 0
    assert sorted(recorded(file) + drain(ring)) == sorted([-1, *range(50), *range(50), *range(50)])


@pytest.mark.parametrize("attempt", range(4))
def test_sigkill_loses_nothing_of_a_redelivering_ring(pool, tmp_path, attempt):
    """The worker may be killed between its file and its ring: then a packet is in both."""
    ring, file = pool.ring("r", CAPACITY, redeliver=True), tmp_path / "x"
    with recording_of(pool, ring, file) as process:
        send(ring, range(60 * attempt))
        process.kill()
        process.wait(TIMEOUT_S)
    pool.reap()
    assert set(recorded(file) + drain(ring)) == {-1, *range(60 * attempt)}


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_what_the_disk_has_no_room_for_is_in_the_ring_again(pool, tmp_path):
    ring, file = pool.ring("r", CAPACITY), tmp_path / "x"
    send(ring, range(100))
    with started(
        "record", pool.name, "r", file, stderr=subprocess.PIPE, text=True, preexec_fn=limit_files
    ) as process:
        assert process.wait(TIMEOUT_S) == 2
        said = process.stderr.read()
    assert said.startswith("ssm record: File too large")
    assert "Traceback" not in said
    found = [int(record.data) for record in recording.read(file)]  # whole
    assert sorted(found + drain(ring)) == list(range(100))


@pytest.mark.parametrize("capacity", [1, 16])
def test_the_next_ring_may_be_small(pool, tmp_path, capacity):
    source, target = pool.ring("source", CAPACITY), pool.ring("target", capacity)
    send(source, range(40))
    arguments = ["record", pool.name, "source", tmp_path / "x", "--to", "target", "--count", 40]
    with started(*arguments, stderr=subprocess.DEVNULL) as process:
        arrived = [int(bytes(target.get(timeout=TIMEOUT_S))) for _ in range(40)]
        assert process.wait(TIMEOUT_S) == 0
    assert arrived == recorded(tmp_path / "x") == list(range(40))


def test_what_cannot_be_passed_on_stays(pool, tmp_path):
    """The next ring is full: nothing more is taken out, and a signal is answered."""
    source, target, file = pool.ring("source", CAPACITY), pool.ring("target", 4), tmp_path / "x"
    send(source, range(40))
    with started("record", pool.name, "source", file, "--to", "target", stderr=subprocess.DEVNULL) as process:
        wait_until(target.full, "the next ring is full")
        time.sleep(0.05)
        assert len(source) == 36
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    assert (drain(target), drain(source)) == (list(range(4)), list(range(4, 40)))


def test_a_next_ring_that_is_shut_down(pool, tmp_path):
    source, target = pool.ring("source", CAPACITY), pool.ring("target", CAPACITY)
    target.shutdown()
    send(source, range(40))
    said = ssm_command("record", pool.name, "source", tmp_path / "x", "--to", "target", status=2)
    assert "'target' is shut down" in said
    assert sorted(drain(source)) == list(range(40))


def test_what_cannot_be_put_back_is_said(pool, tmp_path):
    source, target = pool.ring("source", CAPACITY), pool.ring("target", CAPACITY)
    send(source, range(40))
    source.shutdown()
    target.shutdown()
    said = ssm_command("record", pool.name, "source", tmp_path / "x", "--to", "target", status=2)
    assert "40 packets that were taken out of ring 'source' could not be put back" in said
    assert recorded(tmp_path / "x") == list(range(40))


@pytest.mark.parametrize("form", recording.FORMATS)
def test_empty_packets_and_chains_come_back(pool, tmp_path, form):
    ring, file = pool.ring("r", CAPACITY), tmp_path / "x"
    head, *segments = pool.alloc_many(3, 4)
    for packet, data in zip((head, *segments), (b"head", b"mid!", b"tail"), strict=True):
        packet[:] = data
    head.chain = tuple(segments)
    empty = pool.alloc(5)
    empty.truncate(0)
    ring.put(empty)
    ring.put(head)
    del packet, segments, head, empty
    found = ssm_json("record", pool.name, "r", file, "--count", 2, "--format", form)
    assert found == {"packets": 2, "bytes": 12}
    assert ssm_json("replay", file, pool.name, "r", "--speed", 0) == found
    assert bytes(ring.get()) == b""
    with ring.get() as message:
        parts = [bytes(message), *map(bytes, message.chain)]
    assert parts == ([b"head", b"mid!", b"tail"] if form == "records" else [b"headmid!tail"])


# ---- damaged files ---------------------------------------------------------------------------------


def head(length, time_ns=0):
    return recording.MAGIC + struct.pack("<QQQ", time_ns, 0, length)


@pytest.mark.parametrize(
    "content",
    [
        head(1 << 39) + b"x" * 100,
        head((1 << 40) - 1),
        head((1 << 63) - 1) + b"x",
        head((1 << 64) - 1) + b"x",
        head(1)[:-1],
        head(1 | recording.MORE) + b"x",
    ],
    ids=["large", "largest", "too large", "all bits", "half a head", "no next segment"],
)
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_a_damaged_length_is_one_sentence(pool, tmp_path, content, through):
    file = tmp_path / "x"
    file.write_bytes(content)
    pool.ring("r", CAPACITY)
    arguments = ["replay", file if through == "file" else "/dev/stdin", pool.name, "r"]
    with file.open("rb") as source:
        cat = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        with cat, started(*arguments, stdin=cat.stdout, stderr=subprocess.PIPE, text=True) as process:
            assert process.wait(TIMEOUT_S) == 2
            said = process.stderr.read()
    assert "is cut short or damaged after packet 0" in said
    assert said.count("\n") == 1


def test_a_damaged_time_is_no_pause(pool, tmp_path):
    file = tmp_path / "x"
    with recording.writer(file, "records") as write:
        write(recording.Record(0, 0, b"1"), recording.Record(1 << 62, 0, b"2"))
    ring = pool.ring("r", CAPACITY)
    assert "--speed 0 does not wait; 1 packets were put" in ssm_command(
        "replay", file, pool.name, "r", status=2
    )
    ssm_command("replay", file, pool.name, "r", "--speed", 0)
    assert drain(ring) == [1, 1, 2]
