# SPDX-License-Identifier: Apache-2.0
"""The parser of what comes from another host: all that is made comes through, and nothing else does harm."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssm._core import CHAIN_MAX
from ssm.bridge import wire
from ssm.bridge.errors import VersionMismatch, WireError

LIMIT = 1000

u64 = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
exports = st.builds(wire.Export, names, u64, st.text(st.characters(codec="utf-8"), max_size=20))
imports = st.builds(wire.Import, names, st.text(st.characters(codec="utf-8"), max_size=20), u64)
hellos = st.builds(
    wire.Hello,
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=20),
    u64,
    st.lists(exports, max_size=3, unique_by=lambda ring: ring.name).map(tuple),
    st.lists(imports, max_size=3, unique_by=lambda ring: ring.name).map(tuple),
)


@st.composite
def acks(draw: Any) -> wire.Ack:
    have, got = sorted([draw(u64), draw(u64)])
    flags = [draw(st.booleans()) for _ in range(3)]
    return wire.Ack(have, got, draw(u64), draw(st.integers(0, 2**32 - 1)), draw(u64), *flags)


@st.composite
def datas(draw: Any) -> wire.Data:
    packets = draw(st.lists(st.binary(max_size=30), min_size=1, max_size=20))
    uniform = len({len(packet) for packet in packets}) == 1 and len(packets[0]) > 0
    after, first = sorted([draw(st.integers(0, 2**60)), draw(st.integers(0, 2**60))])
    payload = packets if draw(st.booleans()) else [b"".join(packets)]
    return wire.Data(
        after,
        first,
        np.array([len(packet) for packet in packets], "u4"),
        np.array(draw(st.lists(u64, min_size=len(packets), max_size=len(packets))), "u8"),
        len(packets[0]) if uniform and draw(st.booleans()) else 0,
        [memoryview(part) for part in payload],
    )


@st.composite
def pieces(draw: Any) -> wire.Piece:
    lengths = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5))
    tags = draw(st.lists(u64, min_size=len(lengths), max_size=len(lengths)))
    offset = draw(st.integers(0, max(0, sum(lengths) - 1)))
    size = draw(st.integers(min(1, sum(lengths)), sum(lengths) - offset))
    after, position = sorted([draw(st.integers(0, 2**60)), draw(st.integers(0, 2**60))])
    return wire.Piece(after, position, offset, tuple(lengths), tuple(tags), memoryview(bytes(size)))


bodies = st.one_of(
    hellos,
    pieces(),
    st.builds(wire.Drops, u64),
    acks(),
    datas(),
    st.builds(wire.End, u64),
    st.builds(wire.Refuse, st.text(max_size=9)),
    st.just(wire.Beat()),
)
messages = st.builds(
    wire.Message, st.integers(1, 2**64 - 1), u64, st.integers(0, wire.CHANNELS_MAX - 1), bodies
)


def views(parts: Any) -> list[memoryview]:
    return [memoryview(bytes(part)) for part in parts]


def plain(value: Any) -> Any:
    """As it can be compared: arrays and buffers have no one truth."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return [
            type(value).__name__,
            *(plain(getattr(value, field.name)) for field in dataclasses.fields(value)),
        ]
    return value


@settings(deadline=None)
@given(messages)
def test_what_is_made_is_understood(message: wire.Message) -> None:
    assert plain(wire.parse(views(wire.pack(message)), LIMIT)) == plain(message)


def check(parts: list[memoryview]) -> None:
    """Whatever it is: an error, or a message whose every number is within its bounds."""
    try:
        message = wire.parse(parts, LIMIT)
    except WireError:
        return
    assert 0 <= message.channel < wire.CHANNELS_MAX
    assert message.sender > 0
    body = message.body
    if isinstance(body, wire.Data):
        assert 1 <= len(body.lengths) == len(body.tags) <= wire.COUNT_MAX
        assert body.after <= body.first <= body.end < 2**64
        assert body.nbytes == int(body.lengths.sum()) <= LIMIT
        assert len(body.payload) in (1, len(body.lengths))
        assert body.row == 0 or (body.lengths == body.row).all()
    if isinstance(body, wire.Piece):
        assert 1 <= len(body.lengths) == len(body.tags) <= CHAIN_MAX
        assert body.after <= body.position < 2**64 - 1
        assert body.offset + body.payload.nbytes <= body.total
        assert body.payload.nbytes <= wire.PIECE_MAX
    if isinstance(body, wire.Ack):
        assert body.have <= body.got
    if isinstance(body, wire.Hello):
        for rings in (body.exports, body.imports):
            assert len({ring.name for ring in rings}) == len(rings) <= wire.CHANNELS_MAX
            assert all(0 < len(ring.name.encode()) <= wire.NAME_MAX for ring in rings)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_do_no_harm(parts: list[bytes]) -> None:
    check(views(parts))


