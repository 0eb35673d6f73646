# SPDX-License-Identifier: Apache-2.0
"""Each recipe of the cookbook runs; one whose library is missing is skipped, and says which.

`make cookbook` runs them where the libraries are.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess

import pytest

import ssm
from tests.pages import ROOT, blocks_of, run_script

PAGE = ROOT / "docs" / "cookbook.md"
BLOCKS = list(blocks_of(PAGE))
HEADINGS = [
    (number, line[3:])
    for number, line in enumerate(PAGE.read_text().splitlines(), 1)
    if line.startswith("## ")
]
LINES = {"python": range(5, 28), "c": range(5, 35)}  # of a recipe


def title_of(block) -> str:
    return [title for number, title in HEADINGS if number < block.line][-1]


def recipe(title: str) -> str:
    (found,) = (block for block in BLOCKS if title_of(block).startswith(title))
    return found.text


def missing(code: str) -> list[str]:
    """Return the libraries that it imports and that are not installed."""
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(code))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    return sorted(name for name in imported if importlib.util.find_spec(name) is None)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "python"], ids=title_of)
def test_recipe(block, tmp_path):
    if absent := missing(block.text):
        pytest.skip(f"not installed: {', '.join(absent)}")
    run_script(block.text, block.line + 1, tmp_path)


def test_there_are_twenty_short_ones():
    assert len(HEADINGS) >= 20
    assert [title_of(block) for block in BLOCKS] == [title for _, title in HEADINGS], "one block a recipe"
    for block in BLOCKS:
        code = [line for line in block.text.splitlines() if line.strip()]
        assert len(code) in LINES.get(block.kind, range(5, 25)), f"{title_of(block)}: {len(code)} lines"
        assert max(map(len, code)) <= 120, title_of(block)


def test_the_pod_is_one():
    """By the schema of Kubernetes; and the memory of the pool is within what the containers may use."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    yaml = pytest.importorskip("yaml")
    pod = yaml.safe_load(recipe("Kubernetes"))
    validate.validate(pod, validate.latest_version(), strict=True)
    (volume,) = pod["spec"]["volumes"]
    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Mi"))
    for container in pod["spec"]["containers"]:
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/dev/shm"}]
        assert size < int(container["resources"]["limits"]["memory"].removesuffix("Mi"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_unit_is_one(tmp_path):
    unit = tmp_path / "ssm-cookbook-video.service"
    unit.write_text(recipe("systemd"))
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    said = [line for line in checked.stderr.splitlines() if unit.name in line]
    if checked.returncode and not said:
        pytest.skip(f"systemd-analyze does not work here: {checked.stderr.strip()}")
    assert said == []


def test_gstreamer_gives_five_frames(tmp_path, name):
    """Compiled with the library of this source tree."""
    wanted = "gstreamer-app-1.0"
    pkg_config = shutil.which(
        "pkg-config", path=os.defpath
    )  # the system's: one of pip's knows no libraries of Debian
    if pkg_config is None or subprocess.run([pkg_config, "--exists", wanted]).returncode:
        pytest.skip(f"not installed: {wanted}")
    library = next((ROOT / "build").glob("*/libssm.so"), None)
    if library is None:
        pytest.skip(
            "the C library is not built: cmake --preset release, cmake --build --preset release --target ssm"
        )
    source, program = tmp_path / "frames.c", tmp_path / "frames"
    source.write_text(recipe("GStreamer"))
    flags = subprocess.run(
        [pkg_config, "--cflags", "--libs", wanted], capture_output=True, text=True, check=True
    )
    include, link = f"-I{ROOT}/ssm/src", [library, f"-Wl,-rpath,{library.parent}"]
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-o", program, source, include, *flags.stdout.split(), *link],
        check=True,
    )
    with ssm.Pool.create(name, sizes={320 * 240: 8}, ephemeral=True) as pool:
        frames = pool.ring("frames")
        subprocess.run([program, name], check=True, timeout=60)
        assert [len(packet) for packet in frames.get_many(9)] == [320 * 240] * 5
