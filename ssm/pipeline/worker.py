# SPDX-License-Identifier: Apache-2.0
"""What a worker does with packets: it takes them, calls the function, and sends what came of it.

It knows nothing of processes: `inline.py` runs the same code in one process. Each packet ends in one commit, which is
announced on the board and counted after it.
"""

from __future__ import annotations

import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ssm._core import Packet, PacketBatch
from ssm.errors import RingEmpty, RingFull, RingShutDown
from ssm.pipeline import board, values
from ssm.pipeline.awaiting import Loop, is_awaited
from ssm.pipeline.declared import takes_start
from ssm.pipeline.inlet import Inlet
from ssm.pipeline.order import Order
from ssm.pipeline.outlet import Outlet
from ssm.pipeline.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ssm.pipeline.board import Words
    from ssm.pipeline.declared import StageSpec
    from ssm.pipeline.outlet import Made
    from ssm.pool import Pool
    from ssm.ring import Ring

_UNNUMBERED = 2**64 - 1  # the tag of a source's packet before it gets its number


class StageError(Exception):
    """A function failed for good; the cause says how."""

    def __init__(self, text: str, tag: int | None = None) -> None:
        super().__init__(text)
        self.tag = tag


class Worker:
    """One worker of a stage. A function gets its own by `current_worker`."""

    def __init__(
        self,
        stage: StageSpec,
        number: int,
        pool: Pool,
        dead: Ring,
        row: Words,
        poison: Words,
        order: Words,
        tell: Callable[..., object],
        waits: Waits | None = None,
    ) -> None:
        self.number = number
        self.pool = pool
        self._stage, self._row, self._poison, self._tell, self._dead = stage, row, poison, tell, dead
        self._waits = waits or Waits(row)
        self.outlet = Outlet(stage, pool, [pool.ring(ring.name) for ring in stage.outputs], self._waits)
        self.inlet = Inlet([pool.ring(ring.name) for ring in stage.inputs], self._waits)
        self._codecs = [values.codec(ring) for ring in stage.inputs]
        self._order = (
            Order(self.inlet.rings[0], order, self._waits, self._failed_late) if stage.takes_turns else None
        )
        self.outlet.order = self._order
        self._outputs = len(stage.outputs)
        onward = self._outputs == 1 and values.codec(stage.outputs[0]).same
        self._passes = [
            onward and codec.same for codec in self._codecs
        ]  # by input: its packets may go on as they are,
        self._passes_now = [
            each and self._order is None for each in self._passes
        ]  # as soon as they are returned
        self._is_plain = (
            self._passes_now == [True] and not stage.batch and type(self._codecs[0]) is values.Packets
        )
        self.work: Callable[..., Any] = stage.work
        self._made: Callable[..., Any] = stage.work  # or an object of it, if it is a class
        self._loop: Loop | None = None  # of a function that is awaited
        self._sent = 0  # by a source, before this process was started

    # ---- for functions --------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        """The name of its stage."""
        return self._stage.name

    @property
    def kind(self) -> str:
        """What its stage is: "source", "stage" or "sink"."""
        return self._stage.kind

    @property
    def makes(self) -> bool:
        """Whether its stage is a class, of which it has an object."""
        return self._stage.makes

    @property
    def workers(self) -> int:
        """How many workers its stage has; `number` is 0 .. workers - 1."""
        return self._stage.workers

    def alloc(self, size: int) -> Packet:
        """Return a packet that is to be filled in place and returned or yielded; waits where there is none."""
        return self.outlet.take(lambda timeout: self.pool.alloc(size, timeout))

    # ---- the whole of its life ------------------------------------------------------------------

    def begin(self) -> None:
        """Make what the stage is, if it is a class."""
        work = self._stage.work
        if not is_awaited(work):
            self._made = self.work = work() if self._stage.makes else work
            return
        self._loop = Loop()
        self._made = self._loop.make(work) if self._stage.makes else work
        self.work = self._loop.plain(self._made)

    def end(self) -> object:
        """Return what ``close()`` of its object returns."""
        close = getattr(self._made, "close", None) if self._stage.makes else None
        if close is None:
            return None
        return close() if self._loop is None else self._loop.plain(close)()

    def close(self) -> None:
        """End the event loop of a function that is awaited."""
        if self._loop is not None:
            self._loop.close()

    def step(self, all_: bool) -> bool:
        """Take what is there now; a batch that is not full only with `all_`. False: nothing was there."""
        limit = self._stage.batch
        if not limit:
            packet = self.inlet.one(block=False)
            if packet is not None:
                self.one(packet)
            return packet is not None
        if not all_ and all(ring.qsize() < limit for ring in self.inlet.rings):
            return False
        batch = self.inlet.many(limit, 0, block=False)
        if batch is not None:
            self.many(batch)
        return batch is not None

    def consume(self) -> None:
        """Take packets until there will be no more."""
        if self._order is not None:
            self._consume_in_order(self._order)
        elif self._stage.batch:
            while (batch := self.inlet.many(self._stage.batch, self._stage.linger)) is not None:
                self.many(batch)
                del batch
        else:
            take = self._consume_same if self._is_plain else self.inlet.one
            while (packet := take()) is not None:
                self.one(packet)
                del packet

    def _consume_same(self) -> Packet | None:
        """Do what `one` does, with as few calls as can be, while packets are there that go on as they are.

        Returns a packet for `one`: after a wait, or one that is delivered again. None: there will be no more.
        """
        row, work, inlet, outlet = self._row, self.work, self.inlet, self.outlet
        get, put = inlet.rings[0].get_nowait, outlet.rings[0].put
        while True:
            try:
                packet = get()
            except (RingEmpty, RingShutDown):
                return inlet.one()
            if packet.redelivered:
                return packet
            row[board.CURRENT] = packet.handle
            try:
                result = work(packet)
                if result is packet:
                    count = row[board.PASSED] + 1
                    row[board.DOUBT] = count << board.KIND_BITS | board.PASSED
                    try:
                        put(packet, False)
                    except RingFull:
                        outlet.put(outlet.rings[0], packet)
                    row[board.PASSED] = count
                else:
                    self._end(packet, packet, result)
                    outlet.early = 0
            except (Exception, SystemExit) as error:
                self._try(packet, packet, self._tries_left(packet, error, self._stage.tries))

    def _consume_in_order(self, order: Order) -> None:
        stage, inlet = self._stage, self.inlet
        if stage.batch:
            while (
                batch := order.next(
                    lambda block: inlet.many(stage.batch, stage.linger, block=block), inlet.returned_batch
                )
            ) is not None:
                self.many(batch)
                del batch
        else:
            while (packet := order.next(lambda block: inlet.one(block=block), inlet.returned)) is not None:
                self.one(packet)
                del packet

    # ---- a source -------------------------------------------------------------------------------

    def items(self, args: tuple[Any, ...], kwargs: dict[str, Any], skip: int) -> Iterator[Any]:
        """Yield what a source yields, without the packets that were sent before it was killed."""
        if skip and takes_start(self.work):
            return iter(self.work(*args, **kwargs, start=skip))
        return iter(self.work(*args, **kwargs))

    def produce(self, args: tuple[Any, ...], kwargs: dict[str, Any], sent: int) -> None:
        """Send what a source yields, until it ends or is told to; behind the packets that were sent already."""
        self._sent = sent
        skip = 0 if takes_start(self.work) else sent
        for item in self.items(args, kwargs, sent):
            if self._row[board.STOP]:
                break
            skip = self.send(item, skip)

    def send(self, item: Any, skip: int = 0) -> int:
        """Send one item of a source, less the packets to skip; return how many are to be skipped still."""
        row, outlet = self._row, self.outlet
        for rings, packet in outlet.made(item, (_UNNUMBERED,), several=False):
            if skip >= len(rings):
                skip -= len(rings)
                continue
            if packet.tag == _UNNUMBERED:
                packet.tag = self._sent + row[board.SENT]
            row[board.SENT] += outlet.send((rings, packet))
        return skip

    # ---- packets one by one ---------------------------------------------------------------------

    def one(self, packet: Packet) -> None:
        """Do all that is to be done with a packet."""
        row = self._row
        if self._order is not None:
            self._order.begin(packet)
        if packet.redelivered and self._is_poison(packet.handle):
            self._give_up(packet)
            return
        row[board.CURRENT] = packet.handle
        self._try(packet, self._codecs[self.inlet.number].one(packet), self._stage.tries)

    def _try(self, packet: Packet, given: Any, tries: int) -> None:
        """Call the function until it does not fail, at most `tries` times."""
        while tries > 0:
            try:
                self._end(packet, given, self.work(given))
                self.outlet.early = 0
                return
            except (Exception, SystemExit) as error:
                tries = self._tries_left(packet, error, tries)

    def _tries_left(self, packet: Packet, error: BaseException, tries: int) -> int:
        """Count an error; return how often the function may be called still. 0: the packet was dealt with."""
        self._row[board.ERRORS] += 1
        early, self.outlet.early = self.outlet.early, 0
        if tries > 1 and not early:
            return tries - 1
        self._failed(packet, error)
        return 0

    def _end(self, packet: Packet, given: Any, result: Any) -> None:
        """End a packet with what the function returned for it."""
        row, number = self._row, self.inlet.number
        if result is given and self._passes_now[number]:
            count = row[board.PASSED] + 1
            row[board.DOUBT] = count << board.KIND_BITS | board.PASSED
            self.outlet.put(self.outlet.rings[0], packet)
            row[board.PASSED] = count
        elif result is None or not self._outputs:
            self._finish(packet, board.FINISHED)
        else:
            same = result is given and self._codecs[number].same
            self._emit(packet if same else result, packet, (packet.tag,))

    def _finish(self, packet: Packet, kind: int) -> None:
        if self._order is not None:
            self._order.end(packet, partial(self._free, packet, kind))
        else:
            self._free(packet, kind)

    def _free(self, packet: Packet, kind: int) -> None:
        count = self.outlet.doubt(kind)
        packet.free()
        self._row[kind] = count

    def _failed(self, packet: Packet, error: BaseException) -> None:
        if self._stage.on_error == "stop":
            raise StageError(f"{type(error).__name__}: {error}", packet.tag) from error
        if self._stage.on_error == "drop":
            self._finish(packet, board.DROPPED)
        else:
            self._tell("dead", packet.handle, "".join(traceback.format_exception(error)))
            self._bury(packet)

    def _failed_late(self, done: Packet | PacketBatch, error: Exception) -> None:
        """Do with a packet, or a batch, what its stage says: it could not be sent when it had its turn."""
        if isinstance(error, StageError):
            raise error
        self._row[board.ERRORS] += 1
        for packet in (done,) if isinstance(done, Packet) else done:
            self._failed(packet, error)

    def _bury(self, packet: Packet) -> None:
        """Put a packet among the dead letters."""
        if self._order is not None:
            self._order.end(packet, partial(self._bury_now, packet))
        else:
            self._bury_now(packet)

    def _bury_now(self, packet: Packet) -> None:
        tag = packet.tag
        count = self.outlet.doubt(board.DEAD)
        try:
            self._dead.put(packet, False)
        except RingFull:
            raise StageError(
                f"{self._dead.capacity} dead letters are the limit (dead_letters=), and there is one more",
                tag,
            ) from None
        self._row[board.DEAD] = count

    def _is_poison(self, handle: int) -> bool:
        return handle in self._poison.tolist()

    def _give_up(self, packet: Packet) -> None:
        """Take a packet out of the way that has killed its workers."""
        handle = packet.handle
        if self._order is not None:
            self._order.wait()  # then it ends at once
        self._tell("given up", handle)
        if self._stage.on_error == "drop":
            self._finish(packet, board.DROPPED)
        else:
            self._bury(packet)
        self._poison[self._poison.tolist().index(handle)] = 0

    # ---- packets in batches ---------------------------------------------------------------------

    def many(self, batch: PacketBatch) -> None:
        """Do all that is to be done with a batch. One that fails comes again, packet by packet."""
        row, count = self._row, len(batch)
        if self._order is not None and not self._order.begin(batch):
            self.inlet.give_back(batch)
            return
        if count == 1 and batch.redelivered[0] and self._is_poison(int(batch.handles[0])):
            self._give_up(batch[0])
            return
        row[board.CURRENT] = int(batch.handles[0]) if count == 1 else 0
        codec = self._codecs[self.inlet.number]
        tries = self._stage.tries if count == 1 else 1
        while True:
            self.outlet.early = 0
            try:
                given = codec.many(batch)
                self._publish(self.work(given), given, batch, codec)
            except (Exception, SystemExit) as error:
                row[board.ERRORS] += 1
                tries -= 1
                if tries > 0 and not self.outlet.early:
                    continue
                self._failed_batch(batch, error, sent=self.outlet.early > 0)
            return

    def _publish(self, result: Any, given: Any, batch: PacketBatch, codec: values.Packets) -> None:
        if result is given and self._passes_now[self.inlet.number]:
            codec.store(given, batch)
            self._pass(batch)
        elif result is None or not self._outputs:
            self._at_turn(batch, partial(self._free_batch, batch, len(batch)))
        elif result is given and self._passes[self.inlet.number]:
            codec.store(given, batch)
            self._at_turn(batch, partial(self._pass, batch))
        elif self._passes[self.inlet.number] and (chosen := _chosen(result, batch)) is not None:
            self._at_turn(batch, partial(self._pass_chosen, chosen, batch))
        else:
            self._emit(result, batch, tuple(batch.tags.tolist()), several=True)

    def _at_turn(self, done: Packet | PacketBatch, commit: Callable[[], None]) -> None:
        """Do what ends a packet or a batch: at once, or in an ordered stage when all before it have ended."""
        if self._order is not None:
            self._order.end(done, commit)
        else:
            commit()

    def _free_batch(self, batch: PacketBatch, count: int) -> None:
        after = self.outlet.doubt(board.FINISHED, count)
        batch.free()
        self._row[board.FINISHED] = after

    def _pass(self, packets: PacketBatch | Sequence[Packet]) -> None:
        after = self.outlet.doubt(board.PASSED, len(packets))
        self.outlet.put_many(self.outlet.rings[0], packets)
        self._row[board.PASSED] = after

    def _pass_chosen(self, chosen: Sequence[Packet], batch: PacketBatch) -> None:
        count = len(batch) - len(chosen)
        if chosen:
            self._pass(chosen)
        self._free_batch(batch, count)

    def _failed_batch(self, batch: PacketBatch, error: BaseException, sent: bool) -> None:
        ring = self.inlet.rings[self.inlet.number]
        if len(batch) == 1 or self._stage.on_error == "stop":
            self._failed(batch[0], error)
        elif ring.redeliver and not sent:
            self.inlet.give_back(batch)
        else:
            for packet in batch:
                self._failed(packet, error)

    # ---- results that are new packets -----------------------------------------------------------

    def _emit(
        self, result: Any, done: Packet | PacketBatch, tags: Sequence[int], *, several: bool = False
    ) -> None:
        """Send all that was made, and end what it was made from with the last of it."""
        outlet, row = self.outlet, self._row
        if _is_one_commit(result, done, outlet):
            self._at_turn(done, partial(self._emit_at_once, list(cast("Sequence[Packet]", result))))
            return
        try:
            for made in outlet.made(result, tags, several=several):
                outlet.hold(made)
        except BaseException:
            outlet.held.clear()
            if outlet.early:  # they are in their rings, whatever becomes of the rest
                row[board.MADE] = outlet.doubt_made(0, outlet.early)
            raise
        held, outlet.held = outlet.held, []
        if held or outlet.early:
            redelivers = self.inlet.rings[self.inlet.number].redeliver
            self._at_turn(done, partial(self._commit, held, outlet.early, done, len(tags), redelivers))
        elif isinstance(done, Packet):
            self._finish(done, board.FINISHED)
        else:
            self._at_turn(done, partial(self._free_batch, done, len(tags)))

    def _commit(
        self, held: Sequence[Made], early: int, done: Packet | PacketBatch, count: int, redelivers: bool
    ) -> None:
        """Put results, and end the `count` packets that they were made from; `early` puts were made already."""
        after = self.outlet.doubt_made(count, early + sum(len(rings) for rings, _ in held))
        self.outlet.commit(held, done, redelivers)
        self._row[board.MADE] = after

    def _emit_at_once(self, packets: Sequence[Packet]) -> None:
        """Put packets among which is the one that they were made from: one commit."""
        after = self.outlet.doubt_made(1, len(packets))
        self.outlet.put_many(self.outlet.rings[0], packets)
        self._row[board.MADE] = after


