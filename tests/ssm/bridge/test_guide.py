# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/guide/hosts.md, typed into shells on two hosts: network namespaces with their own /dev/shm."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from tests.processes import PATIENCE_S, wait_until
from tests.ssm.bridge import two_hosts
from tests.ssm.bridge.test_carriers import needs_zmq

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "hosts.md"
COUNT = 500

SENDS = f"""
    for number in range({COUNT}):
        frames.send(number.to_bytes(8, "little"))
    frames.shutdown()
    input()
"""
TAKES = f"""
import ssm

with ssm.Pool.create("lab", ephemeral=True) as pool:
    frames = pool.ring("frames")
    for number in range({COUNT}):
        with frames.get(timeout=60) as packet:
            assert int.from_bytes(packet[:8], "little") == number, number
    try:
        frames.get(timeout=60)
    except ssm.RingShutDown:
        print("all of them, in their order")
"""


class Shell:
    """A shell on a host, in a folder of its own."""

    def __init__(self, inside: list[str], folder: Path) -> None:
        folder.mkdir()
        self.folder, self.printed = folder, folder / "printed"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self.printed.open("wb") as printed:
            self._process = subprocess.Popen(
                [*inside, "unshare", "--mount", "bash"],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | {"PATH": path},
                text=True,
                start_new_session=True,
            )
        self.type("mount -t tmpfs tmpfs /dev/shm && echo own memory")
        wait_until(lambda: self.has_printed("own memory"), "a /dev/shm of its own")

    def type(self, line: str) -> None:
        keys: IO[str] | None = self._process.stdin
        assert keys is not None
        keys.write(line + "\n")
        keys.flush()

    def has_printed(self, text: str) -> bool:
        return text in self.printed.read_text()

    def close(self) -> None:
        """End it, and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def shells(tmp_path: Path) -> Iterator[tuple[Shell, Shell]]:
    if shutil.which("ip") is None:
        pytest.skip("no ip command")
    made: list[Shell] = []
    try:
        with two_hosts.Hosts() as hosts:
            for host in (0, 1):
                where = f"10.0.0.{host + 1}/24"
                two_hosts.command(
                    "ip", "-n", hosts.names[host], "addr", "add", where, "dev", hosts.device(host, 1)
                )
            try:
                for host in (0, 1):
                    made.append(Shell(hosts.inside(host), tmp_path / f"lab{host + 1}"))
                yield made[0], made[1]
            finally:
                for shell in made:
                    shell.close()
    except two_hosts.NotPermitted as error:
        pytest.skip(str(error))


@needs_zmq
def test_the_two_commands(shells: tuple[Shell, Shell]) -> None:
    """As they stand there; all packets arrive, encrypted, and so does the shutdown."""
    text = GUIDE.read_text().partition("## Two commands")[2].partition("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    make_key, listen, connect = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    assert ("--listen" in listen, "--connect" in connect) == (True, True)
    lab1, lab2 = shells
    for shell, key in ((lab1, "lab1"), (lab2, "lab2")):
        shell.type(make_key.replace("lab1", key))
        wait_until((shell.folder / f"{key}.key_secret").exists, "a key")
        wait_until((shell.folder / f"{key}.key").exists, "a public key")
    shutil.copy(lab1.folder / "lab1.key", lab2.folder)
    shutil.copy(lab2.folder / "lab2.key", lab1.folder)
    (lab1.folder / "program.py").write_text(textwrap.dedent(program).rstrip() + SENDS)
    (lab2.folder / "program.py").write_text(TAKES)
    lab1.type("sleep 1000 | python program.py &")
    lab2.type("python program.py &")
    lab1.type(f"{listen} &")
    lab2.type(f"{connect} &")
    wait_until(lambda: lab2.has_printed("all of them"), f"{COUNT} packets: {lab1.printed.read_text()}")
