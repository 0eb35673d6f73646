# SPDX-License-Identifier: Apache-2.0
"""A packet lab on one page: a pipeline of a reader, two parsers and a flow table, each its own process.

    python 01_packet_lab.py [CAPTURE.pcap] [--kill] [--top]

The reader copies each frame once, behind room for its flow. The parsers decode it where it lies, with dpkt, and write
the flow in front; the table counts flows. With --kill one parser is killed on the way and replaced: what it had is
delivered once more, so the table is the same. With --top the pool is watched meanwhile, as by `ssm top` in another
terminal. `ssm demo` is the same with batches, checks and a verdict.
"""

import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import dpkt

import ssm
from ssm.pipeline import current_worker

FLOW = struct.Struct("!4sH4sH")  # source, port, destination, port

pipe = ssm.Pipeline("packet-lab")
frames, parsed = pipe.ring("frames"), pipe.ring("parsed")


def frames_of(path):
    if path is not None:
        with Path(path).open("rb") as file:
            yield from (frame for _, frame in dpkt.pcap.Reader(file))
        return
    for number in range(1000):
        udp = dpkt.udp.UDP(sport=5000 + number % 7, dport=53, data=b"made up")
        addresses = {"src": b"\xc0\x00\x02\x01", "dst": b"\xc0\x00\x02\x02"}
        yield bytes(dpkt.ethernet.Ethernet(data=dpkt.ip.IP(p=dpkt.ip.IP_PROTO_UDP, data=udp, **addresses)))


@pipe.source(frames)
def read(path):
    for frame in frames_of(path):
        packet = current_worker().alloc(FLOW.size + len(frame))
        packet[FLOW.size :] = frame
        yield packet


@pipe.stage(frames, parsed, workers=2)
def parse(packet):
    ip = dpkt.ethernet.Ethernet(memoryview(packet)[FLOW.size :]).data
    known = isinstance(ip, dpkt.ip.IP) and isinstance(ip.data, (dpkt.tcp.TCP, dpkt.udp.UDP))
    packet[: FLOW.size] = (
        FLOW.pack(ip.src, ip.data.sport, ip.dst, ip.data.dport) if known else bytes(FLOW.size)
    )
    return packet  # the same: no copy


@pipe.sink(parsed)
class Table:
    def __init__(self):
        self.flows = Counter()

    def __call__(self, packet):
        self.flows[bytes(packet[: FLOW.size])] += 1

    def close(self):
        return self.flows


def main(path, options):
    with pipe.start(path) as running:
        if "--top" in options:
            subprocess.run(
                [sys.executable, "-m", "ssm", "top", running.pool.name, "--count", "1"], check=True
            )
        if "--kill" in options:
            os.kill(running.pids("parse")[0], signal.SIGKILL)
        report = running.wait()
    assert report.exact, report
    (flows,) = report.results["Table"]
    for flow, packets in flows.most_common(10):
        source, source_port, destination, port = FLOW.unpack(flow)
        print(f"{packets:>8,}  {IPv4Address(source)}:{source_port} > {IPv4Address(destination)}:{port}")
    print(f"{flows.total():>8,}  packets in {len(flows):,} flows")
    if killed := report.stages["parse"].killed:
        print(f"{killed:>8,}  parser killed by SIGKILL, {report.redelivered} packets delivered once more")


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    main(given[0] if given else None, sys.argv[1:])
