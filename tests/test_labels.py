# SPDX-License-Identifier: Apache-2.0
"""Labels of lock-free edges and of invariants: the C code, docs/design.md and the models agree.

An edge has a label at each end: R1 -> A1. In the code the label begins a comment beside the operation, or above it,
and the operation's name has its memory order. In docs/design.md the table "Every lock-free edge" names, per label, the
functions, the operations and their orders. In tests/model the label stands beside the operation of the model. A label,
a function or an order that one of the three has, and another has not, fails here.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.model import weaken
from tests.model.test_weak_memory import SCENES
from tests.model.weaken import BEGINS_WITH_LABELS, LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CORE, ALLOCATORS, MODELS = ROOT / "ssm/src", ROOT / "allocators/src", ROOT / "tests/model"
DESIGN = ROOT / "docs/design.md"

# An operation of ssm/src/platform/atomic.h or eventcount.h, as the table says it.
PHRASES = {
    "load_relaxed": "relaxed load",
    "load_acquire": "acquire load",
    "store_relaxed": "relaxed store",
    "store_release": "release store",
    "exchange_acqrel": "exchange",
    "cas_acqrel": "compare-and-swap",
    "add_acqrel": "addition",
    "or_acqrel": "or",
    "and_acqrel": "and",
    "fence_light": "light fence",
    "fence_seqcst": "full fence",
    "fence_acquire": "acquire fence",
    "fence_release": "release fence",
    "membarrier": "membarrier",
}
# The same in the models. A light fence is the compiler's alone there, or a full one where its process pays itself.
IN_MODELS = {
    "relaxed load": "load RLX",
    "acquire load": "load ACQ",
    "relaxed store": "store RLX",
    "release store": "store REL",
    "exchange": "rmw AR",
    "compare-and-swap": "rmw AR",
    "addition": "rmw AR",
    "or": "rmw AR",
    "and": "rmw AR",
    "light fence": "fence_seqcst",
    "full fence": "fence_seqcst",
    "acquire fence": "fence ACQ",
    "release fence": "fence REL",
    "membarrier": "membarrier",
}

NO_LABEL = {"C11", "C17"}  # the language
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
CALL = re.compile(r"\b([A-Za-z_]\w*)\(")
ATOMIC = re.compile(r"ssm_([a-z]+_[a-z]+)_u(?:32|64)$")
FUNCTION = re.compile(r"^(?![#}/])(?=\w)[^;=]*?\b(\w+)\(", re.MULTILINE)


class Operation(NamedTuple):
    what: str  # of PHRASES
    word: str  # the field; of a fence, nothing


class Place(NamedTuple):
    where: str  # file:line
    function: str
    labels: tuple[str, ...]
    statement: str


class Function(NamedTuple):
    start: int
    name: str
    body: str


# ---- the code --------------------------------------------------------------------------------------


@cache
def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.[ch]") if path.parent.name != "binding")


def root_of(path: Path) -> Path:
    """The folder of all sources that a source is one of; a copy of a test's own is flat."""
    return next((root for root in (CORE, ALLOCATORS) if path.is_relative_to(root)), path.parent)


@cache
def blanked(path: Path) -> str:
    """The code without its comments; lines and columns stay."""
    return COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), path.read_text())


@cache
def functions(path: Path) -> list[Function]:
    found = []
    code = re.sub(r"__attribute__\(\(.*?\)\)", lambda m: " " * len(m[0]), blanked(path))
    for match in FUNCTION.finditer(code):
        end = code.find("\n}", match.end())
        one_line = re.compile(r"[^\n]*\n?[^\n]*\{[^\n]*\}\n").match(code, match.end())
        stop = one_line.end() if one_line else end
        if ";" not in code[match.end() : code.find("{", match.end())]:
            found.append(Function(match.start(), match[1], code[match.end() : stop]))
    return found


@cache
def body_of(name: str, near: Path) -> tuple[Path, str] | None:
    for path in (near, *sources(root_of(near))):
        for function in functions(path):
            if function.name == name and function.body:
                return path, function.body
    return None


