# SPDX-License-Identifier: Apache-2.0
"""Processes have names: what `ssm holders`, `ssm top`, warnings and errors call them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import cli, labels
from tests.processes import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes import Children


def names(pool: ssm.Pool) -> dict[int, str]:
    """Return the processes of the pool: pid -> name."""
    return {holder.pid: holder.name for holder in pool.holders() if holder.kind == "process"}


def test_a_label_is_seen_by_others(new_name: Callable[[], str], capsys: pytest.CaptureFixture[str]) -> None:
    with ssm.Pool.create(new_name(), classes={512: 1}, label="camera 1") as pool:
        with ssm.Pool.attach(pool.name, readonly=True, label="looks only") as watcher:
            assert names(watcher) == {os.getpid(): "camera 1"}
            assert watcher.label == "looks only"
        assert cli.main(["holders", pool.name]) == 0
        packet = pool.alloc(1)
        with pytest.raises(ssm.PoolExhausted, match=r"1 by process 'camera 1' \(pid"):
            pool.alloc(1)
        packet.free()
        pool.label = "camera 2"
        assert names(pool) == {os.getpid(): "camera 2"}
        assert pool.usage()[0].name == "camera 2"
        assert pool.semaphore("gpu", 1).acquire()
        assert pool.semaphore("gpu", 1).owned()[0][1].name == "camera 2"
        pool.unlink()
    assert "camera 1" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["", "x" * 48, "é" * 24, "a\0b"])
def test_a_label_that_cannot_be(new_name: Callable[[], str], label: str) -> None:
    name = new_name()
    with pytest.raises(ValueError, match=r"a label has 1 \.\. 47 bytes"):
        ssm.Pool.create(name, classes={512: 1}, label=label)
    with pytest.raises(FileNotFoundError):
        ssm.Pool.attach(name)


def test_the_longest_label(pool: ssm.Pool) -> None:
    pool.label = "é" * 23 + "x"
    assert names(pool) == {os.getpid(): "é" * 23 + "x"}


def look(talk: Any, pool: ssm.Pool, rename: bool) -> None:
    """Say what this process is called, as others see it, before and after it did something."""
    if rename:
        pool.label = "renamed"
    pool.alloc(1).free()
    talk.send((os.getpid(), names(pool), pool.label))
    talk.recv()


@pytest.mark.parametrize("rename", [False, True])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_has_the_name_of_its_process(
    pool: ssm.Pool, children: Children, method: str, rename: bool
) -> None:
    pool.label = "parent"
    child = children.start(look, pool, rename, method=method)
    pid, seen, label = child.hear()
    expected = "renamed" if rename else child.process.name
    assert re.fullmatch("renamed|.*Process-[0-9]+", expected)
    assert seen == {os.getpid(): "parent", pid: expected}
    assert label == expected
    child.say()
    child.result()


def test_a_child_of_os_fork_has_a_label_of_its_own(pool: ssm.Pool) -> None:
    pool.label = "parent"
    inside, outside = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool.alloc(1).free()
            said = [pool.label, names(pool)[os.getpid()]]
            pool.label = "child"
            os.write(outside, json.dumps([*said, names(pool)[os.getpid()]]).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert json.loads(os.read(inside, 1000)) == [*2 * [labels.default()], "child"]
    assert pool.label == names(pool)[os.getpid()] == "parent"
    os.close(inside)
    os.close(outside)


CODE = """
import os, ssm
with ssm.Pool.create(f"label-{os.getpid()}", classes={256: 1}, ephemeral=True) as pool:
    print(pool.label, *[holder.name for holder in pool.holders()])
"""


def test_without_a_label_it_is_the_name_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "camera.py").write_text(CODE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(CODE)
    long = tmp_path / f"{'x' * 45}éé.py"
    long.write_text(CODE)
    for arguments, label in (
        (["camera.py"], "camera.py"),
        (["-m", "camera"], "camera.py"),
        (["-m", "package"], "package"),
        (["package"], "package"),
        (["-c", CODE], "python"),
        ([str(long)], "x" * 45 + "é"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert done.stdout == f"{label} {label}\n"


def test_names_that_nobody_has() -> None:
    assert labels._cut("") == "python"
    assert labels._cut("é" * 30) == "é" * 23
