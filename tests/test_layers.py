# SPDX-License-Identifier: Apache-2.0
"""The layer order, which stands here, compared with every #include and every import."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The folders of ssm/src, lowest first, as CMakeLists.txt has them. The compiler refuses an #include that points upward;
# here is what it cannot see.
FOLDERS = ["platform", "layout", "registry", "services", "blocks", "rings", "looking", "life"]
# One layer per line, lowest first; a .h/.c pair counts as one. A file includes only what is in a line above
# its own, and a .c file its own header.
ALLOCATORS = """
    flat
    layers range_journal
    range_inside
    id pid_bitmap rmid range_tree
    range_query
    allocators
"""
# The extension module of ssm: a file uses only functions and objects of files above its own line.
BINDING = """
    arguments errors pool_hold ending
    wait fields
    garbage pool_stats peek
    exhausted packet_hold
    array chain
    packet batch
    pool_alloc ring_hold
    ring_done
    ring_put ring_get ready life service
    ring_roster
    ring service_numbers service_semaphore service_board pool
    module
"""
# Packages and modules of Python the same way, each package with the order of what is in it.
PYTHON = {
    "": """
        allocators
        ssm
    """,
    "allocators": """
        errors node
        _core
        policy
        __init__
        bpf
    """,
    "allocators.bpf": """
        __init__
        __main__
    """,
    "ssm": """
        _core
        acl caller columns deadline ending in_hand installed late progress terminal
        stats_text
        errors labels slow stats
        registered names service records aio ready semaphore_aio lending
        semaphore board readiness
        options
        ring
        consumer
        topic replies
        rpc_aio
        rpc
        attachment pool_services
        pool
        tracing presence
        message
        queue_memory
        bridge
        queue
        pipe
        pipeline
        web
        __init__
        captures
        demo
        commands
        cli
        __main__
    """,
    "ssm.commands": """
        __init__ completion
        output recording screen
        stages
        list stat holders check reap unlink record replay bench run bridge
        dump top metrics web
    """,
    "ssm.web": """
        __init__ verdict
        view
        feed
        server
    """,
    "ssm.bridge": """
        errors memory
        carrier wire journal
        over_zmq over_zenoh pieces
        arrivals
        ledger
        sender receiver publisher
        subscriber shared
        session
        figures
        bridge
        config
        queued
        __init__
    """,
    "ssm.captures": """
        __init__ errors flow
        admission library
        capture headers table
        recording survey traffic
    """,
    "ssm.pipeline": """
        board bulletin declared layout report
        errors books graph pace waits values
        crossing freight inlet order ledger
        outlet plan awaiting
        accounts worker
        process inline teller
        signals fork_server
        bridges
        supervisor
        pipeline
        __init__
    """,
    "ssm.demo": """
        __init__ stages
        lab report
        command
    """,
}

# What only these files may contain. A list of files may be empty-handed, but nobody else may have it.
ONLY_IN = {
    r"#\s*include\s*<stdatomic\.h>": ["ssm/src/platform/atomic.h"],
    r"#\s*include\s*<Python\.h>": ["ssm/src/binding/", "allocators/src/binding/"],
    r"\bSYS_futex\b": ["ssm/src/platform/eventcount.c"],
    r"\bfcntl\s*\(": ["ssm/src/platform/liveness.c"],
    r"\bmmap\s*\(": ["ssm/src/platform/segment.c"],
}

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def layers(order: str) -> dict[str, int]:
    return {name: level for level, line in enumerate(order.strip().splitlines()) for name in line.split()}


def c_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).glob("*.[ch]"))


def without_comments(text: str) -> str:
    """Blank the comments out; lines keep their numbers."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)


def located(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    text = without_comments(path.read_text())
    for match in pattern.finditer(text):
        start = match.start() + len(match[0]) - len(match[0].lstrip())
        yield f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, start) + 1}", match


def wrong_includes(folder: str, order: str) -> Iterator[str]:
    level = layers(order)
    for path in c_files(folder):
        if path.stem not in level:
            yield f"{path.relative_to(ROOT)}:1: no layer: name it in this test"
            continue
        for where, match in located(path, INCLUDE):
            name = Path(match[1]).stem
            itself = name == path.stem and path.suffix == ".c"
            if itself or level.get(name, len(level)) < level[path.stem]:
                continue
            place = "is not below it" if name in level else "is no part of this layer order"
            yield f"{where}: {path.name} includes {match[1]}, which {place}"


