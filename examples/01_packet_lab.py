# SPDX-License-Identifier: Apache-2.0
"""A packet lab on one page: a reader, two parsers and a flow table, each its own process.

    python 01_packet_lab.py [CAPTURE.pcap] [--kill] [--top]

The reader copies each frame once, behind room for its flow. The parsers decode it where it lies, with dpkt, and write
the flow in front; the table counts flows. With --kill one parser is killed on the way: what it had is delivered once
more, so the table is the same. With --top the pool is watched meanwhile, as by `ssm top packet-lab` in another
terminal. `ssm demo` is the same with batches, checks and a verdict.
"""

import argparse
import multiprocessing
import signal
import struct
import subprocess
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
        packet = pool.alloc(FLOW.size + len(frame), timeout=None)
        packet[FLOW.size :] = frame
        frames.put(packet)
    frames.shutdown()


def parse(pool: ssm.Pool) -> None:
    parsed = pool.ring("parsed")
    for packet in pool.ring("frames"):  # until it is shut down and drained
        packet[: FLOW.size] = flow_of(memoryview(packet)[FLOW.size :])  # where a killed parser may have, too
        parsed.put(packet)


def flow_of(frame: memoryview) -> bytes:
    ip = dpkt.ethernet.Ethernet(frame).data
    if isinstance(ip, dpkt.ip.IP) and isinstance(ip.data, (dpkt.tcp.TCP, dpkt.udp.UDP)):
        return FLOW.pack(ip.src, ip.data.sport, ip.dst, ip.data.dport)
    return bytes(FLOW.size)


def tabulate(pool: ssm.Pool) -> None:
    flows = Counter(bytes(packet[: FLOW.size]) for packet in pool.ring("parsed"))
    for flow, packets in flows.most_common(10):
        source, source_port, destination, port = FLOW.unpack(flow)
        print(f"{packets:>8,}  {IPv4Address(source)}:{source_port} > {IPv4Address(destination)}:{port}")
    print(f"{flows.total():>8,}  packets in {len(flows):,} flows")


def main(path: str | None, *, kill: bool, top: bool) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ssm.Pool.create("packet-lab", ephemeral=True) as pool:
        parsed = pool.ring("parsed")
        pool.ring("frames", redeliver=True)
        parsers = [spawn.Process(target=parse, args=(pool,)) for _ in range(2)]
        reader = spawn.Process(target=read, args=(pool, path))
        table = spawn.Process(target=tabulate, args=(pool,))
        if top:
            command = [sys.executable, "-m", "ssm", "top", "packet-lab"]
            subprocess.run(
                [*command, "--count", "1"], check=True
            )  # a short capture is over before the next look
            screen = subprocess.Popen([*command, "--interval", "0.2"])
        for process in (*parsers, reader, table):
            process.start()
        if kill:
            while pool.stats().rings[0].gets < 10 and parsers[0].is_alive():
                pass
            parsers[0].kill()
        for process in (*parsers, reader):
            process.join()
        if kill:
            parse(pool)  # what came back when the other parser had ended already
        parsed.shutdown()
        table.join()
        if top:
            screen.send_signal(signal.SIGINT)  # as Ctrl-C
            screen.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("capture", nargs="?")
    arguments.add_argument("--kill", action="store_true")
    arguments.add_argument("--top", action="store_true")
    chosen = arguments.parse_args()
    main(chosen.capture, kill=chosen.kill, top=chosen.top)