def word_of(code: str, start: int) -> str:
    """The field that the first argument, which begins at `start`, leads to."""
    depth, end = 0, start
    while code[end] not in ",)" or depth > 0:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(code[end], 0)
        end += 1
    name = re.search(r"(\w+)(?:\[[^\]]*\])*$", code[start:end].strip())
    return name[1] if name else ""


def operations(
    code: str, near: Path, *, deep: bool = True, above: tuple[str, ...] = ()
) -> Iterator[Operation]:
    """What a piece of code does to shared words, in the order of the text; with `deep`, also in what it calls."""
    for call in CALL.finditer(code):
        name = call[1]
        if atomic := ATOMIC.match(name):
            yield Operation(PHRASES[atomic[1]], word_of(code, call.end()))
        elif name.removeprefix("ssm_") in PHRASES:
            yield Operation(PHRASES[name.removeprefix("ssm_")], "")
        elif deep and name not in above and (found := body_of(name, near)):
            yield from operations(found[1], found[0], above=(*above, name))


def statement_at(lines: list[str], number: int) -> str:
    """The whole of the statement that the line is a part of; if the line has none, of the next one."""
    while not lines[number].strip():
        number += 1
    first = last = number
    while lines[first - 1].strip() and lines[first - 1].rstrip()[-1] not in ";{}":
        first -= 1
    while lines[last].rstrip()[-1] not in ";{}":
        last += 1
    return "\n".join(lines[first : last + 1])


@cache
def labelled(path: Path) -> list[Place]:
    """The operations with a label, in the order of the text."""
    text, code = path.read_text(), blanked(path)
    lines, found = code.split("\n"), []
    for match in BEGINS_WITH_LABELS.finditer(text):
        inside = [f for f in functions(path) if f.start < match.start()]
        number = text.count("\n", 0, match.start())
        if not inside:
            continue
        labels = tuple(re.findall(LABEL, match[1]))
        where = f"{path.name}:{number + 1}"
        found.append(Place(where, inside[-1].name, labels, statement_at(lines, number)))
    return found


# ---- the table -------------------------------------------------------------------------------------


class Edge(NamedTuple):
    labels: tuple[str, str]
    ends: tuple[dict[str, list[Operation]], dict[str, list[Operation]]]  # by function
    models: tuple[str, ...]


def end_of(cell: str) -> dict[str, list[Operation]]:
    """``f`, `g`: release store of `x`, then acquire load of `y`; `h`: ...``"""
    found: dict[str, list[Operation]] = {}
    for clause in cell.split("; "):
        names, _, said = clause.partition(": ")
        steps = [
            re.fullmatch(r"([a-z -]+?)(?: (?:of|to) `(\w+)`)?(?:,? \(.*\))?", step)
            for step in said.split(", then ")
        ]
        assert all(steps), f"not understood: {clause!r}"
        found |= {
            name: [Operation(step[1], step[2] or "") for step in steps if step]
            for name in re.findall(r"`(\w+)`", names)
        }
    return found


@cache
def edges() -> list[Edge]:
    section = DESIGN.read_text().partition("## Every lock-free edge")[2].partition("\n## ")[0]
    rows = re.findall(rf"^\| ({LABEL}) [→↔] ({LABEL}) \|(.*)\|$", section, re.MULTILINE)
    found = []
    for first, second, rest in rows:
        one, other, _, shown = (cell.strip() for cell in rest.split(" | "))
        found.append(
            Edge((first, second), (end_of(one), end_of(other)), tuple(re.findall(r"`(\w+)\.pml`", shown)))
        )
    assert len(found) == len(re.findall(r"^\| [A-Z]\d", section, re.MULTILINE)), "a row is not understood"
    return found


def wanted() -> dict[tuple[str, str], list[Operation]]:
    """(label, function): the operations in their order."""
    return {
        (label, function): steps
        for edge in edges()
        for label, end in zip(edge.labels, edge.ends, strict=True)
        for function, steps in end.items()
    }


def test_a_label_belongs_to_one_edge() -> None:
    labels = [label for edge in edges() for label in edge.labels]
    assert sorted(labels) == sorted(set(labels))


