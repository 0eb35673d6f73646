# SPDX-License-Identifier: Apache-2.0
"""The carrier over zenoh: finds peers and goes through routers, over TCP, TLS or QUIC.

Each end publishes under ``ssm/bridge/LINK/FROM/TO``, with the names of both ends; an end with one peer, or one that
only says that it is there, under ``ssm/bridge/LINK/FROM/all``. The parts of a message become one payload, with their
sizes in front, since zenoh takes one buffer.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ssm.bridge.carrier import WAITING_BYTES_MAX, OnePeer, engine
from ssm.bridge.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer

PARTS_MAX = 1 << 16
ALL = "all"  # in place of a peer's name: whoever hears it
NAP_S = 0.01  # between two looks whether there is a peer
BLOCK_US = 1_000_000  # a put() waits that long on a link that takes nothing, and then the link is made anew
_SIZE = struct.Struct("<I")


class OverZenoh:
    """One end of a link over zenoh."""

    def __init__(
        self,
        link: str,
        *,
        name: bytes,
        listen: Sequence[str] = (),
        connect: Sequence[str] = (),
        discover: bool = False,
        config: Path | None = None,
        many: bool = False,
        protocols: Sequence[str] = (),
    ) -> None:
        """Open it.

        Parameters
        ----------
        link : str
            Both ends give the same word: letters, digits, ``-``, ``_``, ``.``
        name : bytes
            This end's name, 1 .. 32 bytes; the same whenever it is opened again.
        listen, connect : sequence of str
            Endpoints as zenoh has them: ``tcp/10.0.0.2:7400``, ``tls/lab2:7400``, ``quic/lab2:7400``.
        discover : bool
            Whether to look for peers by multicast.
        config : Path, optional
            A configuration of zenoh (JSON5), with its certificates, say; the rest here comes on top.
        many : bool
            Whether it is an `Exchange`: all others on the link are heard.
        protocols : sequence of str
            The only ones that are spoken, whatever endpoints a peer names: ``tls``, ``quic``. By default all.
        """
        if not link or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in link):
            raise BridgeError(f"a link's name has letters, digits, '-', '_' and '.' only, not {link!r}")
        self._many, self._peer, self._changed = many, OnePeer(), threading.Condition()
        self._arrived: deque[tuple[bytes, list[memoryview]]] = deque()
        self._publishers: dict[str, Any] = {}
        self._from = f"ssm/bridge/{link}/{name.hex()}"
        self._bytes, self._closed = 0, False
        zenoh = self._zenoh = engine("zenoh", "bridge")
        try:
            settings = zenoh.Config.from_file(str(config)) if config else zenoh.Config()
            for key, value in _settings(listen, connect, discover=discover, given=config is not None):
                settings.insert_json5(key, json.dumps(value))
            if protocols:
                settings.insert_json5("transport/link/protocols", json.dumps(list(protocols)))
            self._session = zenoh.open(settings)
        except zenoh.ZError as error:
            where = ", ".join([*listen, *connect]) or "by discovery"
            raise BridgeError(
                f"zenoh does not open {where}: {error}; an endpoint is like tcp/10.0.0.2:7400"
            ) from error
        self._subscribers = [
            self._session.declare_subscriber(
                f"ssm/bridge/{link}/*/{to}", self._take, allowed_origin=zenoh.Locality.REMOTE
            )
            for to in (ALL, name.hex())
        ]

    def _publisher(self, to: str) -> Any:
        if to not in self._publishers:
            self._publishers[to] = self._session.declare_publisher(
                f"{self._from}/{to}",
                congestion_control=self._zenoh.CongestionControl.BLOCK,
                express=True,
                allowed_destination=self._zenoh.Locality.REMOTE,
            )
        return self._publishers[to]

    def _take(self, sample: Any) -> None:
        """Keep what arrived; called by a thread of zenoh, which must not wait here."""
        try:
            name = bytes.fromhex(str(sample.key_expr).split("/")[-2])
        except ValueError:
            return  # not one of ours
        payload = memoryview(sample.payload.to_bytes())
        parts = split(payload) if payload.nbytes else []
        with self._changed:
            wanted = self._many or (parts and self._peer.hears(name))
            if parts is None or not wanted or self._bytes + payload.nbytes > WAITING_BYTES_MAX:
                return
            self._arrived.append((name, parts))
            self._bytes += _size(parts)
            self._changed.notify_all()

    def send(self, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Carrier.send`; the parts are copied into one buffer. A link that was cut holds it up for a second."""
        return self._put(ALL, parts, timeout)

    def send_to(self, peer: bytes, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Exchange.send_to`."""
        return self._put(peer.hex(), parts, timeout)

    def announce(self) -> None:
        """See `Exchange.announce`."""
        if not self._closed:
            self._publisher(ALL).put(b"")

    def _put(self, to: str, parts: Sequence[Buffer], timeout: float) -> bool:
        until = time.monotonic() + timeout
        while True:
            if self._closed:
                raise ValueError("this end of the link is closed")
            publisher = self._publisher(to)
            if publisher.matching_status.matching:
                publisher.put(join(parts))
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(min(NAP_S, max(0.0, until - time.monotonic())))

    def recv(self, timeout: float) -> list[memoryview] | None:
        """See `Carrier.recv`."""
        found = self.recv_from(timeout)
        return None if found is None else found[1]

    def recv_from(self, timeout: float) -> tuple[bytes, list[memoryview]] | None:
        """See `Exchange.recv_from`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._arrived, timeout)
            if self._closed:
                raise ValueError("this end of the link is closed")
            if not self._arrived:
                return None
            name, parts = self._arrived.popleft()
            self._bytes -= _size(parts)
            return name, parts

    def close(self) -> None:
        """See `Carrier.close`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._arrived.clear()
            self._changed.notify_all()
        self._session.close()


def _settings(
    listen: Sequence[str], connect: Sequence[str], *, discover: bool, given: bool
) -> list[tuple[str, object]]:
    """Return what differs from zenoh's defaults; of endpoints and scouting, a file that was `given` has the say."""
    settings: list[tuple[str, object]] = [
        ("connect/exit_on_failure", False),
        ("connect/timeout_ms", -1),
        ("transport/shared_memory/enabled", False),  # its files stay in /dev/shm when this process is killed
        ("transport/link/tx/queue/congestion_control/block/wait_before_close", BLOCK_US),
    ]
    if not given or listen or connect:
        settings += [("mode", "peer"), ("connect/endpoints", list(connect))]
        if (
            listen or not discover
        ):  # those who are found by multicast listen at a port that the system chooses
            settings.append(("listen/endpoints", list(listen)))
    if not given or discover:
        settings += [("scouting/multicast/enabled", discover), ("scouting/gossip/enabled", discover)]
    return settings


def _size(parts: list[memoryview]) -> int:
    """Return what a message that waits takes, about."""
    return sum(_SIZE.size + part.nbytes for part in parts)


def join(parts: Sequence[Buffer]) -> bytes:
    """Return the parts as one buffer: how many, the size of each, and their bytes."""
    views = [memoryview(part).cast("B") for part in parts]
    return b"".join([_SIZE.pack(len(views)), *(_SIZE.pack(view.nbytes) for view in views), *views])


def split(whole: memoryview) -> list[memoryview] | None:
    """Return the parts of what `join` made; None if it is something else."""
    if whole.nbytes < _SIZE.size:
        return None
    (count,) = _SIZE.unpack_from(whole)
    at = _SIZE.size * (1 + count)
    if count > PARTS_MAX or at > whole.nbytes:
        return None
    sizes = struct.unpack_from(f"<{count}I", whole, _SIZE.size)
    if at + sum(sizes) != whole.nbytes:
        return None
    parts: list[memoryview] = []
    for size in sizes:
        parts.append(whole[at : at + size])
        at += size
    return parts