def _is_one_commit(result: Any, done: Packet | PacketBatch, outlet: Outlet) -> bool:
    return (
        isinstance(result, list | tuple)
        and len(outlet.rings) == 1
        and len(cast("Sequence[Any]", result)) <= outlet.rings[0].capacity
        and all(isinstance(each, Packet) for each in cast("Sequence[Any]", result))
        and any(each is done for each in cast("Sequence[Any]", result))
    )


def _chosen(result: Any, batch: PacketBatch) -> list[Packet] | None:
    """Return the packets of the batch that a function chose; None: the result is something else."""
    if not isinstance(result, list):
        return None
    packets = list(cast("Iterable[Any]", result))
    if not all(isinstance(packet, Packet) for packet in packets):
        return None
    own = set(batch.handles.tolist())
    return packets if all(packet.handle in own for packet in packets) else None


# ---- the worker that runs now -----------------------------------------------------------------------

_current: Worker | None = None


def current_worker() -> Worker:
    """Return the worker whose function runs now: its `pool`, `stage`, `number`, `workers`, and ``alloc(size)``.

    Raises
    ------
    RuntimeError
        No pipeline runs this function.
    """
    if _current is None:
        raise RuntimeError("no worker of a pipeline runs here; pipe.run() starts them")
    return _current


def set_current(worker: Worker | None) -> None:
    """Name the worker that `current_worker` returns."""
    global _current
    _current = worker
