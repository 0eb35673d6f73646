# SPDX-License-Identifier: Apache-2.0
"""bindings/node: packets to a Node.js process and back, and one that it makes."""

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest

import ssm
from tests.cmake import ROOT, build, run


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the example, in a folder that has koffi."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("Node.js with npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "echo.js"):
        shutil.copy(ROOT / "bindings/node" / name, folder)
    try:  # koffi has its machine code in the package: no script of it needs to run
        run(npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", cwd=folder)
    except AssertionError as error:
        pytest.skip(f"npm cannot install koffi: {str(error).strip().splitlines()[-1]}")
    return [node, str(folder / "echo.js")]


def environment() -> dict[str, str]:
    return {**os.environ, "SSM_LIBRARY": str(build("release", ("ssm",)) / "libssm.so")}


def test_packets_to_node_and_back(echo: list[str], make_pool: Callable[..., ssm.Pool]) -> None:
    pool = make_pool(classes={512: 64})
    there, back = pool.ring("in", capacity=16), pool.ring("out", capacity=16)
    process = subprocess.Popen([*echo, pool.name], env=environment())
    try:
        for number in range(500):
            there.send(f"packet {number}".encode(), timeout=30)
            with back.get(timeout=30) as packet:
                assert bytes(packet) == f"PACKET {number}".encode()
        there.shutdown()
        with back.get(timeout=30) as packet:
            assert bytes(packet) == b"500 packets"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert pool.reap().processes == 0  # it has left by itself
    assert pool.check() == []


def test_a_node_process_that_is_killed_leaves_nothing(
    echo: list[str], make_pool: Callable[..., ssm.Pool]
) -> None:
    pool = make_pool(classes={512: 64})
    there, back = pool.ring("in", capacity=16), pool.ring("out", capacity=16)
    process = subprocess.Popen([*echo, pool.name], env=environment())
    try:
        there.send(b"first", timeout=30)
        back.get(timeout=30).free()  # it is attached, and waits for the next one
    finally:
        process.kill()
        process.wait()
    pool.reap()
    assert {holder.pid for holder in pool.holders()} == {os.getpid(), 0}  # 0: the rings
    assert pool.check() == []


def test_without_a_pool_it_says_so(echo: list[str]) -> None:
    command = [*echo, "ssm-is-not-there"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stderr) == (1, "ssm-is-not-there: No such file or directory\n")