def disagreements(core: Path) -> Iterator[str]:
    """Where the code does not have each label at each function, with the operations of the table in its order."""
    places: dict[tuple[str, str], list[tuple[Path, Place]]] = {}
    for path in sources(core):
        for place in labelled(path):
            for label in place.labels:
                places.setdefault((label, place.function), []).append((path, place))
    table = wanted()
    for (label, function), steps in table.items():
        there = places.get((label, function), [])
        if len(there) != len(steps):
            yield f"{label} in {function}(): {len(steps)} operations in the table, {len(there)} in the code"
        for step, (path, place) in zip(steps, there, strict=False):
            direct = set(operations(place.statement, path, deep=False))
            close = {operation for operation in direct if operation.word == step.word}
            if step not in (close or set(operations(place.statement, path))):
                said = ", ".join(f"{o.what} of {o.word!r}" for o in sorted(close or direct)) or "nothing"
                yield f"{place.where}: {label} is a {step.what} of {step.word!r} in the table; here: {said}"
    for (label, function), there in places.items():
        if (label, function) not in table and label[0] not in "IN":
            yield f"{there[0][1].where}: {label} in {function}() is not in the table"


def test_code_and_table_agree() -> None:
    assert list(disagreements(CORE)) == []


def test_what_is_said_of_a_label_is_true() -> None:
    """``R1 -> A1 in f()``, ``pairs with R1 in f()``: that function has it."""
    known = {label for edge in edges() for label in edge.labels} | invariants(CORE).keys()
    table, wrong = wanted(), []
    for path in sources(CORE):
        text = path.read_text()
        for comment in COMMENT.finditer(text):
            where = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, comment.start()) + 1}"
            said = re.sub(r"\n\s*\*?", " ", comment[0])
            wrong += [
                f"{where}: {label} is no label"
                for label in re.findall(rf"(?<![\w.]){LABEL}\b", said)
                if label not in known | NO_LABEL
            ]
            wrong += [
                f"{where}: {match[1]} is not in {match[2]}()"
                for match in re.finditer(rf"({LABEL}) in (\w+)\(\)", said)
                if (match[1], match[2]) not in table
            ]
    assert wrong == []


# ---- the models ------------------------------------------------------------------------------------


def in_models(models: tuple[str, ...], label: str) -> dict[str, set[tuple[str, str]]]:
    """Each operation beside the label there, and what it can stand for: ("store REL", "index"); of a fence, no word."""
    return {
        f"{model}.pml: {step}": {
            (step.what, word)
            for word in (weaken.words(model).get(step.location, set()) if step.location else {""})
        }
        for model in models
        for step in weaken.steps(model)
        if step.label == label
    }


@pytest.mark.parametrize("edge", edges(), ids=lambda edge: "-".join(edge.labels))
def test_model_and_table_agree(edge: Edge) -> None:
    """Its models have each operation of the code at both ends, with its order and on its word, and no other one."""
    assert edge.models, f"{edge.labels}: no model"
    for label, end in zip(edge.labels, edge.ends, strict=True):
        wanted = {(IN_MODELS[step.what], step.word) for steps in end.values() for step in steps}
        there = in_models(edge.models, label)
        assert wanted - set().union(*there.values()) == set(), f"{label}: not in {edge.models}"
        assert [step for step, can in there.items() if not can & wanted] == [], f"{label}: not in the table"
    for model in edge.models:
        labels = {step.label for step in weaken.steps(model)}
        assert set(edge.labels) <= labels, f"{edge.labels}: {model}.pml has {sorted(labels)}"


def test_models_have_no_other_labels() -> None:
    known = {label: edge.models for edge in edges() for label in edge.labels}
    wrong = [
        f"{path.name}:{number}: {label} is not an edge that this model shows"
        for path in sorted(MODELS.glob("*.pml"))
        for label, lines in weaken.labelled_lines(path.stem).items()
        for number in lines
        if path.stem not in known.get(label, ())
    ]
    assert wrong == []


