# SPDX-License-Identifier: Apache-2.0
# pyright: reportPrivateUsage=false
"""Where was it taken? The line of the program that took each packet, for `ssm holders --where` and PoolExhausted.

While tracing is on, the methods that give a packet to this process are replaced by ones that note the caller's line;
while it is off, nothing of this runs. The notes are in a file without a name (memfd_create), one for each process and
pool. It is in no directory and dies with its process. Others find it among the descriptors of that process,
/proc/PID/fd, by its name: ``memfd:ssm-trace-GENERATION``. So it takes the same user (or root) and the same PID
namespace to read it.

The file: a header, one entry for each packet that the pool can have, and the texts of lines. An entry counts only as
long as its process holds the packet with that very handle, so nothing is noted when a packet goes. A reader believes
nothing: another process wrote it. It may come in the middle of a write, and then sees one line less, or the one before.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm import _core, caller, late
from ssm.attachment import pools_here
from ssm.errors import PoolExhausted, StaleHandle
from ssm.pool import Pool
from ssm.ring import Ring
from ssm.slow import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ssm.stats import Holder

_MAGIC = b"ssmtrace"
_HEADER = struct.Struct("<8sIIQ")  # magic, pid, entries, bytes of texts
_ENTRY = struct.Struct("<QQQ")  # handle, when by time.monotonic_ns(), where its text begins
_LENGTH = struct.Struct("<H")  # before each text
_ENTRIES_AT = 64
_TEXTS_MAX = 1 << 20
_TEXT_MAX = 4096
_ENTRIES_MAX = 1 << 27  # of a file that another process made
_NAMED = 4  # lines in the text of an error
_FRESH_S = 0.1  # for so long errors share one look

_on = False


class _Table:
    """The notes of this process about one pool."""

    def __init__(self, pool: _core.Pool) -> None:
        self.entries = sum(pool.classes.values()) + pool.arena_packets
        self._texts_at = _ENTRIES_AT + self.entries * _ENTRY.size
        self._texts = 0  # bytes of them
        self._sites: dict[tuple[str, int], int] = {}
        fd = os.memfd_create(_file_name(pool.generation))
        try:
            os.ftruncate(fd, self._texts_at + _TEXTS_MAX)
            self._map: Any = late.load("mmap").mmap(
                fd, self._texts_at + _TEXTS_MAX
            )  # has a descriptor of its own
        finally:
            os.close(fd)
        self._site("(more lines than there is room for)", 0)
        self._write_header()

    def _write_header(self) -> None:
        _HEADER.pack_into(self._map, 0, _MAGIC, os.getpid(), self.entries, self._texts)

    def _site(self, file: str, line: int) -> int:
        """Return where the text of that line begins."""
        at = self._sites.get((file, line))
        if at is None:
            text = f"{file}:{line}".encode("utf-8", "replace")[-_TEXT_MAX:] if line else file.encode()
            if self._texts + _LENGTH.size + len(text) > _TEXTS_MAX:
                return 0
            at, start = self._texts, self._texts_at + self._texts
            self._map[start : start + _LENGTH.size + len(text)] = _LENGTH.pack(len(text)) + text
            self._texts += _LENGTH.size + len(text)
            self._sites[file, line] = at
            self._write_header()
        return at

    def note(self, handles: Iterable[int], file: str, line: int) -> None:
        """Note that this process took these packets there."""
        site, now = self._site(file or "(no line)", line), time.monotonic_ns()
        for handle in handles:
            index = handle & 0xFFFFFFFF
            if index < self.entries:
                _ENTRY.pack_into(self._map, _ENTRIES_AT + index * _ENTRY.size, handle, now, site)


_tables: dict[int, _Table] = {}  # generation of the pool -> notes


def _forget() -> None:
    """Leave what is the parent's to the parent."""
    _tables.clear()


os.register_at_fork(after_in_child=_forget)


def _file_name(generation: int) -> str:
    return f"ssm-trace-{generation:016x}"


def _note(pool: _core.Pool, handles: Iterable[int]) -> None:
    try:
        table = _tables.get(pool.generation)
        if table is None:
            for generation in set(_tables) - {each.generation for each in pools_here()}:
                del _tables[generation]
            table = _tables.setdefault(pool.generation, _Table(pool))
        table.note(handles, *caller.site())
    except OSError as error:  # no descriptor is left, or no memory: the program goes on without the note
        late.load("logging").getLogger("ssm").warning("where a packet was taken cannot be noted: %s", error)


# ---- noting ------------------------------------------------------------------------------------------


def _explain(pool: _core.Pool, error: PoolExhausted) -> None:
    error.where = _words(pool)


def _one(method: Callable[..., Any], pool_of: Callable[[Any], _core.Pool]) -> Callable[..., Any]:
    @functools.wraps(method)
    def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            packet = method(self, *args, **kwargs)
        except PoolExhausted as error:
            _explain(pool_of(self), error)
            raise
        if isinstance(packet, _core.Packet):
            _note(pool_of(self), (packet.handle,))
        elif isinstance(packet, _core.PacketBatch):
            _note(pool_of(self), packet.handles.tolist())
        return packet

    return traced


_TRACED: tuple[tuple[type[Any], str], ...] = (
    (Pool, "alloc"),
    (Pool, "alloc_many"),
    (Pool, "packet"),
    (Ring, "get"),
    (Ring, "get_nowait"),
    (Ring, "get_many"),
    (Ring, "__next__"),
    (Ring, "send"),  # takes none; may find none
)
_former: dict[tuple[type[Any], str], Any] = {}  # what the class had itself; None: it inherits the method


