# SPDX-License-Identifier: Apache-2.0
"""What two bridges say to each other: they greet, pair their rings by name, and pass on what the rings' ends have.

Each bridge has a random number, its own for as long as its process lives. Messages carry the numbers of both ends, so
nothing that was meant for a predecessor counts. A bridge that meets another number begins anew with it. If it only
has not heard the peer for a while, both go on where they were.
"""

from __future__ import annotations

import dataclasses
import random
import socket
import time
from typing import TYPE_CHECKING

from ssm.bridge import wire
from ssm.bridge.carrier import SILENCE_S
from ssm.bridge.errors import BridgeError, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from ssm.bridge.arrivals import Arrivals
    from ssm.bridge.carrier import Carrier, Line
    from ssm.bridge.sender import Sender

HELLO_S = 0.5  # between two greetings, as long as nobody answers
LEAVE_S = 0.1  # between two goodbyes
BEAT_S = 1.0  # nothing else was sent that long: a sign of life
GAP_S = 2.5  # a peer that was silent that long may have missed messages


@dataclasses.dataclass(slots=True)
class Link:
    """How the link is."""

    peer: str = ""
    """Pool and host at the other end; empty: none was met yet."""
    silent_s: float = 0.0
    """Since when it was not heard."""
    met: int = 0
    """How often another process was met at the other end: once, and once more for each restart of it."""
    returned: int = 0
    """How often the same process was heard again after a silence."""
    bad: int = 0
    """Messages that were none."""


