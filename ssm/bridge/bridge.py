# SPDX-License-Identifier: Apache-2.0
"""A bridge: rings of a pool that go on in a pool of another host."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from ssm import _core
from ssm.bridge.carrier import SILENCE_S
from ssm.bridge.errors import BridgeError
from ssm.bridge.figures import Teller
from ssm.bridge.publisher import Publisher
from ssm.bridge.receiver import Receiver
from ssm.bridge.sender import BATCH_BYTES, Sender, Sent
from ssm.bridge.session import Link, Session
from ssm.bridge.subscriber import Subscriber
from ssm.bridge.wire import NAME_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ssm import Pool, Ring, Topic
    from ssm.bridge.arrivals import Arrivals, Received
    from ssm.bridge.carrier import Carrier

WINDOW_MAX = 4096  # packets of an inbox, unless told otherwise: twice what the ring takes, at most that many
TOPIC_WINDOW = 64
WINDOW_BYTES = 8 << 20
LOOK_S = 0.5  # at most that long in one wait
NAP_S = 0.02  # between two looks at what cannot be waited for: free memory, room in the carrier
GRACE_S = 0.5  # for the last messages, before the carrier is closed
GONE_S = 30.0  # without a word: the peer does not wait for the last message any more
AT_ONCE = 64  # messages between two rounds


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """One exported ring."""

    name: str
    """Its name on the link."""
    sent: Sent
    in_flight: int
    """Packets that were taken out of the ring, and are not known to be in the other pool."""
    oldest_s: float
    """Seconds since the oldest one of these was taken; 0: there is none."""
    exact: bool
    """Whether each packet gets there exactly once, whichever process is killed: the ring has redeliver=True and
    consumers="one"."""
    refused: str
    """Why the other host takes none; empty: it does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """One imported ring."""

    name: str
    """Its name on the link."""
    received: Received
    waiting: int
    """Packets that have arrived, and wait for room in the ring."""


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What a bridge does."""

    link: Link
    exports: tuple[Exported, ...]
    imports: tuple[Imported, ...]

    def __str__(self) -> str:
        """Return one line for people."""
        peer = self.link.peer or "nobody"
        if self.link.silent_s > SILENCE_S:
            peer += f", silent for {self.link.silent_s:.0f} s"
        parts = [f"with {peer}"]
        for out in self.exports:
            again = f", {out.sent.resent:,} sent again" * bool(out.sent.resent)
            parts.append(f"{out.name}: {out.sent.packets:,} there, {out.in_flight:,} under way{again}")
        for into in self.imports:
            twice = f", {into.received.twice:,} came twice" * bool(into.received.twice)
            parts.append(f"{into.name}: {into.received.packets:,} came, {into.waiting:,} wait{twice}")
        return "; ".join(parts)


class Bridge:
    """Rings of this host that end on another one, and rings of that one which end here.

    One thread does all the work; another one waits for messages. A Bridge is used by one thread, except `stop`.
    """

    def __init__(
        self,
        pool: Pool,
        carrier: Carrier,
        *,
        exports: Mapping[str, str] | None = None,
        imports: Mapping[str, str] | None = None,
        export_topics: Mapping[str, str] | None = None,
        import_topics: Mapping[str, str] | None = None,
        overflow: str = "block",
        window: int | None = None,
        window_bytes: int = WINDOW_BYTES,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Open the rings; nothing is moved before `start` or `run`.

        Parameters
        ----------
        pool : Pool
            Whose rings they are.
        carrier : Carrier
            Is closed with the bridge.
        exports : mapping of str to str
            Names of rings whose packets go to the other host, each with its name on the link.
        imports : mapping of str to str
            Names on the link, each with the name of the ring here that its packets are put into.
        export_topics, import_topics : mapping of str to str
            Likewise, of topics.
        overflow : str
            What a publisher of an exported topic does when what waits for the other host is full; see
            `Topic.subscribe`.
        window : int, optional
            Packets that may wait here when an imported ring is full. By default twice its capacity, at most 4,096;
            of a topic 64.
        window_bytes : int
            Bytes that may wait in this process, for each imported ring or topic.
        tell : callable, optional
            Gets a line of text when something changes: a peer is met, a ring is refused.

        Raises
        ------
        BridgeError
            A ring or topic is not there, another bridge has it, or a name is too long.
        ValueError
            There is no such overflow.
        """
        self.pool, self._carrier = pool, carrier
        self._stop = threading.Event()
        self._waker = _core.waker()
        self._arrived: deque[list[memoryview]] = deque()
        self._bytes, self._room = 0, threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._teller: Teller | None = None
        self._closed = False
        self._over = 0.0  # since when nothing is left to do
        self._receivers: list[Arrivals] = []
        self._senders: list[Sender] = []
        try:
            for name, local in (imports or {}).items():
                ring = self._ring(local, name)
                packets = window or min(WINDOW_MAX, 2 * ring.capacity)
                self._receivers.append(Receiver(ring, name, packets, window_bytes))
            for name, local in (import_topics or {}).items():
                topic = self._topic(local, name)
                self._receivers.append(Publisher(pool, topic, name, window or TOPIC_WINDOW, window_bytes))
            for local, name in (exports or {}).items():
                self._senders.append(Sender(self._ring(local, name), name))
            for local, name in (export_topics or {}).items():
                self._senders.append(
                    Subscriber(self._topic(local, name), name, overflow, window or TOPIC_WINDOW)
                )
            self._check_names()
        except BaseException:
            self.close()
            raise
        self._bytes_max = max(window_bytes, pool.max_size, 2 * BATCH_BYTES)
        tell = tell or (lambda _: None)
        for each in self._senders:
            if each.ring.peers and not isinstance(each, Subscriber):
                tell(
                    f"ring {each.name!r}: producers get ConsumersGone while no bridge runs; make it with peers=False"
                )
        self._teller = Teller(pool, len(self._senders) + len(self._receivers))
        self._session = Session(carrier, pool.name, self._senders, self._receivers, self._bytes_max, tell)

    def _ring(self, local: str, name: str) -> Ring:
        if local not in self.pool.rings():
            raise BridgeError(
                f"pool {self.pool.name!r} has no ring {local!r}: make it first; one that is exported, with "
                'redeliver=True, consumers="one", peers=False'
            )
        _check_name(name)
        return self.pool.ring(local)

    def _topic(self, local: str, name: str) -> Topic:
        if f"{local}>" not in self.pool.rings():
            raise BridgeError(
                f"pool {self.pool.name!r} has no topic {local!r}: make it first, with its history"
            )
        _check_name(name)
        return self.pool.topic(local)

    def _check_names(self) -> None:
        for ends in (self._senders, self._receivers):
            names = [each.name for each in ends]
            if twice := {name for name in names if names.count(name) > 1}:
                raise BridgeError(
                    f"{min(twice)!r} is the name of a ring and of a topic: give one another name on the link"
                )

    # ---- running --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self._run_in_thread, name="ssm bridge", daemon=True)
        self._thread.start()
        return self

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:  # told by close()
            self._error = error

    def run(self, *, to_the_end: bool = False) -> None:
        """Move packets until `stop` is called.

        Parameters
        ----------
        to_the_end : bool
            End as well when all rings are shut down here and there, and all packets are where they go. Both bridges
            are to be run so.

        Raises
        ------
        BridgeError
            It cannot go on; the packets stay where they are.
        """
        reader = threading.Thread(target=self._read, name="ssm bridge reader", daemon=True)
        reader.start()
        try:
            while not self._stop.is_set() and not (to_the_end and self._is_over()):
                self._round()
        finally:
            self._stop.set()
            with self._room:
                self._room.notify_all()
            self._carrier.close()
            reader.join()

    def _round(self) -> None:
        for _ in range(AT_ONCE):
            if not self._arrived:
                break
            with self._room:
                parts = self._arrived.popleft()
                self._bytes -= _size(parts)
                self._room.notify()
            self._session.handle(parts)
        moved = self._session.pump()
        self._session.tick()
        if self._teller is not None:
            self._teller.tell(self.status)
        if self._session.link.silent_s > SILENCE_S and any(each.shared for each in self._senders):
            self._let_go()
        if stale := [each for each in self._senders if isinstance(each, Subscriber) and each.stale]:
            for each in stale:
                each.again()
            self._session.renew()
        if not moved and not self._arrived:
            self._wait()

    def _is_over(self) -> bool:
        """Whether nothing is left to do, and the other bridge does not need this one to learn that."""
        silent_s, now = self._session.link.silent_s, time.monotonic()
        if not all(each.ended or (each.is_done and silent_s > GONE_S) for each in self._senders):
            return False
        if not all(each.ended or each.closed for each in self._receivers):
            return False
        if self._over == 0.0:
            self._over = now
        self._session.leave()
        known = not self._receivers or self._session.left or silent_s > GONE_S
        return known and now - self._over > GRACE_S

    def _let_go(self) -> None:
        """Leave packets of shared rings to other consumers: the other host may be gone for good."""
        for each in self._senders:
            if each.shared:
                each.give_back()
                each.begin()
        self._session.renew()

    def _wait(self) -> None:
        """Sleep until there may be something to do."""
        pairs = [(each.ring, False) for each in self._senders if each.wants_packets]
        pairs += [(ring, True) for each in self._receivers for ring in each.waits_for()]
        soon = self._session.blocked or any(each.waiting for each in self._receivers)
        since = time.monotonic()
        ready = _core.wait_rings(tuple(pairs), NAP_S if soon else LOOK_S, self._waker)
        if ready and not self._session.pump() and time.monotonic() - since < NAP_S:
            _core.wait_rings(
                (), NAP_S, self._waker
            )  # it looks ready, and gives nothing: nobody is at its other side

    def _read(self) -> None:
        """Wait for messages; they are handled in the other thread."""
        while not self._stop.is_set():
            try:
                parts = self._carrier.recv(LOOK_S)
            except ValueError:
                return  # closed
            if parts is None:
                continue
            with self._room:
                self._room.wait_for(lambda: self._bytes <= self._bytes_max or self._stop.is_set())
                self._arrived.append(parts)
                self._bytes += _size(parts)
            _core.wake(self._waker)

    def stop(self) -> None:
        """End `run`; from any thread, or a signal handler."""
        self._stop.set()
        _core.wake(self._waker)

    def close(self) -> None:
        """End it: what was taken and is not known to be there goes back to its ring. Closing twice is fine.

        Raises
        ------
        BridgeError
            It had ended by itself, since it could not go on.
        """
        if self._closed:
            return
        self._closed = True
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._carrier.close()
        for sender in self._senders:
            sender.close()
        for receiver in self._receivers:
            receiver.close()
        if self._teller is not None:
            self._teller.close()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- looking --------------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return what it has done, and how the link is."""
        return Status(
            dataclasses.replace(self._session.link),
            tuple(
                Exported(
                    each.name,
                    dataclasses.replace(each.sent),
                    each.in_flight,
                    each.oldest_s,
                    each.exact,
                    each.refused,
                )
                for each in self._senders
            ),
            tuple(
                Imported(
                    each.name,
                    dataclasses.replace(each.received),
                    each.backlog,
                )
                for each in self._receivers
            ),
        )


def _check_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= NAME_MAX:
        raise BridgeError(f"a ring's name on the link has 1 .. {NAME_MAX} bytes, not {name!r}")


def _size(parts: list[memoryview]) -> int:
    return sum(part.nbytes for part in parts)