def trace(on: bool = True) -> bool:
    """Note where this process takes packets from now on, or stop that.

    ``ssm holders --where`` then shows the file and the line of each packet's `alloc` or `get`, from another process of
    the same user, and the text of PoolExhausted names the lines with the most blocks. The environment variable
    ``SSM_TRACE=1`` has it on from the start, in child processes, too. It costs some microseconds for each packet; off,
    it costs nothing.

    Parameters
    ----------
    on : bool
        Whether to note them.

    Returns
    -------
    bool
        Whether it was on before.
    """
    global _on
    was, _on = _on, bool(on)
    if was == _on:
        return was
    for owner, name in _TRACED:
        if _on:
            _former[owner, name] = vars(owner).get(name)
            pool_of: Callable[[Any], _core.Pool] = _itself if owner is Pool else _pool_of
            setattr(owner, name, _one(getattr(owner, name), pool_of))
        elif (former := _former.pop((owner, name))) is None:
            delattr(owner, name)
        else:
            setattr(owner, name, former)
    if not _on:
        _tables.clear()
    return was


def _itself(pool: _core.Pool) -> _core.Pool:
    return pool


def _pool_of(ring: _core.Ring) -> _core.Pool:
    return ring.pool


# ---- reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """Packets that one process took in one line, and holds."""

    holder: Holder
    site: str | None
    """``file:line``; None: that process does not trace, or its notes cannot be read."""
    blocks: int
    oldest_s: float | None
    """For how long it has held the oldest of them."""


def _open_notes(pid: int, generation: int) -> int | None:
    """Return a descriptor of that process's notes about that pool, for reading."""
    wanted = f"/memfd:{_file_name(generation)} (deleted)"
    folder = Path(f"/proc/{pid}/fd")
    try:
        for link in folder.iterdir():
            try:
                if str(link.readlink()) == wanted:
                    return os.open(link, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:  # it was closed meanwhile
                continue
    except OSError:  # another user's, or gone
        pass
    return None


def _read(pid: int, generation: int) -> dict[int, tuple[int, str]] | None:
    """Return handle -> (when, line) as that process noted it; None: there are no notes."""
    fd = _open_notes(pid, generation)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        head = os.pread(fd, _HEADER.size, 0)
        if not stat.S_ISREG(status.st_mode) or len(head) < _HEADER.size:
            return None
        magic, owner, entries, texts = _HEADER.unpack(head)
        if magic != _MAGIC or owner != pid or entries > _ENTRIES_MAX or texts > _TEXTS_MAX:
            return None
        size = entries * _ENTRY.size
        noted, lines = os.pread(fd, size, _ENTRIES_AT), os.pread(fd, texts, _ENTRIES_AT + size)
    except OSError:
        return None
    finally:
        os.close(fd)
    whole = noted[: len(noted) // _ENTRY.size * _ENTRY.size]
    return {handle: (when, _text(lines, at)) for handle, when, at in _ENTRY.iter_unpack(whole) if when}


def _text(lines: bytes, at: int) -> str:
    if at + _LENGTH.size > len(lines):
        return "?"
    (length,) = _LENGTH.unpack_from(lines, at)
    return lines[at + _LENGTH.size : at + _LENGTH.size + length].decode("utf-8", "replace")


def _held(pool: _core.Pool) -> Iterator[tuple[int, int]]:
    """Yield each held packet and the ids of its holders."""
    for handle in pool._packet_list():
        try:
            for holder in pool._packet_holders(handle):
                yield handle, holder
        except StaleHandle:
            continue  # freed meanwhile


def taken(pool: Pool) -> list[Taken]:
    """Return where the processes of the pool took what they hold, the lines with the most blocks first."""
    holders = {each.id: each for each in pool.holders() if each.kind == "process"}
    notes = {each.id: _read(each.pid, pool.generation) for each in holders.values() if each.alive}
    found: dict[tuple[int, str | None], tuple[int, int | None]] = {}
    for handle, holder in _held(pool):
        if holder not in holders:
            continue
        known = notes.get(holder)
        when, site = (
            (None, None) if known is None else known.get(handle, (None, "(before it traced, or in C)"))
        )
        blocks, oldest = found.get((holder, site), (0, None))
        found[holder, site] = blocks + 1, min((each for each in (oldest, when) if each), default=None)
    now = time.monotonic_ns()
    rows = [
        Taken(holders[holder], site, blocks, None if oldest is None else max(0, now - oldest) / 1e9)
        for (holder, site), (blocks, oldest) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.blocks)


_latest: tuple[float, int, str] = (-1.0, 0, "")  # when, generation, words


def _words(pool: Any) -> str:
    """Return where most blocks were taken, in words; a loop that fails often looks ten times a second."""
    global _latest
    now = time.monotonic()
    when, generation, words = _latest
    if generation != pool.generation or now - when > _FRESH_S:
        rows = [row for row in taken(pool) if row.site is not None]
        words = ", ".join(f"{row.blocks} at {row.site} by {describe(row.holder)}" for row in rows[:_NAMED])
        _latest = now, pool.generation, words
    return words


if os.environ.get("SSM_TRACE", "").lower() not in {"", "0", "off", "no", "false"}:
    trace(True)
