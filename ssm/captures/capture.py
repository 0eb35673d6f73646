# SPDX-License-Identifier: Apache-2.0
"""A capture file, frame by frame: pcap or pcapng, as it is or gzipped.

dpkt reads the format. It takes a short read for the end of the file, so a file that was cut in the middle
of a packet would pass for a whole one; `_WholeReads` stands between the two and does not let it.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ssm.captures.errors import CaptureError
from ssm.captures.library import dpkt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase
    from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
PCAPNG_SIMPLE_PACKET = (b"\x03\0\0\0", b"\0\0\0\x03")  # a block that dpkt passes over, in either byte order
PCAPNG_BLOCK_HEAD = 8
EDITCAP = "`editcap -F pcap` makes a file of it that can be read"  # the remedy for that
RECORD_MAX = 128 << 20  # libpcap's own limit for the longest packet of any link type


class Frame(NamedTuple):
    """One frame of a capture."""

    number: int  # its place in the file, from 0
    time_ns: int  # since the epoch
    data: bytes


class _DefectError(Exception):
    """What is wrong with the file, and the detail behind a colon."""

    def __init__(self, what: str, detail: str = "") -> None:
        self.what = what
        self.detail = detail


FILE_ERRORS = (_DefectError, EOFError, zlib.error, OSError, ValueError, struct.error, dpkt.Error)


class _WholeReads:
    """A binary file of which every read is answered in full, or not at all at the end."""

    def __init__(self, file: BufferedIOBase, *, pcapng: bool) -> None:
        self._file = file
        self._pcapng = pcapng
        self.ended = False

    def read(self, size: int) -> bytes:
        if not 0 <= size <= RECORD_MAX:
            raise _DefectError("is damaged", f"a record claims {size:,} bytes")
        data = self._file.read(size)
        if 0 < len(data) < size:
            raise _DefectError("is cut short")
        if self._pcapng and size == PCAPNG_BLOCK_HEAD and data[:4] in PCAPNG_SIMPLE_PACKET:
            raise _DefectError("holds simple packet blocks, which dpkt does not read", EDITCAP)
        self.ended = len(data) < size
        return data


class Capture:
    """An open capture file.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    CaptureError
        It cannot be opened, is not a capture, or (while iterating) is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        try:
            self._raw = path.open("rb")
        except OSError as error:
            raise CaptureError(f"{path}: {error.strerror or error}") from error
        try:
            self._reader = self._open()
            self.link_type: int = self._reader.datalink()
        except FILE_ERRORS as error:
            self.close()
            raise self._explain(error) from error

    def _open(self) -> Any:
        file: BufferedIOBase = self._raw
        if self._raw.peek(2).startswith(GZIP_MAGIC):
            file = gzip.GzipFile(fileobj=self._raw)
        magic = file.read(len(PCAPNG_MAGIC))
        if not magic:
            raise _DefectError("is empty")
        file.seek(0)
        pcapng = magic == PCAPNG_MAGIC
        self._source = _WholeReads(file, pcapng=pcapng)
        return (dpkt.pcapng if pcapng else dpkt.pcap).Reader(self._source)

    def __iter__(self) -> Iterator[Frame]:
        """Read the rest of the file."""
        records = iter(self._reader)
        while True:
            try:
                record = next(records, None)
                if record is None:
                    return
                if self._source.ended:  # the head of a record was there, its packet was not
                    raise _DefectError("is cut short")
            except FILE_ERRORS as error:
                raise self._explain(error) from error
            time, data = record
            yield Frame(self._count, round(time * 1_000_000_000), data)
            self._count += 1

    def _explain(self, error: BaseException) -> CaptureError:
        """Put what the libraries say of a broken file into one sentence that names it."""
        match error:
            case _DefectError():
                what, detail = error.what, error.detail
            case EOFError():
                what, detail = "is cut short", "the gzip stream has no end"
            case zlib.error() | gzip.BadGzipFile():
                what, detail = "is damaged", str(error)
            case OSError():
                return CaptureError(f"{self.path}: {error.strerror or error}")
            case _:
                what = "is damaged" if self._count else "is not a pcap or pcapng capture"
                detail = str(error) or type(error).__name__
        after = f" after packet {self._count:,}" if self._count else ""
        return CaptureError(f"{self.path} {what}{after}" + (f": {detail}" if detail else ""))

    def position(self) -> int:
        """Return how many bytes of the file (compressed, if it is) were read."""
        return self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