class Session:
    """The talk with the peer, as this side has it."""

    def __init__(
        self,
        carrier: Carrier | Line,
        pool: str,
        senders: Sequence[Sender],
        receivers: Sequence[Arrivals],
        bytes_max: int,
        tell: Callable[[str], None],
    ) -> None:
        self.senders, self.receivers, self.link = tuple(senders), tuple(receivers), Link()
        self.left = False  # the peer has said that it ends
        self.blocked = False  # the carrier had no room at the last try
        self._receivers = {each.name: each for each in receivers}
        self._carrier, self._pool, self._bytes_max, self._say = carrier, pool, bytes_max, tell
        self._told: set[str] = set()
        self._me = _number()
        self._peer = 0
        self._heard = self._hello_sent = self._sent = 0.0
        self._since = time.monotonic()
        self._incoming: dict[int, Arrivals] = {}
        self._answered: dict[int, tuple[wire.Body, float]] = {}
        self._refusals: dict[int, wire.Refuse] = {}
        self._drops: dict[int, int] = {}
        self._drops_at = 0.0

    # ---- what arrives ---------------------------------------------------------------------------------

    def handle(self, parts: Sequence[memoryview]) -> None:
        """Do what a message says; drop what is none."""
        try:
            message = wire.parse(parts, self._bytes_max)
        except WireError as error:
            self.link.bad += 1
            self._tell(str(error))
            return
        if isinstance(message.body, wire.Hello):
            self._hear(message.sender, message.body)
        elif message.sender == self._peer and message.receiver == self._me:
            self._notice()
            self._dispatch(message.channel, message.body)
        elif message.sender != self._peer:
            self._greet()

    def _hear(self, sender: int, hello: wire.Hello) -> None:
        if sender == self._me:
            return  # an echo
        if not hello.exports and not hello.imports:
            self.left |= sender == self._peer
            return
        if sender != self._peer:
            self._meet(sender, hello)
        self._notice()
        if hello.seen != self._me:
            self._greet(at_once=True)

    def _notice(self) -> None:
        now = time.monotonic()
        if now - self._heard > GAP_S:
            self.link.returned += 1
            for sender in self.senders:
                sender.hurry()
        self._heard = now

    def _meet(self, sender: int, hello: wire.Hello) -> None:
        """Begin with another process at the other end."""
        self._peer, self._heard = sender, time.monotonic()
        self.link.peer, self.link.met = f"{hello.pool} on {hello.host}", self.link.met + 1
        self.left = False
        self._told.clear()
        self._tell(f"met {self.link.peer}")
        self._forget()
        there = {ring.name: ring for ring in hello.imports}
        for each in self.senders:
            each.rewind()
            if each.name in there:
                each.greet(there[each.name])
            else:
                self._tell(f"ring {each.name!r} is not imported there: its packets wait")
        for channel, export in enumerate(hello.exports):
            receiver = self._receivers.get(export.name)
            if receiver is None:
                self._tell(
                    f"ring {export.name!r} is exported there, and not imported here: its packets wait there"
                )
                continue
            self._incoming[channel] = receiver
            try:
                self._tell(receiver.greet(export))
            except BridgeError as error:
                self._refuse(channel, error)
        for name in self._receivers.keys() - {export.name for export in hello.exports}:
            self._tell(f"ring {name!r} is not exported there: nothing comes")

    def _dispatch(self, channel: int, body: wire.Body) -> None:
        sender = self.senders[channel] if channel < len(self.senders) else None
        receiver = self._incoming.get(channel)
        if isinstance(body, wire.Ack) and sender:
            sender.on_ack(body)
        elif isinstance(body, wire.Refuse) and sender:
            sender.on_refuse(body.why)
            self._tell(f"refused there: {body.why}")
        elif isinstance(body, (wire.Data, wire.Piece)) and receiver:
            self._answered.pop(channel, None)  # it is answered, even if it changes nothing
            try:
                receiver.on_data(body) if isinstance(body, wire.Data) else receiver.on_piece(body)
            except BridgeError as error:
                self._refuse(channel, error)
        elif isinstance(body, wire.Drops) and receiver:
            receiver.received.drops = body.count
        elif isinstance(body, wire.End) and receiver:
            self._answered.pop(channel, None)
            receiver.on_end(body.position)

    def _refuse(self, channel: int, error: BridgeError) -> None:
        self._incoming.pop(channel, None)
        self._refusals[channel] = wire.Refuse(str(error))
        self._tell(f"refused: {error}")

    # ---- what is sent ---------------------------------------------------------------------------------

    def pump(self) -> bool:
        """Move packets both ways as far as they go; return whether any moved."""
        moved = False
        for receiver in self._receivers.values():
            moved |= receiver.pump()
        for channel, receiver in self._incoming.items():
            self._answer(channel, receiver.ack())
        for channel, refusal in self._refusals.items():
            self._answer(channel, refusal)
        self.blocked = False
        for channel, sender in enumerate(self.senders):
            moved |= sender.pump(self._transmit, (self._me, self._peer, channel))
            for text in (sender.refused, sender.notice):
                self._tell(text)
        return moved

    def _answer(self, channel: int, body: wire.Body) -> None:
        """Tell the sender of a ring how it stands, if that has changed; from time to time in any case."""
        now = time.monotonic()
        last, at = self._answered.get(channel, (None, 0.0))
        if (body != last or now - at > BEAT_S) and self._send(
            wire.Message(self._me, self._peer, channel, body)
        ):
            self._answered[channel] = body, now

    def tick(self) -> None:
        """Say that this bridge lives, or look for another one."""
        now = time.monotonic()
        silent = now - self._heard
        self.link.silent_s = silent if self._peer else 0.0
        if self._peer and silent > SILENCE_S:
            self._tell(f"nothing was heard of {self.link.peer} for {SILENCE_S:g} s")
        elif self._peer:
            self._told.discard(f"nothing was heard of {self.link.peer} for {SILENCE_S:g} s")
        if not self._peer and self.link.met == 0 and now - self._since > SILENCE_S:
            self._tell(
                f"no bridge has answered for {SILENCE_S:g} s: does one run there with the same link and carrier, and "
                "do both have each other's keys or certificates?"
            )
        if not self._peer or silent > GAP_S:
            self._greet()
        elif now - self._sent > BEAT_S:
            self._send(wire.Message(self._me, self._peer, 0, wire.Beat()))
        if self._peer and now - self._drops_at > BEAT_S:
            self._drops_at = now
            self._tell_drops()

    def _tell_drops(self) -> None:
        for channel, sender in enumerate(self.senders):
            count = sender.drops
            if count != self._drops.get(channel, 0) and self._send(
                wire.Message(self._me, self._peer, channel, wire.Drops(count))
            ):
                self._drops[channel] = count

    def leave(self) -> None:
        """Say that this bridge ends since all is done, from time to time: a greeting without rings."""
        now = time.monotonic()
        if now - self._hello_sent >= LEAVE_S:
            self._hello_sent = now
            self._send(
                wire.Message(self._me, 0, 0, wire.Hello(self._pool, socket.gethostname(), self._peer, (), ()))
            )

    def renew(self) -> None:
        """Become another bridge for the peer: what it has is not known any more."""
        self._me, self._peer = _number(), 0
        self._forget()

    def _forget(self) -> None:
        self._incoming, self._answered, self._refusals, self._drops = {}, {}, {}, {}

    def _greet(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._hello_sent < HELLO_S:
            return
        self._hello_sent = now
        exports = tuple(wire.Export(each.name, each.stream, each.type) for each in self.senders)
        imports = tuple(
            wire.Import(each.name, each.type, each.pool.max_size) for each in self._receivers.values()
        )
        hello = wire.Hello(self._pool, socket.gethostname(), self._peer, exports, imports)
        self._send(wire.Message(self._me, 0, 0, hello))

    def _send(self, message: wire.Message) -> bool:
        """Send a message without packets; one that finds no room comes again, or is not missed."""
        sent = self._carrier.send(wire.pack(message), 0)
        if sent:
            self._sent = time.monotonic()
        return sent

    def _transmit(self, parts: list[Buffer]) -> bool:
        sent = self._carrier.send(parts, 0)
        self.blocked |= not sent
        if sent:
            self._sent = time.monotonic()
        return sent

    def _tell(self, text: str) -> None:
        """Tell people, once."""
        if text and text not in self._told and len(self._told) < wire.CHANNELS_MAX * 4:
            self._told.add(text)
            self._say(text)


def _number() -> int:
    return random.SystemRandom().randrange(1, 1 << 64)
