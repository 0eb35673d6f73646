# SPDX-License-Identifier: Apache-2.0
"""From frames to flows, against frames that dpkt packs."""

from __future__ import annotations

import random
import socket

import pytest

dpkt = pytest.importorskip("dpkt", reason="the demo decodes headers with dpkt")

from ssm.captures.flow import ICMP, IPV4, IPV6, KEY, LLC, OTHER_LINK, TCP, UDP, UNDECODABLE, Flow, describe  # noqa: E402
from ssm.captures.headers import LINKS, flow_of  # noqa: E402

ETHERNET, RAW, COOKED, COOKED2 = 1, 101, 113, 276
A4, B4 = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
A6, B6 = socket.inet_pton(socket.AF_INET6, "fe80::1"), socket.inet_pton(socket.AF_INET6, "2001:db8::2")
MACS = b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01"

TCP_SEGMENT = bytes(dpkt.tcp.TCP(sport=1234, dport=80, data=b"payload"))
UDP_SEGMENT = bytes(dpkt.udp.UDP(sport=53, dport=4321, data=b"payload"))
ICMP_MESSAGE = b"\x08\x00\0\0\0\0\0\0"

FLOW4 = Flow(IPV4, TCP, 1234, 80, A4 + bytes(12), B4 + bytes(12))
FLOW6 = Flow(IPV6, UDP, 53, 4321, A6, B6)


def ipv4(protocol: int, data: bytes, *, offset: int = 0, options: bytes = b"") -> bytes:
    header = dpkt.ip.IP(src=A4, dst=B4, p=protocol, offset=offset, data=b"")
    header.hl, header.len = 5 + len(options) // 4, 20 + len(options) + len(data)
    return header.pack_hdr() + options + data


def ipv6(next_header: int, data: bytes) -> bytes:
    return dpkt.ip6.IP6(src=A6, dst=B6, nxt=next_header, plen=len(data)).pack_hdr() + data


def ethernet(ether_type: int, data: bytes, *, tags: bytes = b"") -> bytes:
    return MACS + tags + ether_type.to_bytes(2) + data


def flow(frame: bytes, link_type: int = ETHERNET) -> Flow:
    return flow_of(memoryview(frame), link_type)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ethernet(IPV4, ipv4(TCP, TCP_SEGMENT)), FLOW4),
        (ethernet(IPV4, ipv4(TCP, TCP_SEGMENT, options=b"\x01" * 8)), FLOW4),
        (ethernet(IPV4, ipv4(TCP, TCP_SEGMENT), tags=b"\x81\x00\x00\x05"), FLOW4),
        (ethernet(IPV4, ipv4(TCP, TCP_SEGMENT), tags=b"\x88\xa8\x00\x05\x81\x00\x00\x06"), FLOW4),
        (
            ethernet(IPV4, ipv4(ICMP, ICMP_MESSAGE)),
            FLOW4._replace(protocol=ICMP, source_port=8, destination_port=0),
        ),
        (ethernet(IPV4, ipv4(47, b"gre")), FLOW4._replace(protocol=47, source_port=0, destination_port=0)),
        (ethernet(IPV4, ipv4(TCP, b"x", offset=3)), FLOW4._replace(source_port=0, destination_port=0)),
        (ethernet(IPV6, ipv6(UDP, UDP_SEGMENT)), FLOW6),
        (ethernet(IPV6, ipv6(0, b"\x3c\x00" + bytes(6) + b"\x11\x01" + bytes(14) + UDP_SEGMENT)), FLOW6),
        (ethernet(IPV6, ipv6(44, b"\x11\x00\x00\x01" + bytes(4) + UDP_SEGMENT)), FLOW6),
        (
            ethernet(IPV6, ipv6(44, b"\x11\x00\x00\x09" + bytes(4) + UDP_SEGMENT)),
            FLOW6._replace(source_port=0, destination_port=0),
        ),
        (ethernet(0x0806, bytes(28)), Flow(0x0806)),
        (ethernet(38, bytes(46)), Flow(LLC)),
    ],
)
def test_ethernet(frame, expected):
    assert flow(frame) == expected
    assert Flow(*KEY.unpack(KEY.pack(*expected))) == expected


@pytest.mark.parametrize(
    ("frame", "link_type", "expected"),
    [
        (ipv4(TCP, TCP_SEGMENT), RAW, FLOW4),
        (ipv6(UDP, UDP_SEGMENT), RAW, FLOW6),
        (bytes(60), RAW, Flow(UNDECODABLE)),
        (b"", RAW, Flow(UNDECODABLE)),
        (bytes(14) + b"\x08\x00" + ipv4(TCP, TCP_SEGMENT), COOKED, FLOW4),
        (b"\x86\xdd" + bytes(18) + ipv6(UDP, UDP_SEGMENT), COOKED2, FLOW6),
        (ethernet(IPV4, ipv4(TCP, TCP_SEGMENT)), 105, Flow(OTHER_LINK)),
    ],
)
def test_other_links(frame, link_type, expected):
    assert flow(frame, link_type) == expected


@pytest.mark.parametrize(
    "frame", [ethernet(IPV4, ipv4(TCP, TCP_SEGMENT)), ethernet(IPV6, ipv6(UDP, UDP_SEGMENT))]
)
def test_cut_frames(frame):
    ports_end = len(frame) - len(TCP_SEGMENT if frame[12] == 8 else UDP_SEGMENT) + 4
    whole = flow(frame)
    for size in range(len(frame)):
        assert flow(frame[:size]) == (whole if size >= ports_end else Flow(UNDECODABLE))


@pytest.mark.parametrize("link_type", LINKS)
def test_any_bytes_have_a_flow_that_can_be_told(link_type):
    dice = random.Random(link_type)
    for _ in range(2000):
        frame = bytearray(ethernet(dice.choice((IPV4, IPV6)), dice.randbytes(dice.randrange(80))))
        frame[14:15] = dice.choice((b"\x45", b"\x60", b"\x4f"))
        assert describe(flow(bytes(frame), link_type))


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (FLOW4, "tcp 10.0.0.1:1234 > 10.0.0.2:80"),
        (FLOW6, "udp [fe80::1]:53 > [2001:db8::2]:4321"),
        (
            FLOW4._replace(protocol=ICMP, source_port=8, destination_port=0),
            "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0",
        ),
        (FLOW4._replace(protocol=47), "ip/47 10.0.0.1 > 10.0.0.2"),
        (Flow(0x0806), "arp"),
        (Flow(0x88CC), "ethertype 0x88cc"),
        (Flow(UNDECODABLE), "shorter than its headers"),
    ],
)
def test_describe(described, expected):
    assert describe(described) == expected
