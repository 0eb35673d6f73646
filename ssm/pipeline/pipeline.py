# SPDX-License-Identifier: Apache-2.0
"""Pipeline: declaring rings and stages, and running them."""

from __future__ import annotations

import itertools
import multiprocessing
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, cast

from ssm.options import number
from ssm.pipeline import crossing, freight, graph, inline, plan
from ssm.pipeline.declared import (
    ON_ERROR,
    OVERFLOW,
    Declaration,
    Kind,
    OnError,
    RingSpec,
    StageSpec,
    name_of,
    rings_of,
    unwrapped,
)
from ssm.pipeline.errors import PipelineRefused
from ssm.pipeline.signals import Signals
from ssm.pipeline.supervisor import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from numpy.typing import DTypeLike

    from ssm.options import CreateArguments
    from ssm.pipeline.report import Report

    Rings: TypeAlias = RingSpec | Sequence[RingSpec]

F = TypeVar("F", bound="Callable[..., Any]")

_MANY = 1 << 20
_WORKERS = 4096


class Pipeline:
    """Functions in processes of their own, with rings between them.

    Decorators declare rings, sources, stages and sinks; they start nothing and give the function back as it is. `run`
    starts the processes, watches them, and returns a report. A worker that is killed is replaced, and what it had comes
    again.

    Parameters
    ----------
    name : str
        The name of the pool begins with it.
    start : {"forkserver", "spawn", "fork"}
        How processes are started, as in multiprocessing. With forkserver, the modules of the functions are loaded once.
    stuck : float or None
        The run fails if all workers wait and nothing has moved for so many seconds. None: never.
    dead_letters : int
        How many packets may be put aside by ``on_error="dead"``; one more ends the run.
    **pool
        Arguments of `Pool.create`. What is not given follows from the declaration: block sizes and numbers from
        `size` and `dtype` of the rings, headroom from that of the stages, and holders from the number of workers.
        Larger packets come from an arena that grows.
    """

    def __init__(
        self,
        name: str,
        *,
        start: Literal["forkserver", "spawn", "fork"] = "forkserver",
        stuck: float | None = 5.0,
        dead_letters: int = 64,
        **pool: Unpack[CreateArguments],
    ) -> None:
        if start not in multiprocessing.get_all_start_methods():
            raise ValueError(f"start must be one of {multiprocessing.get_all_start_methods()}, not {start!r}")
        if stuck is not None and not stuck > 0:
            raise ValueError(f"stuck must be a positive number of seconds, or None; not {stuck!r}")
        letters = number("dead_letters", dead_letters, 0, 0, _MANY)
        self._declared = Declaration(name, start, stuck, letters, cast("dict[str, Any]", pool))

    # ---- declaring ------------------------------------------------------------------------------

    def ring(
        self,
        name: str,
        capacity: int | None = None,
        *,
        size: int | None = None,
        dtype: DTypeLike | None = None,
        objects: bool = False,
        redeliver: bool = True,
        overflow: str = "block",
    ) -> RingSpec:
        """Declare a ring.

        Parameters
        ----------
        name : str
            1 .. 47 bytes.
        capacity : int, optional
            Packets that it takes; by default 256, or what the blocks suffice for if the pipeline was given blocks.
        size : int, optional
            Bytes of payload of its packets, at most. It gives the pool blocks of that size; larger packets come from
            the arena, which is slower.
        dtype : numpy dtype, optional
            Functions get and return records of it instead of packets.
        objects : bool
            Functions get and return Python objects, which are pickled into packets.
        redeliver : bool
            What a killed worker had comes again. With False it is lost, and the report says so.
        overflow : {"block", "drop", "overwrite"}
            What a put does that finds the ring full, as for `Pool.ring`; "overwrite" needs ``redeliver=False``.

        Returns
        -------
        RingSpec
            For `source`, `stage` and `sink`; ``ring.to(value)`` sends a value to this one of several outputs.
        """
        if name in self._declared.rings:
            raise ValueError(
                f"pipeline {self._declared.name!r} has a ring {name!r} already; give each its own name"
            )
        if overflow not in OVERFLOW:
            raise ValueError(f"overflow must be one of {OVERFLOW}, not {overflow!r}")
        if objects and dtype is not None:
            raise ValueError(f"ring {name!r}: give dtype=, of records, or objects=True, not both")
        if overflow == "overwrite" and redeliver:
            raise ValueError(
                f'ring {name!r}: overflow="overwrite" loses packets that redeliver=True promises; give redeliver=False'
            )
        slots = None if capacity is None else number("capacity", capacity, 0, 1, _MANY * 16)
        bytes_ = None if size is None else number("size", size, 0, 0, 2**62)
        ring = RingSpec(name, slots, bytes_, dtype, objects, redeliver, overflow)
        self._declared.rings[name] = ring
        return ring

    def source(
        self,
        out: Rings,
        *,
        name: str | None = None,
        workers: int = 1,
        resume: bool = True,
        timeout: float | None = None,
        cpus: Iterable[int] = (),
        memory: int | None = None,
        headroom: int = 0,
        at: str | None = None,
    ) -> Callable[[F], F]:
        """Declare the decorated generator function as a source: what it yields is sent.

        It is called with the arguments of `run`. A source that is killed is started again where its ring says it
        was: it gets ``start=``, the number of packets sent, if it has such a parameter; otherwise the first ones are
        skipped. So it must yield the same things again. That needs one worker and one ring that no other stage puts
        into; otherwise, or with ``resume=False``, its death ends the run.

        Parameters
        ----------
        out : RingSpec, or several
            Where it goes: into all of them, unless ``ring.to(value)`` says into which.
        name, workers, timeout, cpus, memory, headroom, at
            As for `stage`. Each worker calls the function; `current_worker` tells it which part is its.
        resume : bool
            See above.
        """
        outputs = rings_of(out, "out")
        return self._decorator(
            "source",
            (),
            outputs,
            name=name,
            workers=workers,
            timeout=timeout,
            cpus=cpus,
            memory=memory,
            headroom=headroom,
            restart=resume,
            at=at,
        )

    def stage(
        self,
        inp: Rings,
        out: Rings | None = None,
        *,
        name: str | None = None,
        workers: int | tuple[int, int] = 1,
        batch: int = 0,
        linger: float = 0.0,
        on_error: OnError = "stop",
        tries: int = 1,
        timeout: float | None = None,
        state: Literal["memory", "outside"] | None = None,
        cpus: Iterable[int] = (),
        memory: int | None = None,
        headroom: int = 0,
        ordered: bool = False,
        at: str | None = None,
    ) -> Callable[[F], F]:
        """Declare the decorated function as a stage: it gets packets of a ring, and its results go into another.

        It returns the same packet, which goes on without a copy, anything with a buffer, which is copied into a
        packet, a list or generator of these, or None: then the packet ends here. Of a class, each worker makes an
        object, calls it, and calls its ``close()`` at the end, the result of which is in ``report.results``.

        Parameters
        ----------
        inp, out : RingSpec, or several
            Where packets come from, and go to: into all of them, unless ``ring.to(value)`` says into which.
        name : str, optional
            By default that of the function.
        workers : int, or (int, int)
            Processes that it runs in. With ``(1, 8)`` there is one at first; one more is started while its rings stay
            more than half full, up to eight.
        batch : int
            The function gets a PacketBatch of so many packets at most: an array of records, a list of objects.
        linger : float
            Seconds to wait for a batch to fill.
        on_error : {"stop", "dead", "drop"}
            What an exception does: it ends the run, or the packet is put aside, or freed. A packet whose workers die
            three times is treated in the same way.
        tries : int
            Calls of the function before that.
        timeout : float, optional
            A worker that makes no progress for so many seconds while it does not wait is killed and replaced.
        state : {"memory", "outside"}, optional
            "memory": what it counted dies with its process, so its death ends the run, unless it had not taken anything
            yet. The default of a sink that is a class. "outside": it is replaced.
        cpus : iterable of int, optional
            Processors that the workers are bound to, in turn.
        memory : int, optional
            Bytes of memory of its own that a worker may have, its interpreter included; the pool does not count. A
            function that asks for more gets MemoryError, which is an error like any other. Not with ``inline=True``.
        headroom : int
            Bytes that it puts in front of a packet (`Packet.prepend`).
        ordered : bool
            Its results go out in the order in which its packets were put into `inp`, however many workers it has.
            A worker holds up to eight results, or as many as a quarter of the blocks suffices for, until it is
            their turn. It needs one ring as `inp`, which no other stage reads and which redelivers.
        at : str, optional
            The role of the hosts that it runs on, such as "gpu"; see `Pipeline.at`.
        """
        return self._decorator(
            "stage" if out is not None else "sink",
            rings_of(inp, "inp"),
            rings_of(out, "out"),
            name=name,
            workers=workers,
            batch=batch,
            linger=linger,
            on_error=on_error,
            tries=tries,
            timeout=timeout,
            state=state,
            cpus=cpus,
            memory=memory,
            headroom=headroom,
            ordered=ordered,
            at=at,
        )

    def sink(
        self,
        inp: Rings,
        *,
        name: str | None = None,
        workers: int | tuple[int, int] = 1,
        batch: int = 0,
        linger: float = 0.0,
        on_error: OnError = "stop",
        tries: int = 1,
        timeout: float | None = None,
        state: Literal["memory", "outside"] | None = None,
        cpus: Iterable[int] = (),
        memory: int | None = None,
        at: str | None = None,
    ) -> Callable[[F], F]:
        """Declare the decorated function or class as a sink: a stage without outputs. What it returns is ignored.

        Parameters are those of `stage`.
        """
        return self.stage(
            inp,
            name=name,
            workers=workers,
            batch=batch,
            linger=linger,
            on_error=on_error,
            tries=tries,
            timeout=timeout,
            state=state,
            cpus=cpus,
            memory=memory,
            at=at,
        )

    def chain(self, *works: Any) -> Self:
        """Declare a straight line: a source, stages, and a sink, with a ring of objects between each two.

        Parameters
        ----------
        *works
            Functions; ``(function, 4)`` for one with four workers, ``(function, {"batch": 32})`` for one with
            options of `stage`.

        Returns
        -------
        Pipeline
            This one.
        """
        if len(works) < 2:
            raise ValueError(f"a chain has a source and a sink at least, not {len(works)} functions")
        parts = [_part(work) for work in works]
        names = [options.get("name") or name_of(work) for work, options in parts]
        rings = [self.ring(f"{a} > {b}"[:47], objects=True) for a, b in itertools.pairwise(names)]
        (first, options), *middle, (last, last_options) = parts
        self.source(rings[0], **options)(first)
        for (work, more), before, behind in zip(middle, rings, rings[1:], strict=False):
            self.stage(before, behind, **more)(work)
        self.sink(rings[-1], **last_options)(last)
        return self

    def _decorator(
        self,
        kind: Kind,
        inputs: tuple[RingSpec, ...],
        outputs: tuple[RingSpec, ...],
        *,
        name: str | None,
        workers: int | tuple[int, int],
        timeout: float | None,
        cpus: Iterable[int],
        memory: int | None,
        batch: int = 0,
        linger: float = 0.0,
        on_error: OnError = "stop",
        tries: int = 1,
        state: str | None = None,
        headroom: int = 0,
        ordered: bool = False,
        at: str | None = None,
        restart: bool = True,
    ) -> Callable[[F], F]:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {ON_ERROR}, not {on_error!r}")
        if state not in ("memory", "outside", None):
            raise ValueError(f"state must be 'memory' or 'outside', not {state!r}")
        if not linger >= 0 or (timeout is not None and not timeout > 0):
            raise ValueError(
                f"linger={linger!r} and timeout={timeout!r} are numbers of seconds, timeout more than 0"
            )
        if (kind != "source" and not inputs) or (kind != "sink" and not outputs):
            raise ValueError(f"a {kind} needs a ring: pipe.ring() makes it")
        if ordered and kind == "sink":
            raise ValueError("ordered=True is of results, and a stage without out= has none: leave it out")

        def declare(work: F) -> F:
            own = name or name_of(work)
            if any(stage.name == own for stage in self._declared.stages):
                raise ValueError(f"two stages are called {own!r}: give one of them another name=")
            keeps = state == "memory" or (
                state is None and kind == "sink" and isinstance(unwrapped(work), type)
            )
            least, most = workers if isinstance(workers, tuple) else (workers, workers)
            most = number("workers", most, 1, 1, _WORKERS)
            self._declared.stages.append(
                StageSpec(
                    name=own,
                    kind=kind,
                    work=work,
                    inputs=inputs,
                    outputs=outputs,
                    workers=most,
                    least=number("the least of workers", least, 1, 1, most),
                    batch=number("batch", batch, 0, 0, _MANY),
                    linger=linger,
                    on_error=on_error,
                    tries=number("tries", tries, 1, 1, _MANY),
                    timeout=timeout,
                    restart=restart and not keeps,
                    cpus=tuple(cpus),
                    memory=None if memory is None else number("memory", memory, 0, 1, 2**62),
                    headroom=number("headroom", headroom, 0, 0, _MANY),
                    at=at,
                    ordered=bool(ordered),
                )
            )
            return work

        return declare

    # ---- running --------------------------------------------------------------------------------

    def run(self, *args: Any, inline: bool = False, **kwargs: Any) -> Report:
        """Run the pipeline to its end.

        Parameters
        ----------
        *args, **kwargs
            For the sources.
        inline : bool
            Run all in this process, one after the other, with the same results: for debuggers.

        Returns
        -------
        Report

        Raises
        ------
        PipelineRefused
            It cannot run as it was declared; nothing was started.
        PipelineError
            A stage failed. Its cause is the exception, `report` how far the run came.
        """
        if inline:
            return inline_run(self._declared, args, kwargs)
        with Signals() as signals:
            return self._start(args, kwargs, signals).wait()

    def start(self, *args: Any, **kwargs: Any) -> Run:
        """Start the processes, and return the run: `Run.wait` watches them until the end.

        Raises
        ------
        PipelineRefused
            As for `run`.
        """
        return self._start(args, kwargs)

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any], signals: Signals | None = None) -> Run:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise PipelineRefused(
                "this is a worker that imports the main module: put pipe.run() below if __name__ == '__main__'"
            )
        if multiprocessing.current_process().daemon:
            raise PipelineRefused(
                "this process is a daemon of multiprocessing, which may have no children: start it with daemon=False"
            )
        planned = plan.make(self._declared)
        return Run(planned.here, planned, freight.pack(planned.here, args, kwargs), signals)

    def resize(self, stage: str, workers: int) -> None:
        """Give a stage another number of workers than was declared.

        Raises
        ------
        ValueError
            There is no such stage.
        """
        self._declared.resize(stage, number("workers", workers, 1, 1, _WORKERS))

    def at(self, role: str | None) -> None:
        """Say which role this host has: only stages of it run here. None: all run here.

        Rings to and from stages of other roles go over bridges, see `bridge`.
        """
        self._declared.role = role

    def bridge(self, role: str, **settings: Any) -> None:
        """Say how this host reaches the one of another role; the rings between both then go over a bridge.

        A run starts the bridge as a process of its own, and again when it is killed. It ends when the rings are shut
        down at both ends. Where `at` gives this host no role, nothing is bridged.

        Parameters
        ----------
        role : str
            That of the other host.
        **settings
            As in the file of ``ssm bridge --config``, with ``_`` for ``-``: ``carrier``, ``listen`` or ``connect``,
            ``key``, ``peer_keys``, ``zenoh_config`` and others. Pool and rings follow from the pipeline.

        Raises
        ------
        PipelineRefused
            There is no such setting, or it cannot work.
        """
        crossing.settings_of(role, settings)
        self._declared.bridges[role] = settings

    def check(self) -> None:
        """Refuse what cannot run, without running it.

        Raises
        ------
        PipelineRefused
            As for `run`.
        """
        freight.pack(plan.make(self._declared).here, (), {})

    def graph(self, form: Literal["mermaid", "svg"] = "mermaid") -> str:
        """Return the pipeline as a Mermaid flowchart, or as an SVG picture: stages as boxes, rings as arrows."""
        if form not in ("mermaid", "svg"):
            raise ValueError(f"form must be 'mermaid' or 'svg', not {form!r}")
        return graph.mermaid(self._declared) if form == "mermaid" else graph.svg(self._declared)

    def __repr__(self) -> str:
        return (
            f"<ssm.Pipeline {self._declared.name!r}: {len(self._declared.stages)} stages, "
            f"{len(self._declared.rings)} rings>"
        )


def inline_run(declared: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Report:
    """Run a declaration in this process."""
    planned = plan.make(declared)
    if len(planned.here.stages) < len(declared.stages):
        raise PipelineRefused(
            f"a run with inline=True runs all roles in one process, not {declared.role!r} alone"
        )
    return inline.run(declared, planned, args, kwargs)


def _part(work: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function and the options of a part of a chain."""
    if not isinstance(work, tuple):
        return work, {}
    function, options = cast("tuple[Any, Any]", work)
    return function, {"workers": options} if isinstance(options, int) else dict(options)
