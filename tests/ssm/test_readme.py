# SPDX-License-Identifier: Apache-2.0
"""The Python code in README.md and docs runs, as it stands there. Each block is a script of its own."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)
POOL_NAME = re.compile(r"""Pool\.(?:create|open|attach)\(\s*["']/?([^"']+)["']""")


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
            yield Block(file, text.count("\n", 0, match.start("code")) + 1, match["code"])


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


BLOCKS = [block for file in documents() if file.exists() for block in blocks_of(file, file.read_text())]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.xdist_group("documents")  # two blocks may use the same pool name
def test_block_runs(block, tmp_path):
    script = tmp_path / "block.py"
    script.write_text("\n" * (block.line - 1) + block.code)  # tracebacks name the document's line
    names = set(POOL_NAME.findall(block.code))
    taken = [name for name in names if Path("/dev/shm", name).exists()]
    if taken:
        pytest.skip(f"somebody has a pool named {taken}")
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    left = [name for name in names if Path("/dev/shm", name).exists()]
    for name in left:
        Path("/dev/shm", name).unlink()
    assert run.returncode == 0, f"{block}\n{run.stderr}"
    assert run.stderr == "", str(block)
    assert left == [], f"{block} leaves {left} in /dev/shm"


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
