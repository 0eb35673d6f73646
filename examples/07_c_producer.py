# SPDX-License-Identifier: Apache-2.0
"""A producer in C, a consumer in Python, one pool.

    python 07_c_producer.py [COUNT]

Builds examples/c/producer.c with CMake, against the C library of this source tree, and starts it on a pool of its own;
every packet carries a checksum, which is looked at where the packet lies.
"""

import subprocess
import sys
import time
import zlib
from pathlib import Path

import ssm

SOURCE = Path(__file__).resolve().parent.parent
BUILD = SOURCE / "build" / "c-producer"  # stays: the second time it is there already


def build() -> Path:
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DSSM_TESTS=OFF"]
    subprocess.run(["cmake", "-S", SOURCE, "-B", BUILD, *options], **quiet)
    subprocess.run(["cmake", "--build", BUILD, "--target", "producer"], **quiet)
    return BUILD / "examples" / "c" / "producer"


def main(count: int) -> None:
    producer = build()
    with ssm.Pool.create("c-producer", classes={512: 64, 2048: 1024}, ephemeral=True) as pool:
        ring = pool.ring("frames")
        start = time.perf_counter()
        with subprocess.Popen([producer, pool.name, str(count)]):
            for number, packet in enumerate(ring):
                body, checksum = memoryview(packet)[:-4], int.from_bytes(packet[-4:], "little")
                assert zlib.adler32(body) == checksum
                assert packet.tag == number
        seconds = time.perf_counter() - start
    print(f"{number + 1:,} packets from C, every checksum right, {(number + 1) / seconds:,.0f} packets/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
