# SPDX-License-Identifier: Apache-2.0
"""Completion, asked for as the shells themselves do it."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S

ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "dumb"}

BASH = """
eval "$(ssm completion bash)"
COMP_LINE={line} COMP_POINT={length} COMP_TYPE=63 COMP_KEY=9 COMP_WORDBREAKS=$' \t\n"'
_python_argcomplete ssm
printf '%s\n' "${{COMPREPLY[@]}}"
"""
FISH = "ssm completion fish | source; complete --do-complete {line}"


def complete(shell, line):
    """What the shell offers behind the line."""
    code = {"bash": BASH, "fish": FISH}[shell].format(line=shlex.quote(line), length=len(line))
    command = [shell, "--noprofile", "-c", code] if shell == "bash" else [shell, "--no-config", "-c", code]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    return [offer.split("\t")[0].strip() for offer in done.stdout.split("\n") if offer]


@pytest.fixture(params=["bash", "fish"])
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_commands_pools_and_rings(shell, pool):
    pool.ring("frames")
    name = pool.name.removeprefix("/")
    assert complete(shell, "ssm unl") == ["unlink"]
    assert complete(shell, f"ssm top {name[:-1]}").count(name) == 1
    assert complete(shell, f"ssm dump {name} fra") == ["frames"]
    assert complete(shell, f"ssm record {name}-is-not-there fra") == []


def test_zsh_at_its_prompt(tmp_path):
    """It has no way to ask but to type."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], ENVIRONMENT | {"HOME": str(tmp_path)})
    try:
        os.write(terminal, b'autoload compinit; compinit -u; eval "$(ssm completion zsh)"; echo rea""dy\n')
        assert read_until(terminal, r"^ready")
        os.write(terminal, b"echo ssm; ssm unl\t--help\n")
        assert read_until(terminal, r"usage: ssm unlink")
    finally:
        os.write(terminal, b"\x03exit\n")
        read_until(terminal, r"\Z(?!)")
        os.close(terminal)
        os.waitpid(pid, 0)


def read_until(terminal, pattern):
    """Whether the terminal showed it before it was closed, or time was up."""
    text, end = "", time.monotonic() + PATIENCE_S
    while not re.search(pattern, text, re.MULTILINE) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                text += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                return False
    return time.monotonic() < end


@pytest.mark.parametrize("shell_name", ["tcsh", ""])
def test_other_shells_are_refused(shell_name):
    command = [sys.executable, "-m", "ssm", "completion", shell_name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert "bash" in done.stderr
