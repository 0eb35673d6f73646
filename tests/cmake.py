# SPDX-License-Identifier: Apache-2.0
"""C builds for tests, made once whichever worker asks first."""

import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | os.PathLike[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run a command; its output, both streams together. AssertionError with all of it when it fails."""
    tools = Path(sys.executable).parent  # cmake, ninja and pkgconf live beside the interpreter
    path = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a sanitizer's
    done = subprocess.run(
        list(map(os.fspath, command)),
        cwd=cwd,
        env={**inherited, **path, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@functools.cache
def build(preset: str = "release", targets: Sequence[str] = ("all",)) -> Path:
    """Build a preset of CMakePresets.json and return its build directory."""
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    with (folder / f"{preset}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("cmake", "--preset", preset)
        run("cmake", "--build", "--preset", preset, "--target", *targets)
    return folder / preset
