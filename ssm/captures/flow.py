# SPDX-License-Identifier: Apache-2.0
"""A flow: what frames of one conversation, in one direction, have in common."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
WITH_PORTS = frozenset((TCP, UDP, SCTP))

UNDECODABLE = 0  # in place of an EtherType: the frame is shorter than its headers
OTHER_LINK = 1  # in place of an EtherType: a link layer that is not decoded here
LLC = 2  # in place of an EtherType: IEEE 802.3, which has a length there

NO_ADDRESS = bytes(16)

PROTOCOLS = {
    ICMP: "icmp",
    TCP: "tcp",
    UDP: "udp",
    ICMPV6: "icmp6",
    SCTP: "sctp",
}

LINK_LAYER = {
    UNDECODABLE: "shorter than its headers",
    OTHER_LINK: "link layer not decoded",
    LLC: "802.3",
    ARP: "arp",
}


class Flow(NamedTuple):
    """What the frames of a flow have in common: the five-tuple, in the direction of travel."""

    ether_type: int  # IPV4, IPV6, another EtherType, or one of the stand-ins above
    protocol: int = 0  # of IP
    source_port: int = 0  # ICMP: the type
    destination_port: int = 0  # ICMP: the code
    source: bytes = NO_ADDRESS  # 16 bytes; IPv4 has zeroes behind its four
    destination: bytes = NO_ADDRESS


KEY = struct.Struct("!HBHH16s16s")  # a Flow, as bytes


def describe(flow: Flow) -> str:
    """Return a flow as people write it."""
    if flow.ether_type not in (IPV4, IPV6):
        return _describe_link(flow.ether_type)
    protocol = PROTOCOLS.get(flow.protocol, f"ip/{flow.protocol}")
    source, destination = (_address(flow.ether_type, address) for address in (flow.source, flow.destination))
    if flow.protocol in WITH_PORTS:
        return f"{protocol} {source}:{flow.source_port} > {destination}:{flow.destination_port}"
    if flow.protocol in (ICMP, ICMPV6):
        return f"{protocol} {source} > {destination} type {flow.source_port} code {flow.destination_port}"
    return f"{protocol} {source} > {destination}"


def _describe_link(ether_type: int) -> str:
    return LINK_LAYER.get(ether_type, f"ethertype 0x{ether_type:04x}")


def _address(ether_type: int, address: bytes) -> str:
    if ether_type == IPV4:
        return socket.inet_ntop(socket.AF_INET, address[:4])
    return f"[{socket.inet_ntop(socket.AF_INET6, address)}]"
