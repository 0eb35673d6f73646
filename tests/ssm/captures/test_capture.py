# SPDX-License-Identifier: Apache-2.0
"""Capture files: both formats, gzipped or not, whole or broken at any byte."""

from __future__ import annotations

import gzip
import io
import random
import struct
from contextlib import suppress

import pytest

dpkt = pytest.importorskip("dpkt", reason="captures are read with dpkt")

from ssm.captures.capture import Capture, Frame  # noqa: E402 - they import dpkt
from ssm.captures.errors import CaptureError  # noqa: E402

FRAMES = [
    Frame(0, 1_500_000_000, b"a" * 60),
    Frame(1, 2_000_000_000, b""),
    Frame(2, 2_250_000_000, b"c" * 100),
]


def as_pcap(*, nano: bool = False) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, snaplen=65535, nano=nano)
    for frame in FRAMES:
        writer.writepkt_time(frame.data, frame.time_ns / 1e9)
    return file.getvalue()


def as_pcapng() -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file, snaplen=65535)
    for frame in FRAMES:
        writer.writepkt(frame.data, frame.time_ns / 1e9)
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "some.pcap"

    def read_bytes(data: bytes) -> list[Frame]:
        path.write_bytes(data)
        with Capture(path) as capture:
            return list(capture)

    return read_bytes


@pytest.mark.parametrize("data", [as_pcap(), as_pcap(nano=True), as_pcapng()], ids=["pcap", "nano", "pcapng"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_formats(read, data, pack):
    assert read(pack(data)) == FRAMES


def test_link_type(tmp_path):
    path = tmp_path / "raw.pcap"
    with path.open("wb") as file:
        dpkt.pcap.Writer(file, linktype=101)
    with Capture(path) as capture:
        assert capture.link_type == 101


def test_cut_anywhere_is_an_error_except_between_packets(read):
    data = as_pcap()
    ends = [24]
    for frame in FRAMES:
        ends.append(ends[-1] + 16 + len(frame.data))
    for size in range(len(data)):
        if size in ends:
            assert len(read(data[:size])) == ends.index(size)
        else:
            with pytest.raises(CaptureError, match=r"is cut short|is empty"):
                read(data[:size])


def test_cut_gzip_is_an_error(read):
    data = gzip.compress(as_pcap())
    for size in range(len(data)):
        with pytest.raises(CaptureError):
            read(data[:size])


def test_cut_pcapng_loses_no_packet_silently(read):
    data = as_pcapng()
    for size in range(len(data)):
        try:
            frames = read(data[:size])
        except CaptureError:
            continue
        assert frames == FRAMES[: len(frames)]
        rest = data[size:]
        assert not rest or struct.unpack_from("<I", rest)[0] == 6  # it ends where a packet block begins


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("data", [as_pcap(), as_pcapng()], ids=["pcap", "pcapng"])
def test_damage_is_an_error_or_harmless(read, data, pack):
    dice = random.Random(20240229)
    whole = pack(data)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 4))):
            damaged[dice.randrange(min(len(damaged), 400))] = dice.randrange(256)
        with suppress(CaptureError):
            read(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"hello, this is no capture file", "is not a pcap or pcapng capture: invalid tcpdump header"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"\x1f\x8b" + b"not gzip at all", "is damaged: "),
        (
            as_pcap()[:24] + struct.pack("<IIII", 0, 0, 1 << 31, 1 << 31),
            "is damaged: a record claims 2,147,483,648 bytes",
        ),
    ],
)
def test_what_is_wrong(read, data, what):
    with pytest.raises(CaptureError) as error:
        read(data)
    assert f"some.pcap {what}" in str(error.value)


def test_simple_packet_blocks_are_not_passed_over(read):
    block = struct.pack("<IIII", 3, 20, 4, 0x01020304) + struct.pack("<I", 20)
    with pytest.raises(CaptureError, match=r"after packet 3: `editcap -F pcap` makes a file"):
        read(as_pcapng() + block)


def test_no_file(tmp_path):
    with pytest.raises(CaptureError, match="none: No such file or directory"):
        Capture(tmp_path / "none")
    with pytest.raises(CaptureError, match="Is a directory"):
        Capture(tmp_path)
