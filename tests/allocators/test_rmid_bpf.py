# SPDX-License-Identifier: Apache-2.0
"""The RMID allocator in the running kernel: built for BPF, verified, run; see bpf/ and bpf_matrix.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allocators.bpf import include
from tests.allocators import bpf_matrix
from tests.allocators.bpf_matrix import CPUS, HERE, LEVELS, Build, build, compile_program, run
from tests.effort import ALL
from tests.isolation import cannot_run

pytestmark = pytest.mark.xdist_group("BPF")

COMPILERS = {"c11": ["gcc", "-std=c11", "-x", "c"], "c++17": ["g++", "-std=c++17", "-x", "c++"]}
PLACES, TESTS = 3, 9  # of the allocator, and of its behaviour, in rmid_loader.c
ROOT = Path(__file__).resolve().parents[2]
DOCS, EXAMPLE = ROOT / "docs" / "rmid-bpf.md", ROOT / "examples" / "bpf"
LIBRARY = include() / "rmid_allocator.bpf.c"


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return bpf_matrix.build_loader(tmp_path_factory.mktemp("loader"))
    except bpf_matrix.CannotRun as why:
        cannot_run(str(why))


def load(loader: Path, *objects: Path) -> list[str]:
    try:
        return list(bpf_matrix.load(loader, *objects).values())
    except bpf_matrix.CannotRun as why:
        cannot_run(str(why))


@pytest.fixture
def newest() -> Build:
    return bpf_matrix.builds()[-1]


@pytest.fixture
def chosen() -> list[Build]:
    """All builds, or of the newest compiler's each cpu once and each level."""
    builds = bpf_matrix.builds()
    if ALL or not builds:
        return builds
    levels = dict(zip(CPUS, [*LEVELS, LEVELS[0]], strict=True))
    return [how for how in builds if how.compiler == builds[-1].compiler and how.level == levels[how.cpu]]


def test_every_build_is_accepted_and_behaves(tmp_path: Path, chosen: list[Build]) -> None:
    try:
        results = bpf_matrix.try_all(tmp_path, chosen)
    except bpf_matrix.CannotRun as why:
        cannot_run(str(why))
    print(bpf_matrix.table(results))
    wanted = f"accepted: 24 xdp, 2 tp_btf, 2 raw tracepoint; run: {PLACES * TESTS} behaviours"
    assert {how: text for how, text in results.items() if text != wanted} == {}
    assert {how.cpu for how in results} >= {"v1", "v2", "v3"}
    assert {how.level for how in results} == set(LEVELS)


def test_first_steps(tmp_path: Path, chosen: list[Build]) -> None:
    try:
        results = bpf_matrix.try_all(tmp_path, chosen, HERE / "readme.bpf.c")
    except bpf_matrix.CannotRun as why:
        cannot_run(str(why))
    wanted = "accepted: 1 xdp, 0 tp_btf, 0 raw tracepoint; run: 1 behaviours"
    assert set(results.values()) == {wanted}


@pytest.mark.parametrize("maximum", [1, 4, 100, 1000, 4096])
def test_another_maximum(tmp_path: Path, loader: Path, newest: Build, maximum: int) -> None:
    """Powers of two or not; the first steps take 4."""
    program = compile_program(HERE / "readme.bpf.c", newest, tmp_path / "p.bpf.o", f"-DMAX_RMIDS={maximum}")
    if maximum >= 4:
        assert len(load(loader, program)) == 1
    else:  # rmid_init() answers false, the program XDP_DROP
        with pytest.raises(AssertionError, match="retval"):
            load(loader, program)


@pytest.mark.parametrize("outside", [False, True], ids=["inlined", "one copy"])
def test_linked_from_two_sources(tmp_path: Path, loader: Path, newest: Build, outside: bool) -> None:
    """As bpf2go does with a list of sources; with RMID_ALLOCATOR_OUT_OF_LINE the functions are in the second."""
    if shutil.which("bpftool", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        cannot_run("bpftool is not installed")
    options = ["-DRMID_ALLOCATOR_OUT_OF_LINE"] if outside else []
    program = compile_program(HERE / "readme.bpf.c", newest, tmp_path / "program.o", *options)
    library = compile_program(LIBRARY, newest, tmp_path / "library.o")
    linked = tmp_path / "linked.bpf.o"
    build("/usr/sbin/bpftool", "gen", "object", linked, program, library)
    assert len(load(loader, linked)) == 1


def test_both_files_may_be_included(tmp_path: Path, loader: Path, newest: Build) -> None:
    source = tmp_path / "both.bpf.c"
    text = (HERE / "readme.bpf.c").read_text()
    line = '#include "rmid_allocator.bpf.h"\n'
    source.write_text(text.replace(line, f'{line}#include "rmid_allocator.bpf.c"\n'))
    assert len(load(loader, compile_program(source, newest, tmp_path / "both.bpf.o"))) == 1


def test_the_documented_program_is_accepted(tmp_path: Path, chosen: list[Build]) -> None:
    """By the cpu that bpf2go asks for, too. It has no XDP program, so nothing of it is run here."""
    (text,) = re.findall(r"^```c\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    source = tmp_path / "documented.bpf.c"
    source.write_text(text)
    try:
        results = bpf_matrix.try_all(tmp_path, chosen, source, "-Wno-unused-parameter")
    except bpf_matrix.CannotRun as why:
        cannot_run(str(why))
    wanted = "accepted: 0 xdp, 2 tp_btf, 0 raw tracepoint; run: 0 behaviours"
    assert set(results.values()) == {wanted}


def test_attached_to_the_scheduler_by_libbpf(tmp_path: Path, loader: Path, newest: Build) -> None:
    """The example in C: for a while, each process that runs has an RMID of its own."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        cannot_run("this kernel has no BTF")
    program = compile_program(EXAMPLE / "rmid_tasks.bpf.c", newest, tmp_path / "p.bpf.o")
    build(
        "cc", "-Wall", "-Wextra", "-Werror", EXAMPLE / "rmid_tasks.c", "-o", tmp_path / "rmid_tasks", "-lbpf"
    )
    done = run(tmp_path / "rmid_tasks", program, "0.3")
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()[1:]]
    pids, rmids = {pid for pid, _, _ in rows}, {rmid for _, rmid, _ in rows}
    assert rows
    assert len(pids) == len(rmids) == len(rows)
    assert all(rmid >= 1 and switches >= 1 for _, rmid, switches in rows)


def test_include_is_where_both_files_are() -> None:
    command = [sys.executable, "-m", "allocators.bpf", "--include"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.rstrip("\n"))
    assert folder == include()
    assert {path.name for path in folder.glob("*.[ch]")} == {
        "rmid_allocator.bpf.h",
        "rmid_allocator.bpf.c",
        "rmid.h",
    }


@pytest.mark.parametrize("standard", COMPILERS)
def test_compiles_unchanged(standard: str) -> None:
    compiler, *options = COMPILERS[standard]
    if shutil.which(compiler) is None:
        cannot_run(f"{compiler} is not installed")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    for header in ("rmid.h", "rmid_allocator.bpf.h"):
        done = run(compiler, *warnings, *options, "-fsyntax-only", include() / header)
        assert done.returncode == 0, done.stderr
