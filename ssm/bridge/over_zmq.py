# SPDX-License-Identifier: Apache-2.0
"""The carrier over ZeroMQ: small and fast, over TCP, with CURVE keys.

The end that listens is a ROUTER socket, which tells peers apart by their names. The end that connects is a DEALER.

A socket is used by one thread at a time, under a lock, and no thread waits with the lock taken. Threads wait on the
socket's descriptor, which only says that something has changed. A send() may take such a change from the thread that
waits in recv(), and then tells it by an eventfd.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

from ssm.bridge.carrier import OnePeer, engine
from ssm.bridge.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer

DEPTH = 64  # messages that wait in each direction
NAP_S = 0.002  # between two tries of a send() that waits
LOOK_S = 1.0  # at most that long in one poll: whatever may be missed on the descriptor is seen then
BEAT_MS, BEATS_MISSED_MS = 500, 2000  # a connection that is silent is ended, and made anew
RECONNECT_MS, RECONNECT_MAX_MS = 50, 1000
TROUBLE = {  # by whether this end listens, and whether one's key is not known at the other end
    (
        True,
        True,
    ): "a peer was refused whose key is not known here: if it is the other host, name its FILE.key",
    (
        True,
        False,
    ): "a peer was refused that does not have this bridge's key: give it this one's FILE.key",
    (
        False,
        True,
    ): "the bridge there refuses the key of this one: give it this one's FILE.key as --peer-key",
    (False, False): "the bridge there has another key, or none: give this one its FILE.key as --peer-key",
}


@dataclasses.dataclass(frozen=True)
class Keys:
    """CURVE keys: one's own, and those of peers that may connect, or of the one that is connected to."""

    own: Path
    """Secret key, a file as ``ssm bridge --make-key`` writes it; only its owner may read it."""
    peers: tuple[Path, ...]
    """Public keys, files likewise."""


