# SPDX-License-Identifier: Apache-2.0
"""What a bridge carries besides plain packets, over each carrier: large ones, chains, flags, counts of drops."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm.bridge import pieces, wire
from tests.processes import wait_until
from tests.ssm.bridge.test_bridge import EXACT, Host, Worn, put, step, take
from tests.ssm.bridge.test_carriers import Link, needs_zenoh, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CARRIERS = ["memory", pytest.param("zmq", marks=needs_zmq), pytest.param("zenoh", marks=needs_zenoh)]
MIB = 1 << 20


@pytest.fixture(params=CARRIERS)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    made = Link(request.param)
    yield made
    made.close()


@pytest.fixture
def hosts(make_pool: Callable[..., ssm.Pool]) -> Iterator[tuple[Host, Host]]:
    here, there = (Host(make_pool(classes={256: 256, 4096: 64}, arena=24 * MIB)) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def chain_of(pool: ssm.Pool, parts: list[bytes]) -> ssm.Packet:
    packets = []
    for number, part in enumerate(parts):
        packets.append(pool.alloc(max(1, len(part)), timeout=30))
        packets[-1].truncate(len(part))
        packets[-1][:] = part
        packets[-1].tag = 1000 + number
    packets[0].chain = tuple(packets[1:])
    return packets[0]


def parts_of(packet: ssm.Packet) -> list[bytes]:
    with packet:
        chain = [packet, *packet.chain]
        assert [each.tag for each in chain] == [1000 + number for number in range(len(chain))]
        return [bytes(each) for each in chain]


def test_large_packets_cross_in_pieces(link: Link, hosts: tuple[Host, Host]) -> None:
    """They are larger than a message, and than the window, and keep their place among small ones."""
    here, there = hosts
    out, into = here.pool.ring("out", capacity=8, **EXACT), there.pool.ring("in", capacity=8)
    here.bridge(link.a, exports={"out": "frames"}).start()
    there.bridge(link.b, imports={"frames": "in"}, window_bytes=3 * MIB).start()
    sent = [random.Random(size).randbytes(size) for size in (10, 2 * MIB + 1, 7 * MIB, 100, 2 * MIB)]
    for tag, data in enumerate(sent):
        packet = here.pool.alloc(len(data), timeout=30)
        packet[:], packet.tag = data, tag
        out.put(packet, timeout=30)
    for tag, data in enumerate(sent):
        with into.get(timeout=60) as packet:
            assert (packet.tag, len(packet)) == (tag, len(data))
            assert bytes(packet) == data
    wait_until(lambda: here.bridges[0].status().exports[0].in_flight == 0, "the last acknowledgement")
    assert here.bridges[0].status().exports[0].sent.packets == len(sent)


def test_chains_are_linked_again(link: Link, hosts: tuple[Host, Host]) -> None:
    here, there = hosts
    out, into = here.pool.ring("out", capacity=16, peers=False), there.pool.ring("in", capacity=2)
    here.bridge(link.a, exports={"out": "chains"}).start()
    there.bridge(link.b, imports={"chains": "in"}).start()
    rng = random.Random(3)
    sent = [
        [b"alone"],
        [b"", b""],
        [rng.randbytes(200), b"", rng.randbytes(3 * MIB), rng.randbytes(MIB)],
        [b"x", *[rng.randbytes(rng.randrange(300)) for _ in range(40)]],
        [b"alone too"],
        [b"the", b"last"],
    ]
    for parts in sent:
        out.put(chain_of(here.pool, parts), timeout=30)
    assert [parts_of(into.get(timeout=60)) for _ in sent] == sent
    wait_until(lambda: here.bridges[0].status().exports[0].in_flight == 0, "the last acknowledgement")


@pytest.mark.parametrize("seed", range(4))
def test_pieces_survive_losses_and_restarts(
    seed: int, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages are lost and doubled, bridges end in the middle of a packet: each comes once, and whole."""
    from ssm.bridge import memory, sender, session

    monkeypatch.setattr(sender, "PATIENCE_S", 0.0)
    monkeypatch.setattr(sender, "PATIENCE_MAX_S", 0.0)
    monkeypatch.setattr(session, "HELLO_S", 0.0)
    monkeypatch.setattr(session, "BEAT_S", 0.0)
    for module in (sender, pieces, wire):
        monkeypatch.setattr(module, "PIECE_MAX", 500)
    rng, (here, there) = random.Random(seed), hosts
    out, into = here.pool.ring("out", capacity=32, **EXACT), there.pool.ring("in", capacity=32)
    sizes = [rng.choice([100, 4000, 9000, 20000]) for _ in range(30)]
    for number, size in enumerate(sizes):
        put(out, range(number, number + 1), size)

    def begin() -> None:
        here.close()
        there.close()
        links = [Worn(end, rng) for end in memory.pair()]
        for each in links:
            each.loses = 0.1
        here.bridge(links[0], exports={"out": "frames"})
        there.bridge(links[1], imports={"frames": "in"}, window_bytes=2000)

    begin()
    until, restarts = time.monotonic() + 60, 0
    while into.qsize() < len(sizes):
        assert time.monotonic() < until, (into.qsize(), restarts)
        step(rng.choice((here, there)).bridges[0])
        if rng.random() < 0.003 and restarts < 10:
            restarts += 1
            begin()
    got = [(packet.tag, len(packet)) for packet in (into.get() for _ in sizes)]
    assert got == list(enumerate(sizes))
    for _ in range(50):
        step(here.bridges[0])
        step(there.bridges[0])
    assert into.empty()


