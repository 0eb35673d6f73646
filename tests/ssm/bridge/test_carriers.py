# SPDX-License-Identifier: Apache-2.0
"""What a bridge expects of a carrier, asked of each carrier."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm.bridge import carrier, memory, over_zenoh, over_zmq
from ssm.bridge.errors import BridgeError
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 30.0
needs_zmq = pytest.mark.skipif(importlib.util.find_spec("zmq") is None, reason="pyzmq has no wheel here")
needs_zenoh = pytest.mark.skipif(importlib.util.find_spec("zenoh") is None, reason="zenoh has no wheel here")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Link:
    """Two ends of one carrier, on this machine; each can be closed and opened again."""

    def __init__(self, kind: str) -> None:
        self.kind, self.port = kind, free_port()
        self.a, self.b = memory.pair() if kind == "memory" else (self.open(True), self.open(False))

    def open(self, listen: bool, name: bytes | None = None) -> Any:
        name = name or (b"a" if listen else b"b")
        if self.kind == "zmq":
            return over_zmq.OverZmq(f"tcp://127.0.0.1:{self.port}", listen=listen, name=name)
        where = {"listen" if listen else "connect": [f"tcp/127.0.0.1:{self.port}"]}
        return over_zenoh.OverZenoh(f"test-{self.port}", name=name, **where)

    def meet(self) -> None:
        """Until each end has heard the other: the listening end answers whom it has heard."""
        for one, other in ((self.b, self.a), (self.a, self.b)):
            until = time.monotonic() + PATIENCE_S
            while True:
                one.send([b"hello"], 1.0)
                if other.recv(0.2) is not None:
                    break
                assert time.monotonic() < until, "the ends do not meet"
            while other.recv(0.05) is not None:
                pass

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture(
    params=["memory", pytest.param("zmq", marks=needs_zmq), pytest.param("zenoh", marks=needs_zenoh)]
)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = Link(request.param)
    try:
        made.meet()
        yield made
    finally:
        made.close()


def received(end: Any) -> list[bytes]:
    parts = end.recv(PATIENCE_S)
    assert parts is not None
    return [bytes(part) for part in parts]


def test_messages_arrive_whole_and_in_order(link: Link) -> None:
    for one, other in ((link.a, link.b), (link.b, link.a)):
        sent = [[b"%d" % i, b"", os.urandom(i * 37)] for i in range(40)]
        for parts in sent:
            assert one.send(parts, PATIENCE_S)
        assert [received(other) for _ in sent] == sent


def test_one_empty_part_is_a_message(link: Link) -> None:
    assert link.a.send([b""], PATIENCE_S)
    assert received(link.b) == [b""]


def test_parts_may_be_any_buffers(link: Link) -> None:
    assert link.a.send([bytearray(b"one"), memoryview(b"two")[1:], b"three"], PATIENCE_S)
    assert received(link.b) == [b"one", b"wo", b"three"]


def test_large_parts(link: Link) -> None:
    parts = [os.urandom(3 << 20), b"between", os.urandom(5 << 20)]
    assert link.a.send(parts, PATIENCE_S)
    assert received(link.b) == parts


def test_receiving_takes_no_longer_than_it_may(link: Link) -> None:
    assert link.a.recv(0) is None
    since = time.monotonic()
    assert link.a.recv(0.2) is None
    assert 0.15 < time.monotonic() - since < PATIENCE_S


def test_a_receiver_that_waits_is_woken(link: Link) -> None:
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(received(link.b)))
    waiting.start()
    time.sleep(0.05)
    assert link.a.send([b"wake"], PATIENCE_S)
    waiting.join(PATIENCE_S)
    assert got == [[b"wake"]]


def test_both_ends_send_while_they_receive(link: Link) -> None:
    """Each end has a thread that sends and one that receives; nothing is lost, and no wake-up is."""
    count = 300
    got: dict[str, list[bytes]] = {"a": [], "b": []}

    def send(end: Any) -> None:
        for i in range(count):
            assert end.send([b"%d" % i], PATIENCE_S)

    def receive(end: Any, into: list[bytes]) -> None:
        while len(into) < count and (parts := end.recv(PATIENCE_S)) is not None:
            into += [bytes(part) for part in parts]

    threads = [threading.Thread(target=send, args=(end,)) for end in (link.a, link.b)]
    threads += [threading.Thread(target=receive, args=(getattr(link, name), got[name])) for name in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert got == {name: [b"%d" % i for i in range(count)] for name in got}


def test_a_peer_that_does_not_read_stops_no_call(link: Link) -> None:
    """What it does not take is refused or lost: the calls end, and the memory that waits is bounded."""
    since = time.monotonic()
    for _ in range(100):
        if not link.a.send([bytes(1 << 20)], 0.05):
            break
    assert time.monotonic() - since < PATIENCE_S


def test_nobody_is_there_after_the_peer_closed(link: Link) -> None:
    link.b.close()

    def refused() -> bool:
        return not link.a.send([b"lost"], 0)

    wait_until(refused, "a refusal")


def test_a_peer_comes_back(link: Link) -> None:
    if link.kind == "memory":
        pytest.skip("its ends are made together")
    for listens in (False, True):
        end = "a" if listens else "b"
        getattr(link, end).close()
        setattr(link, end, link.open(listens))
        link.meet()
    test_messages_arrive_whole_and_in_order(link)


def test_another_peer_is_not_heard(link: Link) -> None:
    """The first one has the link for as long as it speaks."""
    if link.kind == "memory":
        pytest.skip("it has two ends")
    stranger = link.open(False, b"stranger")
    try:
        heard = []
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            stranger.send([b"stranger"], 0.01)
            assert link.b.send([b"friend"], PATIENCE_S)
            heard.append(received(link.a))
        assert {b"friend"} == {part for parts in heard for part in parts}
    finally:
        stranger.close()


def test_a_closed_end_says_so(link: Link) -> None:
    raised = threading.Event()

    def wait() -> None:
        with contextlib.suppress(ValueError):
            link.a.recv(PATIENCE_S)
            return
        raised.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    link.a.close()
    link.a.close()
    waiting.join(PATIENCE_S)
    assert raised.is_set()
    with pytest.raises(ValueError, match="closed"):
        link.a.send([b""], 0)
    with pytest.raises(ValueError, match="closed"):
        link.a.recv(0)


# ---- keys ------------------------------------------------------------------------------------------------


@pytest.fixture
def make_keys(tmp_path: Any) -> Callable[[str], tuple[Any, Any]]:
    import zmq.auth

    def make(name: str) -> tuple[Any, Any]:
        public, secret = zmq.auth.create_certificates(tmp_path, name)
        return tmp_path / public, tmp_path / secret

    return make


@needs_zmq
@pytest.mark.parametrize("right", [True, False])
def test_only_known_keys_are_heard(right: bool, make_keys: Callable[[str], tuple[Any, Any]]) -> None:
    (public_a, secret_a), (public_b, secret_b), (_, other) = (make_keys(name) for name in "abc")
    a = over_zmq.OverZmq(
        "tcp://127.0.0.1:*", listen=True, name=b"a", keys=over_zmq.Keys(secret_a, (public_b,))
    )
    keys = over_zmq.Keys(secret_b if right else other, (public_a,))
    b = over_zmq.OverZmq(a.endpoint, listen=False, name=b"b", keys=keys)
    try:
        assert b.send([b"secret"], PATIENCE_S if right else 1.0) is right
        assert (a.recv(PATIENCE_S if right else 0.2) is not None) is right
    finally:
        b.close()
        a.close()


@needs_zmq
def test_a_public_key_is_no_secret_one(make_keys: Callable[[str], tuple[Any, Any]]) -> None:
    public, _ = make_keys("a")
    with pytest.raises(BridgeError, match="no secret key"):
        over_zmq.OverZmq("tcp://127.0.0.1:*", listen=True, name=b"a", keys=over_zmq.Keys(public, (public,)))


# ---- what is asked for -----------------------------------------------------------------------------------


@needs_zmq
@needs_zenoh
def test_endpoints_that_are_none() -> None:
    with pytest.raises(BridgeError, match=r"cannot connect to nowhere.*tcp://"):
        over_zmq.OverZmq("nowhere", listen=False, name=b"a")
    with pytest.raises(BridgeError, match=r"zenoh does not open nowhere.*tcp/"):
        over_zenoh.OverZenoh("lab", name=b"a", listen=["nowhere"])
    with pytest.raises(BridgeError, match="letters"):
        over_zenoh.OverZenoh("lab/*", name=b"a")


DIES_WITH_A_SESSION = """
import os, sys
from ssm.bridge.over_zenoh import OverZenoh
OverZenoh("lab", name=b"a", listen=[f"tcp/127.0.0.1:{sys.argv[1]}"])
os.kill(os.getpid(), 9)
"""


@needs_zenoh
def test_a_process_that_is_killed_leaves_no_files_of_zenoh() -> None:
    before = set(Path("/dev/shm").glob("*.zenoh"))
    dead = subprocess.Popen([sys.executable, "-c", DIES_WITH_A_SESSION, str(free_port())])
    assert dead.wait(PATIENCE_S) == -signal.SIGKILL
    assert set(Path("/dev/shm").glob("*.zenoh")) <= before


def test_an_engine_that_is_not_installed() -> None:
    with pytest.raises(BridgeError, match=r'pip install "ssm-pool\[bridge\]"'):
        carrier.engine("no_such_engine", "bridge")


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_joined_parts_come_apart(parts: list[bytes]) -> None:
    assert over_zenoh.split(memoryview(over_zenoh.join(parts))) == parts


@given(st.binary(max_size=40))
def test_what_was_not_joined_is_none_or_parts_of_it(data: bytes) -> None:
    parts = over_zenoh.split(memoryview(data))
    assert parts is None or over_zenoh.join(parts) == data
