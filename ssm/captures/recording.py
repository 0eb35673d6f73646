# SPDX-License-Identifier: Apache-2.0
"""Packets in a file: pcapng, or records with a length in front, which keep nanoseconds and the tag as well.

A file of records is ``MAGIC`` and then, for each packet, time in nanoseconds since the epoch, tag and length as
little-endian 64-bit numbers, and the bytes. The highest bit of a length (`MORE`) says that the packet was chained to
the next one: its next segment. In pcapng a chain is one frame.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from ssm.captures.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    Encoder = Callable[[Sequence["Record"]], bytes]

MAGIC = b"ssm-rec1"
HEAD = struct.Struct("<QQQ")  # time_ns, tag, length
MORE = 1 << 63
LENGTH_MAX = 1 << 40  # of one packet: what claims more is damaged
PIECE = 1 << 20  # so much is read at once: a length is believed only as far as there are bytes
FORMATS = ("records", "pcapng")
LINKTYPE_ETHERNET = 1


class Record(NamedTuple):
    """One packet of a recording."""

    time_ns: int
    """When it was taken from its ring, since the epoch."""
    tag: int
    """The packet's tag; 0 from a pcapng file, which has none."""
    data: bytes
    """Its payload."""
    more: bool = False
    """The next record is its next segment."""


def format_of(path: Path) -> str:
    """Return the format that the file's name asks for."""
    return "pcapng" if path.suffix in {".pcapng", ".pcap", ".cap"} else "records"


@contextmanager
def writer(path: Path, form: str, link_type: int = LINKTYPE_ETHERNET) -> Generator[Callable[..., None]]:
    """Open a file for writing; yields the function that appends records, ``write(*records)``.

    When it returns, the system has all of them, and the end of this process takes none away. When it raises, the file
    is as it was before, if it is a regular one.
    """
    begin, encode = _pcapng(link_type) if form == "pcapng" else (MAGIC, _encode_records)
    with path.open("wb", buffering=0) as file:
        _append(file, begin)
        yield lambda *records: _append(file, encode(records))


def _append(file: io.FileIO, data: bytes) -> None:
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    start = file.tell() if regular else 0
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except BaseException:
        if regular:
            with suppress(OSError):
                file.truncate(start)
                file.seek(start)
        raise


def _encode_records(records: Sequence[Record]) -> bytes:
    return b"".join(
        part
        for r in records
        for part in (HEAD.pack(r.time_ns, r.tag, len(r.data) | (MORE if r.more else 0)), r.data)
    )


def _pcapng(link_type: int) -> tuple[bytes, Encoder]:
    """Return what the file begins with, and the function that encodes frames."""
    from ssm.captures.library import dpkt

    file = io.BytesIO()
    pcapng = dpkt.pcapng.Writer(file, snaplen=0, linktype=link_type)

    def taken() -> bytes:
        data = file.getvalue()
        file.seek(0)
        file.truncate()
        return data

    def encode(records: Sequence[Record]) -> bytes:
        segments: list[bytes] = []
        for record in records:
            segments.append(record.data)
            if not record.more:
                pcapng.writepkts([(record.time_ns / 1e9, b"".join(segments))])
                segments.clear()
        return taken()

    return taken(), encode


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a file, whichever of the formats it has. CaptureError where it is damaged."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            yield from _read_records(file, path)
            return
    from ssm.captures.capture import Capture

    with Capture(path) as capture:
        for frame in capture:
            yield Record(frame.time_ns, 0, frame.data)


def _read_records(file: BinaryIO, path: Path) -> Iterator[Record]:
    number, more = 0, False
    while head := file.read(HEAD.size):
        time_ns, tag, length = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0, LENGTH_MAX)
        more, length = bool(length & MORE), length & ~MORE
        data = _read_bytes(file, length) if length < LENGTH_MAX else b""
        if len(data) != length:
            raise CaptureError(f"{path} is cut short or damaged after packet {number:,}")
        number += not more
        yield Record(time_ns, tag, data, more)
    if more:
        raise CaptureError(f"{path} is cut short or damaged after packet {number:,}")


def _read_bytes(file: BinaryIO, length: int) -> bytes:
    """Return fewer where the file ends before; memory is taken for bytes that are there, not for what is claimed."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and length > status.st_size - file.tell():
        return b""
    pieces: list[bytes] = []
    while length > 0 and (piece := file.read(min(length, PIECE))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