@pytest.mark.parametrize(
    ("classes", "ring", "text"),
    [
        ({256: 256, 4096: 64}, {"redeliver": True}, "takes none: make that ring without redeliver"),
        ({256: 4}, {}, "has only 4 packets"),
        ({64: 64}, {}, "has a packet of 200 bytes, and the pool that receives it takes 64"),
    ],
)
def test_chains_that_cannot_be_taken_are_refused(
    hosts: tuple[Host, Host], make_pool: Any, classes: dict[int, int], ring: dict[str, Any], text: str
) -> None:
    from ssm.bridge import memory

    here, there = hosts[0], Host(make_pool(classes=classes, headroom=0, tailroom=0))
    one, other = memory.pair()
    out = here.pool.ring("out", capacity=4, peers=False)
    there.pool.ring("in", capacity=4, **ring)
    here.bridge(one, exports={"out": "chains"}).start()
    there.bridge(other, imports={"chains": "in"}).start()
    out.put(chain_of(here.pool, [bytes(10), *[bytes(200)] * 5]))
    for host in (here, there):
        wait_until(lambda host=host: host.heard(text), f"{text}, not {host.told}")
    there.close()


def test_a_pool_or_a_quota_smaller_than_a_message_is_enough(hosts: tuple[Host, Host], make_pool: Any) -> None:
    """What comes in one message goes into the pool in parts, as room comes free."""
    from ssm.bridge import memory

    here = hosts[0]
    out = here.pool.ring("out", capacity=128, **EXACT)
    put(out, range(100))
    for classes, quota in (({256: 8}, None), ({256: 256}, 1024)):
        made = make_pool(classes=classes, shards=1, cache=0)
        there = Host(ssm.Pool.attach(made.name, quota=quota))
        into = made.ring("in", capacity=64)
        one, other = memory.pair()
        here.bridge(one, exports={"out": "frames"}).start()
        there.bridge(other, imports={"frames": "in"}).start()
        assert take(into, 100) == list(range(100))
        here.close()
        there.close()
        there.pool.close()
        put(out, range(100))


def test_a_ring_that_is_readonly_there_is_so_here(link: Link, hosts: tuple[Host, Host]) -> None:
    """Producers are told as on one machine; a flag that somebody set here stays."""
    here, there = hosts
    out, into = here.pool.ring("out", capacity=8, **EXACT), there.pool.ring("in", capacity=8)
    here.bridge(link.a, exports={"out": "frames"}).start()
    there.bridge(link.b, imports={"frames": "in"}).start()
    put(out, range(1))
    assert take(into, 1) == [0]
    into.acl = ssm.Acl.RDONLY
    wait_until(lambda: ssm.Acl.RDONLY in out.acl, "the flag")
    with pytest.raises(PermissionError):
        put(out, range(1, 2))
    into.acl = ssm.Acl.RDWR
    wait_until(lambda: ssm.Acl.RDONLY not in out.acl, "the flag's end")
    put(out, range(1, 2))
    assert take(into, 1) == [1]
    out.acl = ssm.Acl.RDONLY
    time.sleep(0.2)
    assert ssm.Acl.RDONLY in out.acl


def test_what_a_ring_dropped_is_told(link: Link, hosts: tuple[Host, Host], monkeypatch: Any) -> None:
    from ssm.bridge import session

    monkeypatch.setattr(session, "BEAT_S", 0.05)
    here, there = hosts
    out = here.pool.ring("out", capacity=2, overflow="drop", peers=False)
    there.pool.ring("in", capacity=8)
    put(out, range(7))
    here.bridge(link.a, exports={"out": "frames"}).start()
    bridge = there.bridge(link.b, imports={"frames": "in"}).start()
    wait_until(lambda: bridge.status().imports[0].received.drops == 5, "the count")
