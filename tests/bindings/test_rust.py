# SPDX-License-Identifier: Apache-2.0
"""bindings/rust: its own tests, and packets to a Rust process and back while that is killed, again and again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ssm
from tests.cmake import ROOT, build, run
from tests.isolation import cannot_run

pytestmark = pytest.mark.xdist_group("rust")
CRATE = ROOT / "bindings/rust"
BYTES = 64
BACK = 1 << 63  # a tag that came back


def cargo(*command: str) -> str:
    if not shutil.which("cargo"):
        cannot_run("cargo is not installed")
    library = build("release", ("ssm",))
    env = {
        "SSM_LIB_DIR": str(library),
        "CARGO_TARGET_DIR": str(ROOT / "build/rust"),
        "RUSTFLAGS": "-D warnings",
    }
    return run("cargo", *command, "--offline", "--locked", "--release", cwd=CRATE, env=env)


@pytest.fixture(scope="module")
def echo() -> Path:
    cargo("build", "--example", "echo")
    return ROOT / "build/rust/release/examples/echo"


def test_the_crate() -> None:
    assert "test result: ok. 6 passed" in cargo("test", "--tests")


@pytest.mark.parametrize(
    ("count", "kills"),
    [(20_000, 4), pytest.param(1_000_000, 100, marks=pytest.mark.slow)],
    ids=["some", "million"],
)
def test_packets_to_rust_and_back(
    echo: Path, make_pool: Callable[..., ssm.Pool], count: int, kills: int
) -> None:
    """Each packet comes back once, whatever the process that had it was doing when it was killed."""
    pool = make_pool(classes={512: 512})
    there = pool.ring("in", capacity=128, redeliver=True)
    back = pool.ring("out", capacity=128)
    sent, killed, came = 0, 0, bytearray(count)
    until = time.monotonic() + 20 + count / 2000
    process = subprocess.Popen([echo, pool.name])
    try:
        got = 0
        while got < count:
            assert time.monotonic() < until, f"{sent} packets sent, {got} came back, {killed} kills"
            room = min(32, count - sent, there.capacity - len(there))
            if room > 0:
                batch = pool.alloc_many(room, BYTES, timeout=10)
                for packet in batch:
                    packet.tag = sent
                    packet[:] = bytes(BYTES)
                    sent += 1
                del packet  # a second reference to the last one: Rust gives no slice of what others hold
                there.put_many(batch)
            try:
                arrived = back.get_many(64, timeout=0.01)
            except ssm.RingEmpty:
                continue
            for packet in arrived:
                assert packet.tag & BACK
                assert bytes(packet) == b"\x55" * BYTES
                came[packet.tag ^ BACK] += 1
                got += 1
            arrived.free()
            if killed < kills and got >= (killed + 1) * count // (kills + 1):
                process.send_signal(signal.SIGKILL)
                assert process.wait(30) == -signal.SIGKILL
                process = subprocess.Popen([echo, pool.name])
                killed += 1
        assert came == b"\x01" * count
        assert killed == kills
        there.shutdown()
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert pool.check() == []