def test_each_order_of_the_models_is_weakened() -> None:
    """docs/testing.md has a row for each labelled operation of each model, in the order of the edges."""
    wanted = [
        (label, said_of(end, edge.models, f"{model}.pml: {step}", label), model, step)
        for edge in edges()
        for label, end in zip(edge.labels, edge.ends, strict=True)
        for model in edge.models
        for step in weaken.steps(model)
        if step.label == label
    ]
    there = [(row.step.label, row.operation, row.model, row.step) for row in weaken.outcomes()]
    assert there == wanted


def said_of(end: dict[str, list[Operation]], models: tuple[str, ...], step: str, label: str) -> str:
    """The operations of the code that a step of a model stands for."""
    can = in_models(models, label)[step]
    found = [o for steps in end.values() for o in steps if (IN_MODELS[o.what], o.word) in can]
    return ", ".join(dict.fromkeys(f"{o.what} of `{o.word}`" if o.word else o.what for o in found))


def test_an_order_that_is_not_found_is_argued() -> None:
    """With an order that is seeded by hand, and found, where the sequence of two operations is what counts."""
    for row in weaken.outcomes():
        assert row.scene is not None or row.reason
        found = {bug for model, _, _, wrong, _ in SCENES if model == row.model for bug in wrong}
        assert {int(number) for number in re.findall(r"\border (\d+)", row.reason)} <= found, row


# ---- invariants ------------------------------------------------------------------------------------

DEFINITION = re.compile(r"^ \*   ([IN]\d+) ", re.MULTILINE)
MENTION = re.compile(r"(?<!\w)([IN]\d+)\b")


@cache
def invariants(folder: Path) -> dict[str, list[Path]]:
    """Where each one is defined: in a line of a comment that begins with it."""
    found: dict[str, list[Path]] = {}
    for path in sources(folder):
        for name in DEFINITION.findall(path.read_text()):
            found.setdefault(name, []).append(path)
    return found


def test_invariants_of_the_core() -> None:
    """Each number once, without gaps, and named by the code that looks at it or keeps it."""
    defined = invariants(CORE)
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}
    for letter in "IN":
        numbers = sorted(int(name[1:]) for name in defined if name[0] == letter)
        assert numbers == list(range(1, len(numbers) + 1))
    text = " ".join(DEFINITION.sub("", path.read_text()) for path in sources(CORE))
    ranges = re.findall(r"\bI(\d+) to I(\d+)\b", text)
    named = set(MENTION.findall(text)) | {f"I{n}" for a, b in ranges for n in range(int(a), int(b) + 1)}
    assert {name for name in defined if name[0] == "I"} - named == set()


@cache
def reachable(path: Path) -> frozenset[Path]:
    """The file, and the headers that it includes."""
    found, more = set(), [path]
    while more:
        here = more.pop()
        found.add(here)
        names = re.findall(r'#\s*include\s*"(?:.*/)?([^"]+)"', here.read_text())
        more += [p for p in sources(root_of(path)) if p.name in names and p not in found]
    return frozenset(found)


def test_an_invariant_that_is_named_is_defined_once() -> None:
    """The allocators count theirs from 1 on, each structure for itself."""
    wrong = []
    for path in sources(ALLOCATORS):
        for name in sorted(set(MENTION.findall(path.read_text()))):
            there = [p.name for p in invariants(ALLOCATORS).get(name, []) if p in reachable(path)]
            if len(there) != 1:
                wrong.append(f"{path.name}: {name} is defined in {there or 'no file that it includes'}")
    assert wrong == []


def bindings() -> list[Path]:
    return sorted(ROOT.glob("*/src/binding/*.[ch]"))


def c_files() -> list[Path]:
    return [*sources(CORE), *sources(ALLOCATORS), *bindings()]


