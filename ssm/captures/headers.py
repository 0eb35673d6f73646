# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a frame to its flow, in place: only headers are looked at, payload is never copied.

dpkt knows where the fields of Ethernet, VLAN tags, Linux cooked headers, IPv4 and IPv6 are. Its own
unpacking goes on into the payload and wants `bytes`; here each header is decoded alone, on a memoryview.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ssm.captures.flow import (
    ICMP,
    ICMPV6,
    IPV4,
    IPV6,
    LLC,
    OTHER_LINK,
    UNDECODABLE,
    WITH_PORTS,
    Flow,
)
from ssm.captures.library import dpkt

if TYPE_CHECKING:
    from collections.abc import Callable

VLAN_TYPES = frozenset((0x8100, 0x88A8, 0x9100))
LENGTH_MAX = 1500  # what is larger is an EtherType, what is not the length of an IEEE 802.3 frame
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
IPV6_OPTIONS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION))

PORTS = struct.Struct("!HH")
ICMP_HEAD = struct.Struct("!BB")
NEXT_AND_LENGTH = struct.Struct("!BB")
FRAGMENT_HEAD = struct.Struct("!BxH")


def flow_of(frame: memoryview, link_type: int) -> Flow:
    """Return the flow of a frame; one that cannot be decoded has a flow too."""
    link = LINKS.get(link_type)
    if link is None:
        return Flow(OTHER_LINK)
    try:
        ether_type, packet = link(frame)
        if ether_type == IPV4:
            return _ipv4(packet)
        if ether_type == IPV6:
            return _ipv6(packet)
    except (dpkt.UnpackError, struct.error):
        return Flow(UNDECODABLE)
    return Flow(ether_type if ether_type > LENGTH_MAX else LLC)


def _header_only(header: Any) -> Any:
    """Return a dpkt class that decodes the header's own fields and leaves the rest in `data`."""
    return type(header)(header.__name__, (header,), {"unpack": dpkt.Packet.unpack})


Ethernet = _header_only(dpkt.ethernet.Ethernet)
VlanTag = _header_only(dpkt.ethernet.VLANtag8021Q)
Cooked = _header_only(dpkt.sll.SLL)
Cooked2 = _header_only(dpkt.sll2.SLL2)
IPv4 = _header_only(dpkt.ip.IP)
IPv6 = _header_only(dpkt.ip6.IP6)


def _ethernet(frame: memoryview) -> tuple[int, memoryview]:
    header = Ethernet(frame)
    while header.type in VLAN_TYPES:
        header = VlanTag(header.data)
    return header.type, header.data


def _cooked(frame: memoryview) -> tuple[int, memoryview]:
    header = Cooked(frame)
    return header.ethtype, header.data


def _cooked2(frame: memoryview) -> tuple[int, memoryview]:
    header = Cooked2(frame)
    return header.ethtype, header.data


def _raw(frame: memoryview) -> tuple[int, memoryview]:
    match frame[0] >> 4 if frame else None:
        case 4:
            return IPV4, frame
        case 6:
            return IPV6, frame
        case _:
            raise dpkt.UnpackError("neither IPv4 nor IPv6")


# From the number in a capture file to what stands in front of the IP header.
LINKS: dict[int, Callable[[memoryview], tuple[int, memoryview]]] = {
    dpkt.pcap.DLT_EN10MB: _ethernet,
    dpkt.pcap.DLT_RAW: _raw,
    101: _raw,  # LINKTYPE_RAW, what files have for DLT_RAW
    dpkt.pcap.DLT_IPV4: _raw,
    dpkt.pcap.DLT_IPV6: _raw,
    dpkt.pcap.DLT_LINUX_SLL: _cooked,
    dpkt.pcap.DLT_LINUX_SLL2: _cooked2,
}


def _ipv4(packet: memoryview) -> Flow:
    header = IPv4(packet)
    first = header.offset == 0  # of a datagram's fragments, only the first carries the ports
    ports = _ports(header.p, packet[header.hl * 4 :]) if first else (0, 0)
    return Flow(IPV4, header.p, *ports, header.src + bytes(12), header.dst + bytes(12))


def _ipv6(packet: memoryview) -> Flow:
    header = IPv6(packet)
    protocol, rest, first = header.nxt, header.data, True
    while protocol in IPV6_OPTIONS:
        protocol, length = NEXT_AND_LENGTH.unpack_from(rest)
        rest = rest[(length + 1) * 8 :]
    if protocol == FRAGMENT:
        protocol, offset = FRAGMENT_HEAD.unpack_from(rest)
        rest, first = rest[8:], offset >> 3 == 0
    ports = _ports(protocol, rest) if first else (0, 0)
    return Flow(IPV6, protocol, *ports, header.src, header.dst)


def _ports(protocol: int, segment: memoryview) -> tuple[int, int]:
    if protocol in WITH_PORTS:
        source, destination = PORTS.unpack_from(segment)
    elif protocol in (ICMP, ICMPV6):
        source, destination = ICMP_HEAD.unpack_from(segment)
    else:
        source = destination = 0
    return source, destination
