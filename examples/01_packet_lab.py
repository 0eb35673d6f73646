# SPDX-License-Identifier: Apache-2.0
"""A capture through three stages, with flows counted: python 01_packet_lab.py [CAPTURE.pcap] [--kill]

The parsers decode each frame where it lies, and write its flow over the Ethernet addresses, which are as long. With
--kill one of them is killed and replaced, what it had comes again, and the table is the same. `ssm run FILE CAPTURE`
shows how the stages work; `ssm demo` is the same with batches, checks and a verdict.
"""

import os
import signal
import sys
from collections import Counter
from io import BytesIO
from ipaddress import IPv4Address
from pathlib import Path

import dpkt

import ssm

MADE_UP = [(0, dpkt.ethernet.Ethernet(data=dpkt.ip.IP(p=17, data=dpkt.udp.UDP(dport=53))))] * 1000
pipe = ssm.Pipeline("packet-lab")
frames, parsed = pipe.ring("frames"), pipe.ring("parsed")


@pipe.source(frames)
def read(path=None):
    capture = dpkt.pcap.Reader(BytesIO(Path(path).read_bytes())) if path else MADE_UP
    yield from (bytes(frame) for _, frame in capture)


@pipe.stage(frames, parsed, workers=2)
def parse(packet):
    ip = dpkt.ethernet.Ethernet(memoryview(packet)).data
    if not isinstance(ip, dpkt.ip.IP) or not isinstance(ip.data, dpkt.tcp.TCP | dpkt.udp.UDP):
        return None  # it ends here
    packet[:12] = ip.src + ip.dst + bytes(ip.data)[:4]  # which are the ports
    return packet  # the same: no copy


@pipe.sink(parsed)
class Table(Counter):
    def __call__(self, packet):
        self[bytes(packet[:12])] += 1

    def close(self):
        return Counter(self)


if __name__ == "__main__":
    with pipe.start(*(given for given in sys.argv[1:] if given != "--kill")) as run:
        if "--kill" in sys.argv:
            os.kill(run.pids("parse")[0], signal.SIGKILL)
        report = run.wait()
    assert report.exact, report
    (flows,) = report.results["Table"]
    for flow, packets in flows.most_common(10):
        port, other = int.from_bytes(flow[8:10]), int.from_bytes(flow[10:])
        print(f"{packets:>8,}  {IPv4Address(flow[:4])}:{port} > {IPv4Address(flow[4:8])}:{other}")
    print(f"{flows.total():>8,}  packets in {len(flows):,} flows")
    print(f"{report.stages['parse'].killed:>8,}  parsers killed")
