# SPDX-License-Identifier: Apache-2.0
"""The Python code in README.md and docs runs, as it stands there. Each block is a script of its own."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.pages import FENCE, ROOT, run_script

RUN_ELSEWHERE = {"cookbook.md"}  # tests/test_cookbook.py


class Block(NamedTuple):
    """A block of code in a document."""

    file: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def blocks_of(file, text):
    for match in FENCE.finditer(text):
        if match["info"].split()[:1] == ["python"]:
            yield Block(file, text.count("\n", 0, match.start("body")) + 1, match["body"])


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


BLOCKS = [
    block
    for file in documents()
    if file.name not in RUN_ELSEWHERE
    for block in blocks_of(file, file.read_text())
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.xdist_group("documents")  # two blocks may use the same pool name
def test_block_runs(block, tmp_path):
    if '"zmq"' in block.code:
        pytest.importorskip("zmq", reason="pyzmq is not installed")
    run_script(block.code, block.line, tmp_path)


def test_the_readme_has_runnable_code():
    assert any(block.file.name == "README.md" for block in BLOCKS)


def test_finding_blocks():
    text = "\n".join(
        [
            "```python",
            "a = 1",
            "```",
            "```sh",
            "c",
            "```",
            "````python title=x",
            "d = '''",
            "```",
            "'''",
            "````",
        ]
    )
    found = list(blocks_of(ROOT / "x.md", text))
    assert [b.code for b in found] == ["a = 1\n", "d = '''\n```\n'''\n"]
    assert [b.line for b in found] == [2, 8]


def test_what_a_package_index_shows_needs_no_repository():
    """Its links would lead nowhere there; its program is that of the README."""
    described = (ROOT / tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"]).read_text()
    links = re.findall(r"\]\(([^)]*)\)", described)
    assert [link for link in links if not link.startswith("https://")] == []
    program = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert program in described


def test_pictures_are_there_and_load_nothing():
    for page in documents():
        for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text()):
            if name.endswith(".png"):  # of pixels, which load nothing
                assert (page.parent / name).read_bytes().startswith(b"\x89PNG\r\n")
                continue
            picture = (page.parent / name).read_text()
            assert "@font-face" not in picture
            assert not re.search(r"(href|src|url)\W{1,3}https?:", picture)
