# SPDX-License-Identifier: Apache-2.0
"""Queues whose other side is on another host: any objects, once, in order; errors that say what is missing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ssm
from ssm.bridge import BridgeError
from tests.ssm.bridge.test_carried import CARRIERS
from tests.ssm.bridge.test_carriers import Link, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=CARRIERS)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = Link(request.param)
    yield made
    made.close()


OBJECTS: list[Any] = [
    1,
    "text",
    None,
    {"a": [1, 2, (3, b"bytes")]},
    b"x" * 100_000,
    np.arange(700_000),
    [np.zeros((3, 4)), "beside", np.arange(1 << 20, dtype="u1")],
]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("memory", [{"max_memory": 64 << 20}, {"memory": 24 << 20}])
def test_objects_cross(link: Link, memory: dict[str, int], new_name: Callable[[], str]) -> None:
    """Of any size and kind. Without redelivery, large ones are chains of packets."""
    chains = "memory" in memory
    with (
        ssm.Queue(name=new_name(), bridge={"import": "jobs", "carrier": link.b}, **memory) as there,
        ssm.Queue(
            name=new_name(),
            redeliver=False if chains else None,
            bridge={"export": "jobs", "carrier": link.a},
            **memory,
        ) as here,
    ):
        for _ in range(2):
            for obj in OBJECTS:
                here.put(obj, timeout=30)
            for obj in OBJECTS:
                assert same(obj, there.get(timeout=60))
        here.join()
        here.shutdown()
        with pytest.raises(ssm.RingShutDown):
            there.get(timeout=30)


@needs_zmq
def test_there_and_back_by_address(new_name: Callable[[], str]) -> None:
    """Two queues, one each way, as two hosts would have them; other processes open them by name."""
    from tests.ssm.bridge.test_carriers import free_port

    ports = [free_port(), free_port()]
    address = [
        {"carrier": "zmq", way: f"127.0.0.1:{port}"} for port in ports for way in ("listen", "connect")
    ]
    jobs = ssm.Queue(4, name=new_name(), bridge={"export": "jobs"} | address[0])
    todo = ssm.Queue(4, name=new_name(), bridge={"import": "jobs"} | address[1])
    results = ssm.Queue(4, name=new_name(), bridge={"export": "results"} | address[2])
    done = ssm.Queue(4, name=new_name(), bridge={"import": "results"} | address[3])

    def work() -> None:
        for a, b in iter(todo.get, None):
            results.put(a + b)

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(100):
        jobs.put((number, number), timeout=30)
        assert done.get(timeout=30) == 2 * number
    jobs.put(None)
    worker.join(30)
    jobs.join()
    for queue in (jobs, todo, results, done):
        queue.close()
        with pytest.raises(ValueError, match="closed"):
            queue.put(1)


@pytest.mark.parametrize(
    ("bridge", "text"),
    [
        ({}, "which way"),
        ({"export": "a", "import": "a"}, "which way"),
        ({"export": "a"}, "--insecure"),
        ({"export": "a", "listen": "10.0.0.1:7400"}, "--insecure"),
        (
            {"export": "a", "listen": "127.0.0.1:7400", "pool": "x"},
            "'pool' is no setting of a queue's bridge",
        ),
        ({"export": "a", "listen": "127.0.0.1:7400", "carrier": "pigeon"}, "no carrier 'pigeon'"),
    ],
)
def test_what_is_refused(bridge: dict[str, Any], text: str) -> None:
    with pytest.raises(BridgeError, match=text):
        ssm.Queue(bridge=bridge)


def test_a_bridge_that_cannot_go_on_is_told(new_name: Callable[[], str], monkeypatch: Any) -> None:
    link = Link("memory")
    here = ssm.Queue(name=new_name(), bridge={"export": "jobs", "carrier": link.a})

    def fails(*_: object) -> None:
        raise BridgeError("the disk is on fire")

    monkeypatch.setattr("ssm.bridge.bridge.Bridge._round", fails)
    here.put(1)
    with pytest.raises(BridgeError, match="on fire"):
        here.join()
    with pytest.raises(BridgeError, match="on fire"):
        here.close()
    here.close()
    link.close()