@settings(max_examples=150, deadline=None)
@given(messages, st.data())
def test_damaged_messages_do_no_harm(message: wire.Message, data: Any) -> None:
    """A byte is changed, a part is cut, doubled or left out."""
    parts = [bytearray(bytes(part)) for part in wire.pack(message)]
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(parts) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "double", "leave out"]))
        if how == "change" and parts[which]:
            at = data.draw(st.integers(0, len(parts[which]) - 1))
            parts[which][at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del parts[which][data.draw(st.integers(0, len(parts[which]))) :]
        elif how == "double":
            parts.insert(which, bytearray(parts[which]))
        elif len(parts) > 1:
            del parts[which]
    check(views(parts))


def test_another_version_is_named() -> None:
    parts = views(wire.pack(wire.Message(7, 0, 0, wire.Beat())))
    old = bytearray(parts[0])
    old[4] = 0
    with pytest.raises(VersionMismatch, match=f"version 0 .* this one {wire.VERSION}: install"):
        wire.parse(views([old]), LIMIT)


def data_message(count: int, length: int, *, part: bytes = b"", row: int = 0) -> list[memoryview]:
    table = np.zeros(count, wire.TABLE)
    table["length"] = length
    return views(wire.pack_data(1, 2, 0, (0, 0, row), table.tobytes(), [part]))


def piece_message(lengths: list[int], payload: bytes, offset: int = 0) -> list[memoryview]:
    table = wire.segments(lengths, [0] * len(lengths))
    return views(wire.pack_piece(1, 2, 0, (0, 0, offset), table, payload))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], "without a head"),
        ([b"x" * 24], "begins with"),
        ([struct.pack("<4sBBHQQ", b"SSMB", wire.VERSION, 99, 0, 1, 1)], "kind 99"),
        ([struct.pack("<4sBBHQQ", b"SSMB", wire.VERSION, wire.BEAT, 9999, 1, 1)], "channel 9999"),
        ([struct.pack("<4sBBHQQ", b"SSMB", wire.VERSION, wire.HELLO, 0, 1, 1), b"[" * 10_000], "no JSON"),
        ([struct.pack("<4sBBHQQ", b"SSMB", wire.VERSION, wire.HELLO, 0, 1, 1), b"{}"], "'pool'"),
        (data_message(1, LIMIT + 1), "limit is 1000"),
        (data_message(wire.COUNT_MAX + 1, 0), f"limit is {wire.COUNT_MAX}"),
        (data_message(2, 2**32 - 1), "limit is 1000"),
        (data_message(2, 10, part=bytes(19)), "have not the 20 bytes"),
        (data_message(2, 10, part=bytes(20), row=9), "do not all have 9"),
        (piece_message([], b""), "0 segments"),
        (piece_message([1] * (CHAIN_MAX + 1), b"x"), f"limit is {CHAIN_MAX}"),
        (piece_message([2**64 - 1, 2**64 - 1], bytes(wire.PIECE_MAX + 1)), f"limit is {wire.PIECE_MAX}"),
        (piece_message([10], bytes(11)), "11 bytes at 0 of 10"),
        (piece_message([10], bytes(5), offset=6), "5 bytes at 6 of 10"),
        (piece_message([10], b""), "0 bytes at 0 of 10"),
    ],
)
def test_what_is_refused(parts: list[Any], text: str) -> None:
    with pytest.raises(WireError, match=text):
        wire.parse(views(parts), LIMIT)
