# SPDX-License-Identifier: Apache-2.0
"""A packet lab on one page: a reader, two parsers and a flow table, each its own process.

    python 01_packet_lab.py [CAPTURE.pcap]

The reader copies each frame once. The parsers decode it where it lies, with dpkt, and write its flow in front
of it; the table counts flows. `ssm demo` is the same with batches, checks and a verdict.
"""

import multiprocessing
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import dpkt

import ssm

FLOW = struct.Struct("!4sH4sH")  # source, port, destination, port


def frames_of(path: str | None) -> Iterator[bytes]:
    if path is not None:
        with Path(path).open("rb") as file:
            yield from (frame for _, frame in dpkt.pcap.Reader(file))
        return
    for number in range(1000):
        udp = dpkt.udp.UDP(sport=5000 + number % 7, dport=53, data=b"made up")
        addresses = {"src": b"\xc0\x00\x02\x01", "dst": b"\xc0\x00\x02\x02"}
        yield bytes(dpkt.ethernet.Ethernet(data=dpkt.ip.IP(p=dpkt.ip.IP_PROTO_UDP, data=udp, **addresses)))


def read(pool: ssm.Pool, path: str | None) -> None:
    frames = pool.ring("frames")
    for frame in frames_of(path):
        packet = pool.alloc(len(frame), timeout=None)
        packet[:] = frame
        frames.put(packet)
    frames.shutdown()


def parse(pool: ssm.Pool) -> None:
    parsed = pool.ring("parsed")
    for packet in pool.ring("frames"):  # until it is shut down and drained
        ip = dpkt.ethernet.Ethernet(memoryview(packet)).data
        if isinstance(ip, dpkt.ip.IP) and isinstance(ip.data, (dpkt.tcp.TCP, dpkt.udp.UDP)):
            flow = FLOW.pack(ip.src, ip.data.sport, ip.dst, ip.data.dport)
        else:
            flow = bytes(FLOW.size)
        packet.prepend(FLOW.size)[:] = flow
        parsed.put(packet)


def tabulate(pool: ssm.Pool) -> None:
    flows = Counter(bytes(packet[: FLOW.size]) for packet in pool.ring("parsed"))
    for flow, packets in flows.most_common(10):
        source, source_port, destination, port = FLOW.unpack(flow)
        print(f"{packets:>8,}  {IPv4Address(source)}:{source_port} > {IPv4Address(destination)}:{port}")
    print(f"{flows.total():>8,}  packets in {len(flows):,} flows")


def main(path: str | None) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ssm.Pool.create("packet-lab", ephemeral=True) as pool:
        parsed = pool.ring("parsed")
        line = [spawn.Process(target=parse, args=(pool,)) for _ in range(2)]
        line.append(spawn.Process(target=read, args=(pool, path)))
        table = spawn.Process(target=tabulate, args=(pool,))
        for process in (*line, table):
            process.start()
        for process in line:
            process.join()
        parsed.shutdown()
        table.join()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