class OverZmq:
    """One end of a link over ZeroMQ."""

    def __init__(
        self,
        endpoint: str,
        *,
        listen: bool,
        name: bytes,
        keys: Keys | None = None,
        part_max: int = -1,
        many: bool = False,
    ) -> None:
        """Open it.

        Parameters
        ----------
        endpoint : str
            As ZeroMQ has them: ``tcp://10.0.0.2:7400``, ``tcp://*:7400`` to listen on all addresses.
        listen : bool
            Whether to wait for the peer, or to connect to it.
        name : bytes
            This end's name, 1 .. 32 bytes; the same whenever it is opened again.
        keys : Keys, optional
            With them, peers prove who they are, and all is encrypted.
        part_max : int
            Bytes of a part. A peer that sends a larger one is cut off. -1: no limit.
        many : bool
            Whether it is an `Exchange`: all that connect are heard.
        """
        self._zmq = engine("zmq", "bridge-zmq")
        self._listens, self._many, self._peer = listen, many, OnePeer()
        self._lock = threading.Lock()
        self._closed = False
        self._changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context = self._zmq.Context(1)
        self._doorman: Any = None
        self.trouble = ""  # why a peer could not connect, the last time
        try:
            self._socket = self._open(endpoint, name, keys, part_max)
            self._handshakes = self._socket.get_monitor_socket(
                self._zmq.EVENT_HANDSHAKE_FAILED_AUTH
                | self._zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                | self._zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            )
        except BaseException:
            self._end()
            raise

    def _open(self, endpoint: str, name: bytes, keys: Keys | None, part_max: int) -> Any:
        zmq = self._zmq
        socket = self._context.socket(zmq.ROUTER if self._listens else zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, DEPTH)
        socket.setsockopt(zmq.RCVHWM, DEPTH)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, part_max)
        socket.setsockopt(zmq.HEARTBEAT_IVL, BEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, BEATS_MISSED_MS)
        if keys:
            self._secure(socket, keys)
        try:
            if self._listens:
                socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a send() to nobody fails
                socket.setsockopt(
                    zmq.ROUTER_HANDOVER, 1
                )  # the peer came back before its old connection ended
                socket.bind(endpoint)
            else:
                socket.setsockopt(zmq.ROUTING_ID, name)
                socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a peer that is not connected
                socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
                socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
                socket.connect(endpoint)
        except zmq.ZMQError as error:
            what = "listen on" if self._listens else "connect to"
            raise BridgeError(
                f"cannot {what} {endpoint}: {error}; an endpoint is like tcp://10.0.0.2:7400"
            ) from error
        return socket

    def _secure(self, socket: Any, keys: Keys) -> None:
        auth: Any = engine("zmq.auth", "bridge-zmq")
        public, secret = auth.load_certificate(keys.own)
        if secret is None:
            raise BridgeError(f"{keys.own} has no secret key; give the file that ends with .key_secret")
        allowed = {auth.load_certificate(path)[0] for path in keys.peers}
        socket.curve_publickey, socket.curve_secretkey = public, secret
        if not self._listens:
            if len(allowed) != 1:
                raise BridgeError(
                    f"an end that connects needs the public key of its one peer, not {len(allowed)} keys"
                )
            socket.curve_serverkey = allowed.pop()
            return
        thread: Any = engine("zmq.auth.thread", "bridge-zmq")
        self._doorman = thread.ThreadAuthenticator(self._context)
        self._doorman.start()
        self._doorman.configure_curve_callback(credentials_provider=_Allowed(allowed))
        socket.curve_server = True

    @property
    def endpoint(self) -> str:
        """Where it listens; with the port that the system chose, if it was asked to."""
        with self._lock:
            return str(self._socket.getsockopt_string(self._zmq.LAST_ENDPOINT))

    def send(self, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Carrier.send`; parts of 64 KiB and more are not copied."""
        return self.send_to(self._peer.name, parts, timeout)

    def send_to(self, peer: bytes, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Exchange.send_to`."""
        until = time.monotonic() + timeout
        while not self._try_send(peer or self._peer.name, parts):
            if time.monotonic() >= until:
                return False
            time.sleep(min(NAP_S, max(0.0, until - time.monotonic())))
        return True

    def _try_send(self, peer: bytes, parts: Sequence[Buffer]) -> bool:
        zmq = self._zmq
        with self._lock:
            self._check()
            if self._listens and not peer:
                return False
            whole = [peer, *parts] if self._listens else parts
            try:
                self._socket.send_multipart(whole, zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return False
            except zmq.ZMQError as error:
                if error.errno == zmq.EHOSTUNREACH:
                    return False
                raise
            if self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # that may have cleared the descriptor
                os.eventfd_write(self._changed, 1)
        return True

    def recv(self, timeout: float) -> list[memoryview] | None:
        """See `Carrier.recv`."""
        found = self.recv_from(timeout)
        return None if found is None else found[1]

    def announce(self) -> None:
        """Do nothing: the end that connects says that it is there."""

    def recv_from(self, timeout: float) -> tuple[bytes, list[memoryview]] | None:
        """See `Exchange.recv_from`."""
        until = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._changed, select.POLLIN)
        with self._lock:
            self._check()
            poll.register(self._socket.getsockopt(self._zmq.FD), select.POLLIN)
        while (found := self._try_recv()) is None:
            left = until - time.monotonic()
            if left <= 0:
                return None
            poll.poll(min(left, LOOK_S) * 1000 + 1)
        return found

    def _try_recv(self) -> tuple[bytes, list[memoryview]] | None:
        with self._lock:
            self._check()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._changed)
            for _ in range(DEPTH):  # of peers that are not heard
                try:
                    frames = self._socket.recv_multipart(self._zmq.DONTWAIT, copy=False)
                except self._zmq.Again:
                    self._look_at_handshakes()
                    return None
                parts = [memoryview(frame.buffer) for frame in frames]
                if not self._listens:
                    return b"", parts
                peer = bytes(parts[0])
                if self._many or self._peer.hears(peer):
                    return peer, parts[1:]
            os.eventfd_write(self._changed, 1)  # there may be more
            return None

    def _look_at_handshakes(self) -> None:
        """Say why peers cannot connect."""
        read: Any = engine("zmq.utils.monitor", "bridge-zmq").recv_monitor_message
        for _ in range(DEPTH):
            if not self._handshakes.poll(0):
                return
            unknown = read(self._handshakes)["event"] == self._zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self.trouble = TROUBLE[self._listens, unknown]

    def _check(self) -> None:
        if self._closed:
            raise ValueError("this end of the link is closed")

    def close(self) -> None:
        """See `Carrier.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._changed, 1)
        self._end()

    def _end(self) -> None:
        self._closed = True
        if self._doorman is not None:
            self._doorman.stop()
        self._context.destroy(linger=0)

    def __del__(self) -> None:  # and not before: another thread may wait for it
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._changed)


class _Allowed:
    """Tells the authenticator which keys may connect."""

    def __init__(self, keys: set[bytes]) -> None:
        self._keys = keys

    def callback(self, _domain: str, key: bytes) -> bool:
        """Return whether a peer with that public key is allowed."""
        return key in self._keys
