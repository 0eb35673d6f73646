# SPDX-License-Identifier: Apache-2.0
"""Where a worker's results go: values become packets, packets go into rings, and what they were made from ends.

Results are held until all of them are there. `commit` then puts them and ends the delivery that they were made from, in
one commit: a worker that is killed has done both, or neither. Results for several rings, and more results than their
ring takes, are several commits, of which the last one ends the delivery.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ssm._core import Packet, PacketBatch
from ssm.errors import PoolExhausted, RingFull, StaleHandle
from ssm.pipeline import board, values
from ssm.pipeline.declared import Routed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from ssm.pipeline.board import Words
    from ssm.pipeline.declared import StageSpec
    from ssm.pipeline.order import Order
    from ssm.pipeline.waits import Waits
    from ssm.pool import Pool
    from ssm.ring import Ring

    Made: TypeAlias = tuple[Sequence[Ring], Packet]
    Done: TypeAlias = Packet | PacketBatch | None

T = TypeVar("T")


class Outlet:
    """The results of one worker."""

    def __init__(self, stage: StageSpec, pool: Pool, rings: Sequence[Ring], waits: Waits) -> None:
        self.pool, self.rings, self.waits = pool, rings, waits
        self.row: Words = waits.row
        self._by_name = {ring.name: ring for ring in rings}
        self._codecs = {ring.name: values.codec(ring) for ring in stage.outputs}
        kinds = {(type(codec), getattr(codec, "dtype", None)) for codec in self._codecs.values()}
        self._codec = next(iter(self._codecs.values())) if len(kinds) == 1 else None
        self._stage = stage
        self.held: list[Made] = []  # results that are not put yet
        self.early = 0  # puts of results of the same packet that could not wait for the others
        self.order: Order | None = None  # of an ordered stage

    # ---- waiting --------------------------------------------------------------------------------

    def take(self, call: Callable[[float | None], T]) -> T:
        """Return ``call(timeout)`` that takes memory of the pool; it waits where there is none."""
        try:
            return call(0)
        except PoolExhausted:
            self._put_early()  # what is held may be what is missing
            if self.order is not None:
                return self.order.until_done(call)
            return self.waits.until_done(board.NO_BLOCK, call)

    def put(self, ring: Ring, packet: Packet, *, keep: bool = False, done: Done = None) -> None:
        """Put one packet; wait for room. A packet that came again may be queued there since the last time."""
        again = packet.redelivered
        try:
            ring.put(packet, False, keep=keep, done=done)
        except RingFull:
            self.waits.until_done(
                board.BLOCKED, lambda timeout: ring.put(packet, True, timeout, keep=keep, done=done)
            )
        except ValueError as error:
            if isinstance(error, StaleHandle) or not again:
                raise
            if not keep:
                packet.free()

    def put_many(self, ring: Ring, packets: PacketBatch | Sequence[Packet], done: Done = None) -> None:
        """Put several packets in one commit; wait for room."""
        try:
            ring.put_many(packets, False, done=done)
        except RingFull:
            self.waits.until_done(
                board.BLOCKED, lambda timeout: ring.put_many(packets, True, timeout, done=done)
            )

    # ---- results --------------------------------------------------------------------------------

    def made(self, result: Any, tags: Sequence[int], *, several: bool) -> Iterator[Made]:
        """Yield what a function returned as packets, each with the rings that it goes to.

        `tags`: of the packets that it was made from. `several`: the result has one value for each output.
        """
        each_own = several and hasattr(result, "__len__") and len(result) == len(tags)
        for number, value in enumerate(result if several else (result,)):
            tag = tags[number] if each_own else tags[0] if len(tags) == 1 else 0
            yield from self._packed(value, tag)

    def _packed(self, value: Any, tag: int) -> Iterator[Made]:
        if isinstance(value, Routed):
            ring = self._by_name.get(value.ring)
            if ring is None:
                raise ValueError(
                    f"stage {self._stage.name!r} sends to ring {value.ring!r}, which is not among its outputs "
                    f"({', '.join(self._by_name)})"
                )
            yield from self._each(self._codecs[value.ring], value.value, [ring], tag)
        elif isinstance(value, list | tuple) and _is_routed(cast("Sequence[Any]", value)):
            for each in cast("Sequence[Any]", value):
                yield from self._packed(each, tag)
        elif self._codec is None:
            raise TypeError(
                f"the outputs of stage {self._stage.name!r} have packets of different kinds "
                f"({', '.join(self._by_name)}): "
                "say which ring a value goes to, with ring.to(value)"
            )
        else:
            yield from self._each(self._codec, value, self.rings, tag)

    def _each(self, codec: values.Packets, value: Any, rings: Sequence[Ring], tag: int) -> Iterator[Made]:
        for part in codec.split(value):
            if isinstance(part, Routed):
                yield from self._packed(part, tag)
                continue
            packet = codec.pack(part, self.pool, self.take)
            if packet is not part:
                packet.tag = tag
            yield rings, packet

    def send(self, made: Made) -> int:
        """Put one packet into its rings; return how many these are."""
        rings, packet = made
        for ring in rings[:-1]:
            self.put(ring, packet, keep=True)
        self.put(rings[-1], packet)
        return len(rings)

    def hold(self, made: Made) -> None:
        """Keep a result for the commit; those before it are put if they cannot be in the same one."""
        if self.held and (len(self.rings) > 1 or len(self.held) == self.rings[0].capacity):
            self._put_early()
        self.held.append(made)

    def _put_early(self) -> None:
        if self.held and self.order is not None:
            self.order.wait()
        held, self.held = self.held, []
        for made in held:
            self.early += self.send(made)

    def commit(self, held: Sequence[Made], done: Packet | PacketBatch, redelivers: bool) -> None:
        """Put what was held, and end what it was made from; `redelivers`: that may come again."""
        own = {done.handle} if isinstance(done, Packet) else set(done.handles.tolist())
        goes_on = any(packet.handle in own for _, packet in held)  # then its put ends it
        ended = done if held and redelivers and not goes_on else None
        if len(held) > 1:
            self.put_many(self.rings[0], [packet for _, packet in held], ended)
        for rings, packet in held if len(held) == 1 else ():
            for ring in rings[:-1]:
                self.put(ring, packet, keep=True)
            self.put(rings[-1], packet, done=ended)
        if ended is None:
            with contextlib.suppress(StaleHandle):  # it is among the results
                done.free()

    # ---- counting, see board.py -----------------------------------------------------------------

    def doubt(self, kind: int, more: int = 1) -> int:
        """Announce a commit; return the count that holds when it is done."""
        count = self.row[kind] + more
        self.row[board.DOUBT] = count << board.KIND_BITS | kind
        return count

    def doubt_made(self, taken: int, puts: int) -> int:
        """Announce the commit of packets that were made from others; likewise."""
        row, count = self.row, self.row[board.MADE] + 1
        before, after = row[board.MADE] & 1, count & 1
        row[board.IN_AFTER + after] = row[board.IN_AFTER + before] + taken
        row[board.PUTS_AFTER + after] = row[board.PUTS_AFTER + before] + puts
        row[board.DOUBT] = count << board.KIND_BITS | board.MADE
        return count


def _is_routed(values: Sequence[Any]) -> bool:
    return any(isinstance(each, Routed) for each in values)