def circles(*folders: str) -> Iterator[str]:
    """Headers and their .c files that include each other, by way of others too; a .h/.c pair counts as one."""
    files = c_files(*folders)
    includes: dict[str, dict[str, str]] = {path.stem: {} for path in files}
    for path in files:
        for where, match in located(path, INCLUDE):
            if (name := Path(match[1]).stem) in includes and name != path.stem:
                includes[path.stem].setdefault(name, where)
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in above:
            way = (*above[above.index(name) :], name)
            places = ", ".join(includes[a][b] for a, b in pairwise(way))
            yield f"{' -> '.join(way)}: {places}"
        elif name not in done:
            for other in includes[name]:
                yield from visit(other, (*above, name))
            done.add(name)

    for name in includes:
        yield from visit(name, ())


# What a .c file defines for others, at the begin of a line: a function, or an object with its value.
DEFINED = re.compile(
    r"^(?!static\b|typedef\b|else\b|return\b)[A-Za-z_][\w \t*]*?\b(\w+)(?:\([^;{}]*\)\s*\{|(?:\[\])?\s*=)",
    re.MULTILINE,
)


def wrong_uses(folder: str, order: str) -> Iterator[str]:
    """Yield where a .c file names what a file defines that is not below it; each has to be in the order."""
    level = layers(order)
    texts = {path: without_comments(path.read_text()) for path in c_files(folder) if path.suffix == ".c"}
    home = {match[1]: path for path, text in texts.items() for match in DEFINED.finditer(text)}
    for path, text in texts.items():
        here = path.relative_to(ROOT)
        if path.stem not in level:
            yield f"{here}:1: no layer: name it in this test"
            continue
        for match in re.finditer(r'"(?:\\.|[^"\\])*"|\b(\w+)\b', text):
            other = home.get(match[1], path) if match[1] else path
            if other != path and level.get(other.stem, len(level)) >= level[path.stem]:
                line = text.count("\n", 0, match.start()) + 1
                yield f"{here}:{line}: {path.name} uses {match[1]} of {other.name}, which is not below it"


def test_binding_has_no_circle() -> None:
    assert list(circles("ssm/src/binding")) == []
    assert list(wrong_uses("ssm/src/binding", BINDING)) == []
    there = {path.stem for path in c_files("ssm/src/binding") if path.suffix == ".c"}
    assert set(layers(BINDING)) == there


def test_core_is_built_folder_by_folder() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    order = re.search(r"set\(ssm_layers ([\w ]+)\)", text)
    assert order is not None
    assert order[1].split() == FOLDERS
    assert {path.name for path in (ROOT / "ssm/src").iterdir() if path.is_dir()} == {*FOLDERS, "binding"}
    assert [path.name for path in c_files("ssm/src")] == ["ssm.h"]


def test_core_has_no_way_around_the_include_path() -> None:
    """An #include names a file and no folder; so a name is there once."""
    files = c_files(*(f"ssm/src/{folder}" for folder in FOLDERS))
    wrong = [
        f"{where}: {match[1]}" for path in files for where, match in located(path, INCLUDE) if "/" in match[1]
    ]
    assert wrong == []
    names = [path.name for path in (*files, *c_files("allocators/src"))]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("folder", FOLDERS)
def test_core_includes_no_circle(folder: str) -> None:
    assert list(circles(f"ssm/src/{folder}")) == []


def test_allocators_include_only_their_own() -> None:
    assert list(wrong_includes("allocators/src", ALLOCATORS)) == []


@pytest.mark.parametrize("package", ["ssm", "allocators"])
def test_bindings_include_only_cores_and_themselves(package: str) -> None:
    lower = ["ssm/src", "allocators/src/binding"] if package == "ssm" else []
    folders = [f"{package}/src/binding", "allocators/src", *lower]
    known = {path.name for path in c_files(*folders)}
    wrong = [
        f"{where}: {path.name} includes {match[1]}"
        for path in c_files(f"{package}/src/binding")
        for where, match in located(path, INCLUDE)
        if Path(match[1]).name not in known
    ]
    assert wrong == []


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_has_one_place(pattern: str) -> None:
    allowed = ONLY_IN[pattern]
    core = [f"ssm/src/{folder}" for folder in (*FOLDERS, "binding")]
    files = c_files("ssm/src", *core, "allocators/src", "allocators/src/binding")
    wrong = [
        f"{where}: {match[0].strip()} belongs into {' or '.join(allowed)}"
        for path in files
        for where, match in located(path, re.compile(pattern))
        if not any(str(path.relative_to(ROOT)).startswith(place) for place in allowed)
    ]
    assert wrong == []


