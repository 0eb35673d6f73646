# SPDX-License-Identifier: Apache-2.0
"""The RMID allocator in the running kernel: built for BPF, verified, run; see bpf/."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.isolation import cannot_run

HERE = Path(__file__).parent / "bpf"
CORE = Path(__file__).resolve().parents[2] / "allocators" / "src"
CANNOT = 77  # the loader's exit code where programs cannot be loaded
COMPILERS = {"c11": ["gcc", "-std=c11", "-x", "c"], "c++17": ["g++", "-std=c++17", "-x", "c++"]}

INCLUDES = [f"-I{CORE}", f"-I/usr/include/{platform.machine()}-linux-gnu"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def build(*command: str | Path) -> None:
    done = run(*command)
    assert done.returncode == 0, f"{done.args}:\n{done.stderr}"


def test_in_the_kernel(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        cannot_run("clang is not installed")
    compiler = shutil.which("cc") or "clang"
    if run(compiler, "-E", "-include", "bpf/libbpf.h", "-x", "c", "/dev/null").returncode != 0:
        cannot_run("libbpf's headers are not installed (libbpf-dev)")
    if os.geteuid() != 0:
        cannot_run("loading BPF programs needs root")

    program, loader = tmp_path / "rmid.bpf.o", tmp_path / "rmid_loader"
    warnings = ["-O2", "-g", "-Wall", "-Wextra", "-Werror"]
    build(
        "clang", "-target", "bpf", "-mcpu=v3", *warnings, *INCLUDES, "-c", HERE / "rmid.bpf.c", "-o", program
    )
    build(compiler, *warnings, "-std=gnu11", *INCLUDES, HERE / "rmid_loader.c", "-o", loader, "-lbpf")

    done = run(loader, program)
    if done.returncode == CANNOT:
        cannot_run(f"the kernel does not take BPF programs here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: ") == 8


@pytest.mark.parametrize("standard", COMPILERS)
def test_compiles_unchanged(standard: str) -> None:
    compiler, *options = COMPILERS[standard]
    if shutil.which(compiler) is None:
        cannot_run(f"{compiler} is not installed")
    build(compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", *options, "-fsyntax-only", CORE / "rmid.h")
