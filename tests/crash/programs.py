# SPDX-License-Identifier: Apache-2.0
"""The programs of this folder: built once, run, and skipped with the reason where the kernel does not let them."""

from __future__ import annotations

import os
import platform
import subprocess

import pytest

from tests.cmake import build

CANNOT_RUN = 77  # exit status of a program that says why
BUGS = 30  # of ssm/src/platform/seed_bug.h
FOUND_BY_SOAK = frozenset({12})  # it needs processes that run at the same time; the killer finds the others


def cannot_run(reason: str) -> None:
    """Skip; where SSM_CI=1 says that everything runs, fail."""
    if os.environ.get("SSM_CI") == "1":
        pytest.fail(f"the crash tests cannot run: {reason}, and SSM_CI=1 says that they do here")
    pytest.skip(f"the crash tests cannot run: {reason}")


def run(name: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of one of the programs."""
    if platform.machine() not in ("x86_64", "AMD64"):
        cannot_run("the killer sets hardware breakpoints as x86-64 has them")
    program = build(targets=(name,)) / "tests" / "crash" / name
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout)
    if done.returncode == CANNOT_RUN:
        cannot_run(done.stdout.strip().splitlines()[-1])
    return done.returncode, done.stdout
