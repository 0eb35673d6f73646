# SPDX-License-Identifier: Apache-2.0
"""What bridges tell those who look: each figure, in each command; and rows of bridges that were killed."""

from __future__ import annotations

import dataclasses
import io
import os
import typing
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm.bridge import figures, memory
from ssm.commands import metrics, top
from ssm.web import verdict
from tests.processes import wait_until
from tests.ssm.bridge.test_bridge import EXACT, Host, joined, put, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def hosts(make_pool: Callable[..., ssm.Pool]) -> Iterator[tuple[Host, Host]]:
    here, there = (Host(make_pool(classes={256: 512})) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def read(pool: ssm.Pool) -> list[figures.BridgeStats]:
    return figures.Reader(pool).read(pool.stats().services, pool.holders())


def test_both_ends_tell(hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    out, into, a, _ = joined(hosts)
    put(out, range(40))
    assert take(into, 40) == list(range(40))
    wait_until(lambda: a.status().exports[0].sent.packets == 40, "the last acknowledgement")
    wait_until(lambda: read(here.pool)[0].packets == 40, "the sender's row")
    wait_until(lambda: read(there.pool)[0].packets == 40, "the receiver's row")
    sent, came = read(here.pool)[0], read(there.pool)[0]
    assert (sent.name, sent.way, sent.bytes, sent.in_flight, sent.oldest_ms) == ("frames", "out", 4000, 0, 0)
    assert (came.name, came.way, came.bytes, came.twice) == ("frames", "in", 4000, 0)
    assert sent.peer.startswith(there.pool.name)
    assert sent.pid == came.pid == os.getpid()
    here.close()
    assert read(here.pool) == []


def test_a_packet_that_nobody_acknowledges_gets_old(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    out, _, a, b = joined(hosts)
    wait_until(lambda: here.heard("met"), "a meeting")
    wait_until(lambda: a._senders[0].wants_packets, "credit")
    b._carrier.send = lambda *_: True  # it hears, and is not heard
    put(out, range(3))
    wait_until(lambda: read(here.pool)[0].oldest_ms > 300, "an old packet")
    assert read(here.pool)[0].in_flight == 3
    assert read(here.pool)[0].silent_ms > 0


def leave_rows(_talk: Any, name: str) -> None:
    """In a child that ends without a word: rows stay."""
    with ssm.Pool.attach(name) as pool:
        figures.Teller(pool, figures.ROWS)
        os._exit(0)


def test_rows_of_the_dead_are_taken_over(hosts: tuple[Host, Host], children: Any) -> None:
    here, _ = hosts
    child = children.start(leave_rows, here.pool.name)
    child.join()
    rows = here.pool.board(figures.NAME, figures._ROW, figures.ROWS).array
    assert (rows["pid"] == child.pid).all()
    assert read(here.pool) == []
    here.pool.ring("out", **EXACT)
    here.bridge(memory.pair()[0], exports={"out": "out"}).start()
    wait_until(lambda: [end.name for end in read(here.pool)] == ["out"], "a row for the bridge")


def filled() -> figures.BridgeStats:
    """Each number has a value that no other has."""
    hints = typing.get_type_hints(figures.BridgeStats)
    numbers = {
        field.name: 10_007 + 13_000 * at for at, field in enumerate(dataclasses.fields(figures.BridgeStats))
    }
    texts = {"name": "frames", "way": "out", "peer": "/lab on lab2"}
    return figures.BridgeStats(**{name: texts.get(name, numbers[name]) for name in hints})


def shown_by_top(pool: ssm.Pool) -> str:
    rich = pytest.importorskip("rich.console")
    out = io.StringIO()
    rich.Console(file=out, width=400).print(top.screen(top.Watch(pool).look()))
    return out.getvalue()


def shown_by_metrics(pool: ssm.Pool) -> str:
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(metrics._Collector([pool.name]))
    return prometheus.generate_latest(registry).decode()


def shown_by_web(pool: ssm.Pool) -> str:
    view = pytest.importorskip("ssm.web.view")
    return str(view.Viewer(pool).look()["bridges"])


@pytest.mark.parametrize("show", [shown_by_top, shown_by_metrics, shown_by_web])
def test_each_figure_is_shown(
    show: Callable[[ssm.Pool], str], pool: ssm.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = filled()
    monkeypatch.setattr(figures.Reader, "read", lambda *_: [told])
    text = show(pool).replace(",", "")
    for field in dataclasses.fields(told):
        value = getattr(told, field.name)
        words = (
            [str(value), f"{value / 1000:.1f}", f"{value / 1000}"]
            if field.name.endswith("_ms")
            else [str(value)]
        )
        if field.name != "peer" or show is not shown_by_metrics:  # a text is no figure
            assert any(word in text for word in words), field.name


@pytest.mark.parametrize(
    ("changes", "tone", "text"),
    [
        ({}, "good", ""),
        ({"peer": ""}, "warn", "has met no other host"),
        ({"silent_ms": 9000}, "bad", "has been silent for 9 s"),
        ({"oldest_ms": 9000}, "warn", "has waited for 9 s to be acknowledged"),
    ],
)
def test_what_wants_a_look(changes: dict[str, Any], tone: str, text: str, pool: ssm.Pool) -> None:
    end = dataclasses.replace(filled(), **({"silent_ms": 10, "oldest_ms": 10} | changes))
    found = verdict.findings(pool.stats(), pool.holders(), None, None, {}, [end])
    says = verdict.verdict(found, None, 100.0)
    assert says.tone == tone
    assert text in says.text
