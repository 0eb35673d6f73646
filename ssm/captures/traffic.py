# SPDX-License-Identifier: Apache-2.0
"""Capture files for those who have none.

Traffic that this process sends to itself on 127.0.0.1, captured from the loopback interface where that is
permitted (it needs CAP_NET_RAW); otherwise a capture of made-up traffic. Either way a file is written, so
that the run has something to be measured by. Nothing leaves the machine and nobody else's packets are kept.
"""

from __future__ import annotations

import socket
import tempfile
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ssm.captures.headers import flow_of
from ssm.captures.library import dpkt

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

ETH_P_ALL = 3
PACKET_OUTGOING = 4  # loopback shows each frame twice, going out and coming in
SNAPLEN = 262144
ROUNDS = 1000  # each: one datagram and one message, both echoed
TIME_MAX_S = 3.0
PATIENCE_S = 0.5  # for one echo
MESSAGE = bytes(range(256)) * 4

SYNTHETIC_PACKETS = 20_000
SYNTHETIC_FLOWS = 64
SYNTHETIC_START_S = 1_700_000_000
MAC_OURS, MAC_THEIRS = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"  # locally administered


@dataclass(frozen=True)
class Source:
    """A capture file and how to speak of it."""

    path: Path
    description: str


def file_source(path: Path) -> AbstractContextManager[Source]:
    """Take a file that is there."""
    return nullcontext(Source(path, str(path)))


@contextmanager
def default_source() -> Generator[Source]:
    """Capture loopback traffic, or write a capture where that is not permitted."""
    with tempfile.TemporaryDirectory(prefix="ssm-demo-") as folder:
        path = Path(folder, "loopback.pcap")
        try:
            with path.open("wb") as file:
                packets = _capture_loopback(file)
            description = f"{packets:,} frames of its own traffic, captured on loopback"
        except OSError as error:
            _write_synthetic(path, SYNTHETIC_PACKETS)
            description = f"a capture it wrote itself (loopback: {error.strerror or error})"
        yield Source(path, description)


@contextmanager
def synthetic_source(packets: int) -> Generator[Source]:
    """Write a capture of made-up traffic."""
    with tempfile.TemporaryDirectory(prefix="ssm-demo-") as folder:
        path = Path(folder, "synthetic.pcap")
        _write_synthetic(path, packets)
        yield Source(path, "a capture it wrote itself")


def _capture_loopback(file: IO[bytes]) -> int:
    """Echo datagrams and messages, write their frames; return how many there were."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        tap.bind(("lo", 0))
        tap.setblocking(False)
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(PATIENCE_S)
        tapped = _Tap(tap, file, {datagrams.getsockname()[1], server.getsockname()[1]})
        with (
            socket.create_connection(server.getsockname(), PATIENCE_S) as client,
            server.accept()[0] as peer,
        ):
            peer.settimeout(PATIENCE_S)
            for pair in (client, peer):
                pair.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            deadline = time.monotonic() + TIME_MAX_S
            for turn in range(ROUNDS):
                size = turn % len(MESSAGE) + 1
                datagrams.sendto(MESSAGE[:size], datagrams.getsockname())
                datagrams.recv(len(MESSAGE))
                client.sendall(MESSAGE[:size])
                peer.sendall(peer.recv(len(MESSAGE)))
                client.recv(len(MESSAGE))
                tapped.drain()
                if time.monotonic() > deadline:
                    break
        tapped.drain()
        return tapped.count


class _Tap:
    """Writes the outgoing frames that carry one of our ports."""

    def __init__(self, tap: socket.socket, file: IO[bytes], ports: set[int]) -> None:
        self._tap = tap
        self._ports = ports
        self._writer = dpkt.pcap.Writer(file, snaplen=SNAPLEN)
        self.count = 0

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, address = self._tap.recvfrom(SNAPLEN)
                flow = flow_of(memoryview(data), dpkt.pcap.DLT_EN10MB)
                ours = self._ports & {flow.source_port, flow.destination_port}
                if ours and address[2] == PACKET_OUTGOING:
                    self._writer.writepkt_time(data, time.time())
                    self.count += 1


def _write_synthetic(path: Path, packets: int) -> None:
    """Write frames of many flows, of many sizes, a microsecond apart."""
    frames = [_synthetic_frame(number) for number in range(SYNTHETIC_FLOWS)]
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=SNAPLEN)
        for index in range(packets):
            # flow 0 gets most packets, as in life
            frame = frames[(index * index) % (index % SYNTHETIC_FLOWS + 1)]
            writer.writepkt_time(frame, SYNTHETIC_START_S + index / 1_000_000)


def _synthetic_frame(number: int) -> bytes:
    """Return the frame of one flow; its number decides on protocol, addresses and size."""
    payload = bytes(number * 23 % 1400)
    segment: Any
    if number % 3:
        segment = dpkt.tcp.TCP(sport=40_000 + number, dport=443, seq=number, data=payload)
    else:
        segment = dpkt.udp.UDP(sport=50_000 + number, dport=53, data=payload)
        segment.ulen = len(segment)
    source, destination = IPv4Address("192.0.2.1") + number, IPv4Address("198.51.100.1") + number % 8
    protocol = dpkt.ip.IP_PROTO_TCP if number % 3 else dpkt.ip.IP_PROTO_UDP
    packet = dpkt.ip.IP(src=source.packed, dst=destination.packed, p=protocol, data=segment)
    packet.len = len(packet)
    frame = dpkt.ethernet.Ethernet(src=MAC_OURS, dst=MAC_THEIRS, data=packet)
    return bytes(frame)
