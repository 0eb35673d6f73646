# SPDX-License-Identifier: Apache-2.0
"""bindings/go: packets to a Go process and back."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ssm
from tests.cmake import ROOT, build, run
from tests.isolation import cannot_run


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("go"):
        cannot_run("go is not installed")
    library = build("release", ("ssm",))
    program = tmp_path_factory.mktemp("go") / "echo"
    env = {
        "CGO_CFLAGS": f"-I{ROOT / 'ssm/src'}",
        "CGO_LDFLAGS": f"-L{library} -lssm -Wl,-rpath,{library}",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOCACHE": str(ROOT / "build/go"),
    }
    run("go", "build", "-o", program, ".", cwd=ROOT / "bindings/go", env=env)
    return program


def test_packets_to_go_and_back(echo: Path, make_pool: Callable[..., ssm.Pool]) -> None:
    pool = make_pool(classes={512: 64})
    there, back = pool.ring("in", capacity=16), pool.ring("out", capacity=16)
    process = subprocess.Popen([echo, pool.name])
    try:
        for number in range(1000):
            there.send(f"packet {number}".encode(), timeout=30)
            with back.get(timeout=30) as packet:
                assert bytes(packet) == f"PACKET {number}".encode()
        there.shutdown()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert pool.check() == []


def test_without_a_pool_it_says_so(echo: Path) -> None:
    done = subprocess.run([echo, "ssm-is-not-there"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "ssm-is-not-there: No such file or directory\n")
