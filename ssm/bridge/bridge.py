# SPDX-License-Identifier: Apache-2.0
"""A bridge: rings of a pool that go on in a pool of another host."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self, cast

from ssm import _core
from ssm.bridge.carrier import SILENCE_S, Line
from ssm.bridge.errors import BridgeError
from ssm.bridge.figures import Teller
from ssm.bridge.ledger import HOSTS_MAX
from ssm.bridge.publisher import Publisher
from ssm.bridge.receiver import Receiver
from ssm.bridge.sender import Sender, Sent
from ssm.bridge.session import Link, Session
from ssm.bridge.shared import HostSender, Source
from ssm.bridge.subscriber import Subscriber
from ssm.bridge.wire import MESSAGE_MAX, NAME_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ssm import Pool, Ring, Topic
    from ssm.bridge.arrivals import Arrivals, Received
    from ssm.bridge.carrier import Carrier, Exchange

WINDOW_MAX = 4096  # packets of an inbox, unless told otherwise: twice what the ring takes, at most that many
TOPIC_WINDOW = 64
WINDOW_BYTES = 8 << 20
LOOK_S = 0.5  # at most that long in one wait
NAP_S = 0.02  # between two looks at what cannot be waited for: free memory, room in the carrier
GRACE_S = 0.5  # for the last messages, before the carrier is closed
GONE_S = 30.0  # without a word: the peer does not wait for the last message any more
AT_ONCE = 64  # messages between two rounds
ANNOUNCE_S = 1.0  # between two announcements, while there may be more peers
LOST_S = 30.0
PLACE_BYTES = 7  # behind a name, where there are several peers


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
        carrier: Carrier | Exchange,
        *,
        exports: Mapping[str, str] | None = None,
        imports: Mapping[str, str] | None = None,
        export_topics: Mapping[str, str] | None = None,
        import_topics: Mapping[str, str] | None = None,
        overflow: str = "block",
        hosts: int = 1,
        lost: float = LOST_S,
        window: int | None = None,
        window_bytes: int = WINDOW_BYTES,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Open the rings; nothing is moved before `start` or `run`.

        Parameters
        ----------
        pool : Pool
            Whose rings they are.
        carrier : Carrier or Exchange
            Is closed with the bridge. For several peers, an Exchange.
        exports : mapping of str to str
            Names of rings whose packets go to the other host, each with its name on the link.
        imports : mapping of str to str
            Names on the link, each with the name of the ring here that its packets are put into.
        export_topics, import_topics : mapping of str to str
            Likewise, of topics.
        overflow : str
            What a publisher of an exported topic does when what waits for the other host is full; see
            `Topic.subscribe`.
        hosts : int
            How many peers there may be, at most 256. Each packet of an exported ring goes to one of them, each packet
            of an exported topic to all.
        lost : float
            Seconds. What a peer has not acknowledged goes to others when it was not heard for so long.
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
        if hosts > 1 and not hasattr(carrier, "recv_from"):
            raise BridgeError(f"this carrier has one peer, not {hosts}")
        if hosts > HOSTS_MAX:
            raise BridgeError(f"a bridge has at most {HOSTS_MAX} peers, not {hosts}")
        self.pool, self._carrier = pool, carrier
        self._exports, self._imports = dict(exports or {}), dict(imports or {})
        self._export_topics, self._import_topics = dict(export_topics or {}), dict(import_topics or {})
        self._overflow, self._window, self._window_bytes = overflow, window, window_bytes
        self._hosts, self._lost_s = hosts, lost
        self._say: Callable[[str], None] = tell or _say_nothing
        self._stop = threading.Event()
        self._waker = _core.waker()
        self._arrived: deque[tuple[bytes, list[memoryview]]] = deque()
        self._bytes, self._room = 0, threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._teller: Teller | None = None
        self._closed = False
        self._over = 0.0  # since when nothing is left to do
        self._announced = 0.0
        self._receivers: list[Arrivals] = []
        self._senders: list[Sender] = []
        self._sessions: dict[bytes, Session] = {}
        self._turns: deque[Session] = deque()
        self._full, self._trouble = False, ""
        self._sources: dict[str, Source] = {}
        self._bytes_max = max(window_bytes, MESSAGE_MAX)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Look at all rings and topics, and begin with the one peer, if there is only one."""
        self._check_names()
        for local, name in self._exports.items():
            ring = self._ring(local, name)
            if ring.peers:
                self._say(
                    f"ring {name!r}: producers get ConsumersGone while no bridge runs; make it with peers=False"
                )
            if self._hosts > 1:
                self._open_source(ring, name)
        for name, local in self._imports.items():
            self._ring(local, name)
        topics = [
            *self._export_topics.items(),
            *((local, name) for name, local in self._import_topics.items()),
        ]
        for local, name in topics:
            self._topic(local, name)
        every = (self._exports, self._imports, self._export_topics, self._import_topics)
        if self._hosts == 1:
            self._session = self._begin(b"", cast("Carrier", self._carrier))
        self._teller = Teller(self.pool, self._hosts * sum(map(len, every)))

    def _open_source(self, ring: Ring, name: str) -> None:
        stats = next(each for each in self.pool.stats().rings if each.name == ring.name and not each.unlinked)
        if stats.redeliver and stats.consumers == "one":
            self._sources[name] = Source(ring, name, stats.serial)

    def _begin(self, peer: bytes, carrier: Carrier | Line) -> Session:
        """Make the ends of all rings for one peer."""
        place = "" if self._hosts == 1 else f"@{hashlib.blake2b(peer, digest_size=3).hexdigest()}"
        receivers: list[Arrivals] = []
        senders: list[Sender] = []
        try:
            self._make_receivers(place, receivers)
            self._make_senders(peer, senders)
        except BaseException:
            for receiver in receivers:
                receiver.close()
            for sender in senders:
                sender.close()
            raise
        session = Session(carrier, self.pool.name, senders, receivers, self._bytes_max, self._say)
        self._sessions[peer] = session
        self._turns.append(session)
        self._receivers += receivers
        self._senders += senders
        return session

    def _make_receivers(self, place: str, made: list[Arrivals]) -> None:
        pool, window, window_bytes = self.pool, self._window, self._window_bytes
        for name, local in self._imports.items():
            ring = self._ring(local, name)
            packets = window or min(WINDOW_MAX, 2 * ring.capacity)
            made.append(Receiver(ring, name, packets, window_bytes, place))
        for name, local in self._import_topics.items():
            topic = self._topic(local, name)
            made.append(Publisher(pool, topic, name, window or TOPIC_WINDOW, window_bytes, place))

    def _make_senders(self, peer: bytes, made: list[Sender]) -> None:
        host = int.from_bytes(hashlib.blake2b(peer, digest_size=8).digest(), "little") or 1
        for local, name in self._exports.items():
            source = self._sources.get(name)
            made.append(HostSender(source, host, name) if source else Sender(self._ring(local, name), name))
        for local, name in self._export_topics.items():
            topic, capacity = self._topic(local, name), self._window or TOPIC_WINDOW
            made.append(Subscriber(topic, name, self._overflow, capacity))

    def _ring(self, local: str, name: str) -> Ring:
        if local not in self.pool.rings():
            raise BridgeError(
                f"pool {self.pool.name!r} has no ring {local!r}: make it first; one that is exported, with "
                'redeliver=True, consumers="one", peers=False'
            )
        self._check_name(name)
        return self.pool.ring(local)

    def _topic(self, local: str, name: str) -> Topic:
        if f"{local}>" not in self.pool.rings():
            raise BridgeError(
                f"pool {self.pool.name!r} has no topic {local!r}: make it first, with its history"
            )
        self._check_name(name)
        return self.pool.topic(local)

    def _check_names(self) -> None:
        ends = (
            [*self._exports.values(), *self._export_topics.values()],
            [*self._imports, *self._import_topics],
        )
        for names in ends:
            if twice := {name for name in names if names.count(name) > 1}:
                raise BridgeError(
                    f"{min(twice)!r} is the name of a ring and of a topic: give one another name on the link"
                )

    def _check_name(self, name: str) -> None:
        most = NAME_MAX if self._hosts == 1 else NAME_MAX - PLACE_BYTES
        if not 1 <= len(name.encode()) <= most:
            raise BridgeError(f"a ring's name on the link has 1 .. {most} bytes, not {name!r}")

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
                peer, parts = self._arrived.popleft()
                self._bytes -= _size(parts)
                self._room.notify()
            session = self._session_with(peer)
            if session is not None and parts:
                session.handle(parts)
        moved = self._pump()
        self._tick()
        if not moved and not self._arrived:
            self._wait()

    def _is_over(self) -> bool:
        """Whether nothing is left to do, and no other bridge needs this one to learn that."""
        sessions, now = list(self._turns), time.monotonic()
        if not sessions or not all(_is_done(session) for session in sessions):
            return False
        if self._over == 0.0:
            self._over = now
        for session in sessions:
            session.leave()
        known = all(
            not session.receivers or session.left or session.link.silent_s > GONE_S for session in sessions
        )
        return known and now - self._over > GRACE_S

    def _pump(self) -> bool:
        """Move packets of all peers; another one comes first each time."""
        moved = False
        for session in self._turns:
            moved |= session.pump()
        self._turns.rotate()
        return moved

    def _tick(self) -> None:
        for session in self._turns:
            session.tick()
            self._look_after(session)
        for source in self._sources.values():
            if count := source.forget_absent(self._lost_s):
                self._say(
                    f"ring {source.name!r}: hosts did not come back for {self._lost_s:g} s: {count:,} packets go to "
                    "others, and may be there twice"
                )
        now = time.monotonic()
        if 1 < self._hosts > len(self._sessions) and now - self._announced > ANNOUNCE_S:
            self._announced = now
            cast("Exchange", self._carrier).announce()
        self._tell_trouble()
        if self._teller is not None:
            self._teller.tell(self.statuses)

    def _tell_trouble(self) -> None:
        """Say why peers cannot connect, where the carrier knows; again when that changes."""
        trouble: str = getattr(self._carrier, "trouble", "")
        if trouble and trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble)

    def _session_with(self, peer: bytes) -> Session | None:
        """Return the session with a peer; make one, if there are not too many."""
        session = self._sessions.get(peer)
        if session is not None or self._hosts == 1:
            return session or self._session
        if len(self._sessions) >= self._hosts:
            if not self._full:
                self._full = True
                self._say(f"one more host would connect, and {self._hosts} are known: give a larger --hosts")
            return None
        try:
            return self._begin(peer, Line(cast("Exchange", self._carrier), peer))
        except BridgeError as error:
            self._say(str(error))
            return None

    def _look_after(self, session: Session) -> None:
        """Leave packets to others where the host may be gone for good; begin topics anew for a new one."""
        silent = session.link.silent_s
        if silent > SILENCE_S and any(each.shared for each in session.senders):
            self._let_go(session)
        if silent > self._lost_s:
            self._give_up(session)
        if stale := [each for each in session.senders if isinstance(each, Subscriber) and each.stale]:
            for each in stale:
                each.again()
            session.renew()

    def _let_go(self, session: Session) -> None:
        for each in session.senders:
            if each.shared:
                each.give_back()
                each.begin()
        session.renew()

    def _give_up(self, session: Session) -> None:
        """Let other hosts have what a lost one has not acknowledged, if another one is there."""
        for each in session.senders:
            if not isinstance(each, HostSender) or not each.in_flight:
                continue
            if any(other.open for other in self._sources[each.name].senders if other is not each):
                self._say(
                    f"ring {each.name!r}: {session.link.peer} was not heard for {self._lost_s:g} s: "
                    f"{each.release():,} packets go to others, and are there twice if it comes back with them"
                )

    def _wait(self) -> None:
        """Sleep until there may be something to do."""
        pairs = {id(each.ring): (each.ring, False) for each in self._senders if each.wants_packets}
        rooms = {id(ring): (ring, True) for each in self._receivers for ring in each.waits_for()}
        blocked = any(session.blocked for session in self._turns)
        soon = blocked or any(each.waiting for each in self._receivers)
        since = time.monotonic()
        either = (*pairs.values(), *rooms.values())
        ready = _core.wait_rings(either, NAP_S if soon else LOOK_S, self._waker)
        if ready and not self._pump() and time.monotonic() - since < NAP_S:
            _core.wait_rings(
                (), NAP_S, self._waker
            )  # it looks ready, and gives nothing: nobody is at its other side

    def _read(self) -> None:
        """Wait for messages; they are handled in the other thread."""
        while not self._stop.is_set():
            try:
                found = self._receive()
            except ValueError:
                return  # closed
            if found is None:
                continue
            with self._room:
                self._room.wait_for(lambda: self._bytes <= self._bytes_max or self._stop.is_set())
                self._arrived.append(found)
                self._bytes += _size(found[1])
            _core.wake(self._waker)

    def _receive(self) -> tuple[bytes, list[memoryview]] | None:
        if self._hosts > 1:
            return cast("Exchange", self._carrier).recv_from(LOOK_S)
        parts = cast("Carrier", self._carrier).recv(LOOK_S)
        return None if parts is None else (b"", parts)

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
        for source in self._sources.values():
            source.close()
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
        """Return what it has done, and how the link is; of the first peer, where there may be several."""
        return next(iter(self.statuses()), Status(Link(), (), ()))

    @property
    def outstanding(self) -> int:
        """Packets that were taken out of rings for several hosts, and that no host has."""
        return sum(source.outstanding for source in self._sources.values())

    def check(self) -> None:
        """Raise what ended the bridge, if it runs in a thread of its own, and ended by itself."""
        if self._error is not None:
            raise self._error

    def statuses(self) -> list[Status]:
        """Return what it has done with each peer, in the order of their names."""
        sessions = list(self._sessions.items())  # in one step: another thread may add one
        return [_status(session) for _, session in sorted(sessions, key=lambda each: each[0])]


def _say_nothing(_text: str) -> None:
    pass


def _is_done(session: Session) -> bool:
    """Whether all rings are shut down at both ends, and all packets are where they go."""
    gone = session.link.silent_s > GONE_S
    sent = all(each.ended or (each.is_done and gone) for each in session.senders)
    return sent and all(each.ended or each.closed for each in session.receivers)


def _status(session: Session) -> Status:
    return Status(
        dataclasses.replace(session.link),
        tuple(
            Exported(
                each.name,
                dataclasses.replace(each.sent),
                each.in_flight,
                each.oldest_s,
                each.exact,
                each.refused,
            )
            for each in session.senders
        ),
        tuple(
            Imported(each.name, dataclasses.replace(each.received), each.backlog)
            for each in session.receivers
        ),
    )


def _size(parts: list[memoryview]) -> int:
    return sum(part.nbytes for part in parts)
