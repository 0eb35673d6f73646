# SPDX-License-Identifier: Apache-2.0
"""examples/c: a producer in C feeds this process, which checks every byte that counts."""

import subprocess
import zlib
from collections.abc import Callable

import pytest

import ssm
from tests.cmake import build

COUNT = 10_000


def test_c_producer_feeds_python_consumer(make_pool: Callable[..., ssm.Pool]) -> None:
    producer = build() / "examples/c/producer"
    pool = make_pool(classes={512: 64, 2048: 256})
    frames = pool.ring("frames", capacity=128)
    with subprocess.Popen([producer, pool.name, str(COUNT)]) as process:
        numbers = []
        while len(numbers) < COUNT:
            with frames.get(timeout=30) as packet:
                data = bytes(packet)
                assert zlib.adler32(data[:-4]) == int.from_bytes(data[-4:], "little")
                assert packet.tag == int.from_bytes(data[:8], "little")
                numbers.append(packet.tag)
        with pytest.raises(ssm.RingShutDown):
            frames.get(timeout=30)
        assert process.wait(30) == 0
    assert numbers == list(range(COUNT))
    assert pool.check() == []


def test_c_producer_without_a_pool_says_so() -> None:
    command = [build() / "examples/c/producer", "/ssm-is-not-there", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "/ssm-is-not-there: No such file or directory\n")
