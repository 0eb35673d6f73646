# SPDX-License-Identifier: Apache-2.0
"""docs/map.md has a place for each source file, once, and names no file that is not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {  # heading, up to its first colon or comma -> the folder that its table is about
    "The C core": "ssm/src",
    "The Python package": "ssm",
    "The package `allocators`": "allocators",
}
WHOLE = (  # as one row
    "ssm/bridge",
    "ssm/commands",
    "ssm/captures",
    "ssm/demo",
    "ssm/pipeline",
    "ssm/web",
    "allocators/bpf",
    "allocators/src/binding",
)
SOURCES = {".c", ".h", ".hpp", ".py"}


def on_the_map() -> Counter[str]:
    """Return the files that the tables name, as paths, and how often."""
    found: Counter[str] = Counter()
    top, folder = "", ""
    for line in (ROOT / "docs/map.md").read_text().splitlines():
        if line.startswith("## "):
            top = folder = next((path for title, path in FOLDERS.items() if line[3:].startswith(title)), "")
        elif line.startswith("### `"):
            folder = f"{top}/{line.split('`')[1].rstrip('/')}"
        elif folder and line.startswith(("| `", "The public header is")):
            names = line.split("|")[1] if line.startswith("|") else line.split(". ")[0]
            found.update(f"{folder}/{name.rstrip('/')}" for name in re.findall(r"`([^`]+)`", names))
    return found


def there() -> set[str]:
    """Return the source files of both packages, and the folders that are one row."""
    files = {
        str(path.relative_to(ROOT))
        for package in ("ssm", "allocators")
        for path in (ROOT / package).rglob("*")
        if path.suffix in SOURCES and "__pycache__" not in path.parts
    }
    return {file for file in files if not file.startswith(tuple(f"{whole}/" for whole in WHOLE))} | set(WHOLE)


def test_each_file_is_on_the_map_once() -> None:
    """A new file gets a row; a file that is gone loses it."""
    found = on_the_map()
    assert {name: count for name, count in found.items() if count > 1} == {}
    assert there() - set(found) == set(), "files without a row in docs/map.md"
    assert set(found) - there() == set(), "rows of docs/map.md without a file"


def test_the_folders_of_the_rest_are_there() -> None:
    """Each folder of the last table exists."""
    table = (ROOT / "docs/map.md").read_text().split("## Tests and the rest")[1]
    folders = [
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert len(folders) > 8
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