def files_that_are_not_there(files: list[Path]) -> Iterator[str]:
    """C files that comments, and the text of pages, name."""
    known = {
        path.name
        for folder in ("ssm", "allocators", "tests", "examples")
        for path in ROOT.glob(f"{folder}/**/*.[ch]")
    }
    known |= {path.name for path in ROOT.glob("cmake/*.h")} | {"stdatomic.h", "bpf.h", "bpf_helpers.h"}
    for path in files:
        text = path.read_text()
        said = " ".join(COMMENT.findall(text)) if path.suffix in (".c", ".h") else text
        said = re.sub(r"#include <[^>\n]*>", "", said)  # of other projects
        mine = set(re.findall(r"^:caption: (\S+)$", text, re.MULTILINE))  # the page has their text
        for name in re.findall(r"(?<![\w*<.])([a-z]\w*\.[ch])\b", said):
            if name not in known | mine and not any(other.endswith(f"_{name}") for other in known):
                yield f"{path.name}: {name}"


def misplaced_functions(page: Path) -> Iterator[str]:
    """What a page says is in a file: ``claim_locked` in `shard.c``."""
    for name, file in re.findall(r"`(\w+)` in `([\w/]+\.[ch])`", page.read_text()):
        there = [path for path in c_files() if path.name == Path(file).name]
        if not any(re.search(rf"\b{name}\b", blanked(path)) for path in there):
            yield f"{page.name}: {name} is not in {file}"


def test_files_that_comments_and_docs_name_are_there() -> None:
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
    assert list(files_that_are_not_there([*c_files(), *pages])) == []


def test_docs_name_functions_where_they_are() -> None:
    assert [
        line for page in sorted((ROOT / "docs").rglob("*.md")) for line in misplaced_functions(page)
    ] == []


def test_a_name_that_is_gone_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`give_home` in `alloc.c`, and `nobody` in `shard.c`; see `gone.c`.\n")
    assert list(misplaced_functions(page)) == [
        "page.md: give_home is not in alloc.c",
        "page.md: nobody is not in shard.c",
    ]
    assert list(files_that_are_not_there([page])) == ["page.md: gone.c"]


def test_functions_that_comments_name_are_there() -> None:
    files = c_files()
    known = {name for path in files for name in re.findall(r"\b(\w+)\(", blanked(path))}
    known |= {"disable"}  # Python's, of the module gc
    known |= {
        name for path in MODELS.glob("*.pml") for name in re.findall(r"^inline (\w+)", path.read_text(), re.M)
    }
    wrong = [
        f"{path.name}: {name}()"
        for path in (*files, *sorted(MODELS.glob("*.pml")))
        for name in re.findall(r"\b([a-z_]\w*)\(\)", " ".join(COMMENT.findall(path.read_text())))
        if name not in known
    ]
    assert wrong == []


# ---- the test itself -------------------------------------------------------------------------------


# A weaker order; a step that is gone, with its label and without; a look that is gone; a label that moved on.
SLIPS = [
    (
        "ring_fast.h",
        "ssm_store_release_u64(&producer->index, head + count); /* R1",
        "ssm_store_relaxed_u64(&producer->index, head + count); /* R1",
        "R1 is a release store of 'index'",
    ),
    (
        "shard.c",
        "    next_generation(block);             /* G1 -> G2 in find_block() */\n",
        "",
        "G1 in claim_locked(): 2 operations in the table, 1 in the code",
    ),
    (
        "shard.c",
        "    next_generation(block);             /* G1 ->",
        "    /* G1 ->",
        "G1 is a release store of 'generation'",
    ),
    (
        "redelivery.c",
        "ssm_load_acquire_u64(&entry->taken) != entry_for(handle, FRONT) || ",
        "",
        "D4 is a acquire load of 'taken'",
    ),
    ("eventcount.h", "ssm_fence_light(no_membarrier); /* E2", "/* E2", "E2 is a light fence"),
    ("get.c", "/* R2 -> A2 in look_for_room(): ", "/* ", "R2 in get_queued(): 1 operations in the table, 0"),
]


@pytest.mark.parametrize(("file", "there", "instead", "complaint"), SLIPS)
def test_a_slip_is_named(tmp_path: Path, file: str, there: str, instead: str, complaint: str) -> None:
    for path in sources(CORE):
        (tmp_path / path.name).write_text(path.read_text())
    slipped = tmp_path / file
    assert slipped.read_text().count(there) == 1
    slipped.write_text(slipped.read_text().replace(there, instead))
    assert any(complaint in line for line in disagreements(tmp_path)), list(disagreements(tmp_path))
