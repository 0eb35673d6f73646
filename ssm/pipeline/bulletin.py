# SPDX-License-Identifier: Apache-2.0
"""What a run tells those who look from outside: its stages, workers, dead letters, and what happened.

The supervisor writes a bulletin some times a second, as JSON, into a board of the pool. The board has a header and two
halves: a bulletin goes into the half that the header does not name, then the header names it. A reader that comes in
the middle finds a text that does not fit its checksum, and looks again. It believes nothing: another process wrote it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import struct
import types
import typing
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ssm.errors import SSMError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ssm.pool import Pool
    from ssm.stats import ServiceStats

_MAGIC = b"ssmnews1"
_HEADER = struct.Struct("<8sIII")  # magic, which half, bytes of its text, their CRC-32
_HALVES_AT = 64
_HALF = 1 << 17
NAME = "pipeline news"  # of the board
SIZE = _HALVES_AT + 2 * _HALF
_TRIES = 4
_TEXT_MAX = 8192  # characters of one text
_LIST_MAX = 4096

T = TypeVar("T")


# ---- what stands in it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerNews:
    """One process of a stage."""

    number: int
    """0 .. workers - 1."""
    pid: int
    """Process id; 0: it is about to be started again."""
    state: str
    """"starting", "busy", "starved", "blocked", or "no block": it waits for a free block."""


@dataclass(frozen=True)
class StageNews:
    """One source, stage or sink; counts are those of the whole run, times of all its workers added up."""

    name: str
    """Its name."""
    kind: str
    """"source", "stage" or "sink"."""
    inputs: tuple[str, ...]
    """Rings that it takes from."""
    outputs: tuple[str, ...]
    """Rings that it puts into."""
    workers: tuple[WorkerNews, ...]
    """Its processes now; those that came to their end are left out."""
    packets_in: int
    """See `StageReport` for this and the following ones."""
    packets_out: int
    filtered: int
    dead: int
    dropped: int
    errors: int
    started: int
    killed: int
    hung: int
    life_ns: int
    """Nanoseconds that its workers have been there."""
    starved_ns: int
    """Of these, waiting for packets."""
    blocked_ns: int
    """Of these, waiting for room in a ring or for a block."""


@dataclass(frozen=True)
class RingNews:
    """One ring, read together with the counts of the stages."""

    name: str
    """Its name."""
    taken: int
    """Packets that were taken out, each once."""


@dataclass(frozen=True)
class EventNews:
    """Something that happened to a worker."""

    number: int
    """Counts the events of the run, from 1."""
    at: float
    """Seconds since the epoch."""
    kind: str
    """"start", "end" or "death"."""
    stage: str
    """Its stage."""
    worker: int
    """Its number."""
    text: str
    """What happened, without the names."""


@dataclass(frozen=True)
class LetterNews:
    """A packet that a stage could not handle."""

    handle: int
    """Its handle; the packet is in the ring of the dead letters."""
    stage: str
    """The stage."""
    reason: str
    """The traceback, or how the workers died."""


@dataclass(frozen=True)
class News:
    """A run as it is."""

    pipeline: str
    """Its name."""
    seconds: float
    """Since it began."""
    stopping: bool
    """Whether the sources were told to end."""
    cores: int
    """Processors that it can use."""
    stages: tuple[StageNews, ...]
    """In the order of their declaration."""
    rings: tuple[RingNews, ...]
    """Its rings."""
    events: tuple[EventNews, ...]
    """The latest ones, in their order."""
    letters: tuple[LetterNews, ...]
    """The latest dead letters."""


# ---- writing ----------------------------------------------------------------------------------------


class Bulletin:
    """The board that the supervisor of a run writes its news to."""

    def __init__(self, pool: Pool) -> None:
        self._half = 0
        self._board: memoryview | None = None
        try:
            self._board = memoryview(pool.board(NAME, "u1", SIZE))
        except (OSError, SSMError, ValueError) as error:  # metadata= has no room: the run goes on untold
            logging.getLogger("ssm").warning("a pipeline cannot be watched from outside: %s", error)

    def write(self, news: News) -> None:
        """Put the news where others find them; those that are too long go without what is longest."""
        for shorter in (news, dataclasses.replace(news, events=(), letters=())):
            text = json.dumps(dataclasses.asdict(shorter), separators=(",", ":")).encode()
            if len(text) <= _HALF:
                self._put(text)
                return

    def _put(self, text: bytes) -> None:
        if self._board is None:
            return
        self._half = 1 - self._half
        at = _HALVES_AT + self._half * _HALF
        self._board[at : at + len(text)] = text
        _HEADER.pack_into(self._board, 0, _MAGIC, self._half, len(text), zlib.crc32(text))

    def close(self) -> None:
        """Let go of the board."""
        if self._board is not None:
            self._board.release()
            self._board = None


# ---- reading ----------------------------------------------------------------------------------------


class Reader:
    """Reads the bulletins of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._board: memoryview | None = None

    def read(self, services: Iterable[ServiceStats]) -> News | None:
        """Return the latest news; None: there are none. `services`: those of the pool."""
        if self._board is None:
            if not any(each.name == NAME and each.kind == "board" for each in services):
                return None
            try:
                self._board = memoryview(self._pool.board(NAME, "u1", SIZE))
            except (OSError, SSMError, ValueError):
                return None  # another kind of board
        return _news(self._board)

    def close(self) -> None:
        """Let go of the board."""
        if self._board is not None:
            self._board.release()
            self._board = None


def _news(board: memoryview) -> News | None:
    for _ in range(_TRIES):
        magic, half, size, checksum = _HEADER.unpack_from(board)
        if magic != _MAGIC or half > 1 or size > _HALF:
            return None
        at = _HALVES_AT + half * _HALF
        text = bytes(board[at : at + size])
        if zlib.crc32(text) == checksum:
            return parse(text)
    return None


def parse(text: bytes) -> News | None:
    """Return the news of a text; None: it is none."""
    try:
        return cast("News", _checked(json.loads(text), News))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@functools.cache
def _fields(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_list(given: Any) -> bool:
    return isinstance(given, list)


def _checked(given: Any, wanted: Any) -> Any:
    """Return a value as that type has it: a number, a text, a dataclass, or a tuple of one of these."""
    if isinstance(wanted, types.GenericAlias):
        if not _is_list(given):
            raise TypeError("no list")
        return tuple(_checked(each, wanted.__args__[0]) for each in given[:_LIST_MAX])
    if dataclasses.is_dataclass(wanted):
        return cast("Any", wanted)(
            **{name: _checked(given[name], kind) for name, kind in _fields(cast("Any", wanted)).items()}
        )
    if wanted is float:
        if type(given) not in (int, float) or not abs(given) < 1 << 62:
            raise TypeError("no number")
        return float(given)
    if type(given) is not wanted or (wanted is int and not 0 <= given < 1 << 64):
        raise TypeError(f"no {wanted}")
    return given[:_TEXT_MAX] if wanted is str else given