# ---- Python ----------------------------------------------------------------------------------------


def late_load(node: ast.AST) -> str | None:
    """The module that ``late.load("ssm.aio")`` imports."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("late.load", "load") and node.args:
        name = node.args[0]
        return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None
    return None


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


# Here there are no circles at all, not even by the types that annotations name.
WITH_TYPES = {"ssm"}


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of what a module of `package` imports, now or late; see WITH_TYPES."""
    for node in ast.iter_child_nodes(tree):
        if for_types_only(node) and package not in WITH_TYPES:
            continue
        late = late_load(node)
        if late is not None:
            yield node.lineno, late  # type: ignore[attr-defined]
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        else:
            yield from imported(node, package)


def module_of(name: str) -> list[str] | None:
    """Path of the module of ours that a dotted name is or is in: ``ssm.demo.crew.Crew`` -> ssm demo crew."""
    package, path = "", []
    for part in name.split("."):
        if part not in layers(PYTHON[package]):
            break
        path.append(part)
        package = ".".join(path)
        if package not in PYTHON:
            return path
    return [*path, "__init__"] if path else None


def wrong_imports(package: str) -> Iterator[str]:
    for file in sorted((ROOT / package.replace(".", "/")).glob("*.py")):
        here = file.relative_to(ROOT)
        if file.stem not in layers(PYTHON[package]):
            yield f"{here}:1: no layer: name it in this test"
            continue
        own = [*package.split("."), file.stem]
        for line, name in imported(ast.parse(file.read_text()), package):
            other = module_of(name)
            if other is None:
                continue
            # Both are in this package, itself or by way of a subpackage: there the order is decided.
            depth = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), -1)
            order = layers(PYTHON[".".join(own[:depth])]) if depth >= 0 else {}
            if depth < 0 or order[other[depth]] >= order[own[depth]]:
                yield f"{here}:{line}: {'.'.join(own)} imports {name}, which is not below it"


@pytest.mark.parametrize("package", [package for package in PYTHON if package])
def test_python_imports_only_lower_layers(package: str) -> None:
    assert list(wrong_imports(package)) == []


# ---- the test itself -------------------------------------------------------------------------------


def test_a_breach_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "core").mkdir()
    (tmp_path / "core/low.h").write_text('/*\n#include "high.h"\n*/\n#include "high.h"\n')
    (tmp_path / "core/high.h").write_text('#include "low.h"\n')
    assert list(wrong_includes("core", "low\nhigh")) == [
        "core/low.h:4: low.h includes high.h, which is not below it"
    ]
    assert list(circles("core")) == ["high -> low -> high: core/high.h:1, core/low.h:4"]
    (tmp_path / "binding").mkdir()
    (tmp_path / "binding/low.c").write_text(
        'int low(void)\n{\n    f("high"); /* high() */\n    return high();\n}\n'
    )
    (tmp_path / "binding/high.c").write_text("int high(void)\n{\n    return low() + table[0];\n}\n")
    (tmp_path / "binding/data.c").write_text("const int table[] = {1};\nPyType_Spec spec = {high};\n")
    assert list(wrong_uses("binding", "low\nhigh\ndata")) == [
        "binding/high.c:3: high.c uses table of data.c, which is not below it",
        "binding/low.c:4: low.c uses high of high.c, which is not below it",
    ]
    monkeypatch.setitem(globals(), "PYTHON", {"": "under\npkg", "under": "__init__", "pkg": "low\n__init__"})
    for package in ("pkg", "under"):
        (tmp_path / package).mkdir()
    (tmp_path / "pkg/low.py").write_text("import os, under\n\nfrom pkg import Thing\n")
    (tmp_path / "pkg/__init__.py").write_text("from .low import x\n")
    (tmp_path / "under/__init__.py").write_text("def f():\n    from pkg.low import x\n")
    assert list(wrong_imports("pkg")) == ["pkg/low.py:3: pkg.low imports pkg.Thing, which is not below it"]
    monkeypatch.setitem(globals(), "WITH_TYPES", {"pkg"})
    for hidden in ("if TYPE_CHECKING:\n    from pkg import Thing\n", "x = late.load('pkg.__init__')\n#\n"):
        (tmp_path / "pkg/low.py").write_text(f"import os\n{hidden}")
        assert len(list(wrong_imports("pkg"))) == 1, hidden
    assert list(wrong_imports("under")) == [
        "under/__init__.py:2: under.__init__ imports pkg.low.x, which is not below it"
    ]
