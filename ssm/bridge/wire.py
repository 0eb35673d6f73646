# SPDX-License-Identifier: Apache-2.0
"""The messages between two bridges, and their parser, which trusts nothing.

A message has a head of fixed size, and for some kinds further parts; numbers are little-endian:

    HELLO   head | JSON: who this is, which rings it exports and imports          see `Hello`
    DATA    head, after, first, count, row | lengths and tags | packets           see `Data`
    PIECE   head, after, position, offset | lengths and tags | bytes              see `Piece`
    ACK     head, have, got, part, room in packets and bytes, flags               see `Ack`
    END     head, position                                                        the ring is shut down there
    REFUSE  head | text                                                           why packets of a ring are not taken
    BEAT    head                                                                  this bridge lives
    DROPS   head, count                                                           packets that the ring there lost

The head has the version of the protocol, the channel, and two random numbers: that of the bridge that sends, and that
of the bridge that it talks to, as far as it knows. A bridge that was started anew has another number, so what was
meant for its predecessor is told apart. A channel is the place of a ring among the exports of its sender's HELLO.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import struct
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ssm._core import CHAIN_MAX
from ssm.bridge.errors import VersionMismatch, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

VERSION = 2
MAGIC = b"SSMB"
HELLO, DATA, ACK, END, REFUSE, BEAT, PIECE, DROPS = range(1, 9)
# Flags of ACK: shut down there as asked for; shut down there by somebody else; nobody may put into the ring there.
ENDED, CLOSED, READONLY = 1, 2, 4

COUNT_MAX = 4096  # packets of one message
PIECE_MAX = 2 << 20  # bytes of a packet that one message has
MESSAGE_MAX = PIECE_MAX + (1 << 20)  # bytes of a part: a packet that fits alone is not cut
CHANNELS_MAX = 256
HELLO_BYTES_MAX = 1 << 20
TEXT_MAX = 4096
NAME_MAX = 40  # bytes: the bridge's own ring and board have a few more
TYPE_MAX = 1023
TOPIC = "topic"  # stands for the type of packets that are published
_U64 = 1 << 64

_HEAD = struct.Struct("<4sBBHQQ")
_DATA = struct.Struct("<QQII")
_PIECE = struct.Struct("<QQQ")
_ACK = struct.Struct("<QQQIQB")
_NUMBER = struct.Struct("<Q")  # of END and DROPS
_NOT_UNIFORM = 0  # `row` of packets that differ in length
TABLE = np.dtype([("length", "<u4"), ("tag", "<u8")])
SEGMENTS = np.dtype([("length", "<u8"), ("tag", "<u8")])


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """A ring that a bridge sends, as its HELLO says."""

    name: str
    """Its name on the link."""
    stream: int
    """Tells what is sent from whatever had the name before."""
    type: str
    """What its packets are: the text that stands with the ring."""


@dataclasses.dataclass(frozen=True, slots=True)
class Import:
    """A ring that a bridge receives."""

    name: str
    type: str
    largest: int
    """Bytes of the largest packet that its pool takes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """Who a bridge is."""

    pool: str
    """For people: pool and host."""
    host: str
    seen: int
    """The number of the peer whose HELLO it has; 0: none yet."""
    exports: tuple[Export, ...]
    imports: tuple[Import, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """Packets of one ring, which stood behind each other there."""

    after: int
    """All of the stream in front of this position was sent before; between it and `first` there is nothing."""
    first: int
    """Position of the first one."""
    lengths: NDArray[np.uint32]
    tags: NDArray[np.uint64]
    row: int
    """Bytes of each packet, if all have as many; otherwise 0."""
    payload: list[memoryview]
    """One buffer with all packets, or one for each."""

    @property
    def end(self) -> int:
        """The position behind the last one."""
        return self.first + len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of all packets."""
        return sum(part.nbytes for part in self.payload)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a packet that is large, or has a chain: its segments follow each other without a gap."""

    after: int
    """As in `Data`."""
    position: int
    """Of the packet."""
    offset: int
    """How many of its bytes come before these."""
    lengths: tuple[int, ...]
    """Of the packet, and of each one that is linked to it."""
    tags: tuple[int, ...]
    payload: memoryview

    @property
    def total(self) -> int:
        """Bytes of the whole packet."""
        return sum(self.lengths)


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """What the receiver has, and what it has room for."""

    have: int
    """All in front of this position is in the receiver's pool: the sender can let go of it."""
    got: int
    """All in front of this position has arrived there."""
    part: int
    """Bytes of the packet at `got` that have arrived there."""
    room: int
    """Packets that it takes from `got` on."""
    room_bytes: int
    ended: bool
    closed: bool
    readonly: bool


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """The ring was shut down; nothing comes at or behind this position."""

    position: int


@dataclasses.dataclass(frozen=True, slots=True)
class Refuse:
    """Packets of a ring are not taken."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Beat:
    """Nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drops:
    """How many packets the ring has lost because it was full."""

    count: int


Body = Hello | Data | Piece | Ack | End | Refuse | Beat | Drops


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message, checked."""

    sender: int
    """The number of the bridge that sent it."""
    receiver: int
    """The number of the bridge that it is for; 0: whichever hears it."""
    channel: int
    body: Body


# ---- making -------------------------------------------------------------------------------------------


def _head(kind: int, sender: int, receiver: int, channel: int) -> bytes:
    return _HEAD.pack(MAGIC, VERSION, kind, channel, sender, receiver)


def pack_data(
    sender: int,
    receiver: int,
    channel: int,
    head: tuple[int, int, int],
    table: bytes,
    payload: Sequence[Buffer],
) -> list[Buffer]:
    """Return the parts of a DATA message; `head` is after, first, row."""
    after, first, row = head
    numbers = _DATA.pack(after, first, len(table) // TABLE.itemsize, row)
    return [_head(DATA, sender, receiver, channel) + numbers, table, *payload]


def pack_piece(
    sender: int, receiver: int, channel: int, head: tuple[int, int, int], segments: bytes, payload: Buffer
) -> list[Buffer]:
    """Return the parts of a PIECE message; `head` is after, position, offset."""
    return [_head(PIECE, sender, receiver, channel) + _PIECE.pack(*head), segments, payload]


def segments(lengths: Sequence[int], tags: Sequence[int]) -> bytes:
    """Return the table of a PIECE."""
    table = np.empty(len(lengths), SEGMENTS)
    table["length"], table["tag"] = lengths, tags
    return table.tobytes()


def pack(message: Message) -> list[Buffer]:
    """Return the parts of any other message."""
    body, head = message.body, (message.sender, message.receiver, message.channel)
    if isinstance(body, Hello):
        return [_head(HELLO, *head), json.dumps(dataclasses.asdict(body)).encode()]
    if isinstance(body, Ack):
        flags = ENDED * body.ended | CLOSED * body.closed | READONLY * body.readonly
        numbers = (body.have, body.got, body.part, body.room, body.room_bytes, flags)
        return [_head(ACK, *head) + _ACK.pack(*numbers)]
    if isinstance(body, End):
        return [_head(END, *head) + _NUMBER.pack(body.position)]
    if isinstance(body, Drops):
        return [_head(DROPS, *head) + _NUMBER.pack(body.count)]
    if isinstance(body, Piece):
        table = segments(body.lengths, body.tags)
        return pack_piece(*head, (body.after, body.position, body.offset), table, body.payload)
    if isinstance(body, Refuse):
        return [_head(REFUSE, *head), body.why.encode()[:TEXT_MAX]]
    if isinstance(body, Beat):
        return [_head(BEAT, *head)]
    packets = np.empty(len(body.lengths), TABLE)
    packets["length"], packets["tag"] = body.lengths, body.tags
    return pack_data(*head, (body.after, body.first, body.row), packets.tobytes(), body.payload)


def too_large(name: str, nbytes: int, limit: int) -> str:
    """Say why a packet is not taken."""
    return (
        f"ring {name!r} has a packet of {nbytes} bytes, and the pool that receives it takes {limit}: make it with a "
        "larger class, or an arena"
    )


# ---- parsing ------------------------------------------------------------------------------------------


def parse(parts: Sequence[memoryview], bytes_max: int) -> Message:
    """Return what the parts say.

    Parameters
    ----------
    parts : sequence of memoryview
        As a carrier has received them.
    bytes_max : int
        Bytes of packets that one message may have.

    Raises
    ------
    VersionMismatch
        The other side speaks another version.
    WireError
        It is no message, or a value is out of its bounds. The text names it.
    """
    if not parts or parts[0].nbytes < _HEAD.size:
        raise WireError("a message without a head")
    magic, version, kind, channel, sender, receiver = _HEAD.unpack_from(parts[0])
    if magic != MAGIC:
        raise WireError(f"a message that begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise VersionMismatch(
            f"the other host's bridge speaks version {version} of the protocol, this one {VERSION}: install the same "
            "release of ssm on both"
        )
    if channel >= CHANNELS_MAX or sender == 0:
        raise WireError(
            f"channel {channel} of bridge {sender}; the limit is {CHANNELS_MAX - 1}, and no bridge is 0"
        )
    rest = parts[0][_HEAD.size :]
    parsers: dict[int, Callable[[memoryview, Sequence[memoryview]], Body]] = {
        HELLO: _hello,
        DATA: functools.partial(_data, bytes_max),
        ACK: _ack,
        END: _end,
        REFUSE: _refuse,
        BEAT: _beat,
        PIECE: _piece,
        DROPS: _drops,
    }
    if kind not in parsers:
        raise WireError(f"a message of kind {kind}, which is none")
    body = parsers[kind](rest, parts[1:])
    return Message(sender, receiver, channel, body)


def _numbers(form: struct.Struct, rest: memoryview, what: str) -> tuple[Any, ...]:
    if rest.nbytes != form.size:
        raise WireError(f"{what} of {rest.nbytes} bytes, not {form.size}")
    return form.unpack(rest)


def _parts(parts: Sequence[memoryview], count: int, what: str) -> None:
    if len(parts) != count:
        raise WireError(f"{what} with {len(parts)} parts behind its head, not {count}")


def _data(bytes_max: int, rest: memoryview, parts: Sequence[memoryview]) -> Data:
    after, first, count, row = _numbers(_DATA, rest, "DATA")
    if not 1 <= count <= COUNT_MAX or first + count >= _U64 or after > first:
        raise WireError(f"DATA of {count} packets at {first}, after {after}; the limit is {COUNT_MAX}")
    if len(parts) not in (2, 1 + count) or parts[0].nbytes != count * TABLE.itemsize:
        raise WireError(f"DATA of {count} packets with {len(parts)} parts")
    table = np.frombuffer(parts[0], TABLE)
    lengths, payload = table["length"], list(parts[1:])
    total = int(lengths.sum(dtype="u8"))
    if total > bytes_max:
        raise WireError(f"DATA of {total} bytes; the limit is {bytes_max}")
    if row != _NOT_UNIFORM and not bool((lengths == row).all()):
        raise WireError(f"DATA of packets that do not all have {row} bytes")
    if len(payload) == 1:
        fits = payload[0].nbytes == total
    else:
        fits = all(part.nbytes == length for part, length in zip(payload, lengths.tolist(), strict=True))
    if not fits:
        raise WireError(f"DATA whose packets have not the {total} bytes that their lengths say")
    return Data(after, first, lengths, cast("NDArray[np.uint64]", table["tag"]), row, payload)


def _ack(rest: memoryview, parts: Sequence[memoryview]) -> Ack:
    _parts(parts, 0, "ACK")
    have, got, part, room, room_bytes, flags = _numbers(_ACK, rest, "ACK")
    if got < have or flags > ENDED | CLOSED | READONLY:
        raise WireError(f"ACK of {have} of {got}, flags {flags}")
    ended, closed, readonly = (bool(flags & flag) for flag in (ENDED, CLOSED, READONLY))
    return Ack(have, got, part, room, room_bytes, ended, closed, readonly)


def _end(rest: memoryview, parts: Sequence[memoryview]) -> End:
    _parts(parts, 0, "END")
    return End(_numbers(_NUMBER, rest, "END")[0])


def _drops(rest: memoryview, parts: Sequence[memoryview]) -> Drops:
    _parts(parts, 0, "DROPS")
    return Drops(_numbers(_NUMBER, rest, "DROPS")[0])


def _piece(rest: memoryview, parts: Sequence[memoryview]) -> Piece:
    after, position, offset = _numbers(_PIECE, rest, "PIECE")
    _parts(parts, 2, "PIECE")
    count, left_over = divmod(parts[0].nbytes, SEGMENTS.itemsize)
    if left_over or not 1 <= count <= CHAIN_MAX:
        raise WireError(f"PIECE of {count} segments; the limit is {CHAIN_MAX}")
    if after > position or position + 1 >= _U64:
        raise WireError(f"PIECE of a packet at {position}, after {after}")
    table = np.frombuffer(parts[0], SEGMENTS)
    piece = Piece(
        after, position, offset, tuple(table["length"].tolist()), tuple(table["tag"].tolist()), parts[1]
    )
    size, total = piece.payload.nbytes, piece.total
    if size > PIECE_MAX or offset + size > total or (size == 0) != (total == 0):
        raise WireError(f"PIECE of {size} bytes at {offset} of {total}; the limit is {PIECE_MAX}")
    return piece


def _refuse(rest: memoryview, parts: Sequence[memoryview]) -> Refuse:
    _parts(parts, 1, "REFUSE")
    if rest.nbytes or parts[0].nbytes > TEXT_MAX:
        raise WireError(f"REFUSE with a text of {parts[0].nbytes} bytes; the limit is {TEXT_MAX}")
    return Refuse(bytes(parts[0]).decode("utf-8", "replace"))


def _beat(rest: memoryview, parts: Sequence[memoryview]) -> Beat:
    _parts(parts, 0, "BEAT")
    if rest.nbytes:
        raise WireError(f"BEAT with {rest.nbytes} bytes")
    return Beat()


def _hello(rest: memoryview, parts: Sequence[memoryview]) -> Hello:
    _parts(parts, 1, "HELLO")
    if rest.nbytes or parts[0].nbytes > HELLO_BYTES_MAX:
        raise WireError(f"HELLO of {parts[0].nbytes} bytes; the limit is {HELLO_BYTES_MAX}")
    try:
        told: Any = json.loads(bytes(parts[0]))
    except (ValueError, RecursionError) as error:
        raise WireError(f"HELLO that is no JSON: {error}") from None
    return Hello(
        pool=_text(told, "pool", TEXT_MAX),
        host=_text(told, "host", TEXT_MAX),
        seen=_number(told, "seen"),
        exports=_rings(told, "exports", _export),
        imports=_rings(told, "imports", _import),
    )


def _export(ring: Any) -> Export:
    return Export(_name(ring), _number(ring, "stream"), _text(ring, "type", TYPE_MAX))


def _import(ring: Any) -> Import:
    return Import(_name(ring), _text(ring, "type", TYPE_MAX), _number(ring, "largest"))


def _rings(told: Any, field: str, make: Any) -> tuple[Any, ...]:
    rings = _field(told, field, list)
    if len(rings) > CHANNELS_MAX:
        raise WireError(f"HELLO with {len(rings)} {field}; the limit is {CHANNELS_MAX}")
    made = tuple(make(ring) for ring in rings)
    if len({ring.name for ring in made}) != len(made):
        raise WireError(f"HELLO with a name twice among its {field}")
    return made


def _field(told: Any, field: str, kind: type) -> Any:
    value: Any = cast("dict[str, Any]", told).get(field) if isinstance(told, dict) else None
    if type(value) is not kind:
        raise WireError(f"HELLO without a {kind.__name__} {field!r}")
    return value


def _text(told: Any, field: str, limit: int) -> str:
    text: str = _field(told, field, str)
    if len(text.encode("utf-8", "surrogatepass")) > limit:
        raise WireError(f"HELLO whose {field!r} is longer than {limit} bytes")
    return text


def _name(told: Any) -> str:
    name = _text(told, "name", NAME_MAX)
    if not name or "\0" in name:
        raise WireError(f"HELLO with a ring of the name {name!r}")
    return name


def _number(told: Any, field: str) -> int:
    number: int = _field(told, field, int)
    if not 0 <= number < _U64:
        raise WireError(f"HELLO whose {field!r} is {number}")
    return number
