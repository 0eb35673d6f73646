# SPDX-License-Identifier: Apache-2.0
"""Mutation testing: small changes put into a source, one at a time; each must make one of the file's own tests fail.

usage: python -m tests.mutants [--files put get] [--count 10] [--seed 1]

universalmutator makes the mutants (c.rules, python.rules); a sample of them, drawn by the seed, is tried in a copy of
the tree under build/mutants. files.toml says which tests are a file's own. A mutant that does not compile, or compiles
to the same instructions, does not count: the next one is drawn. What survives is printed; a survivor that
docs/testing.md argues for is counted apart. Exit status 1: something survived without an argument.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import marshal
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/mutants"
WORK = ROOT / "build/mutants"
# Tests are built with assertions, as they always are; the killer without, since it looks at what users run.
TREE, NATIVE, PLAIN = WORK / "tree", WORK / "native", WORK / "plain"
BUILD_S = 600
LEAST_S = 20  # a test gets so long, or PATIENCE times what it takes on the source as it is
PATIENCE = 10
NO_COMPILING = "-DCMAKE_C_FLAGS=-Werror=implicit-function-declaration -Werror=return-type"
# Not mutated: an assertion that says less is no bug of the code.
ASSERTION = re.compile(r"\bSSM_(ASSERT|ASSERT_SHARED|EXPENSIVE)\(")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# Each mutant by itself: what it leaves behind, processes and names in /dev/shm, ends with its namespaces.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
PRIVATE_SHM = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'


@dataclass(frozen=True)
class Own:
    """What files.toml says of a file."""

    sources: tuple[str, ...]
    programs: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mutant:
    """One line of a source, and what stands there instead."""

    source: str  # path in the tree
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}\n  - {self.before.strip()}\n  + {self.after.strip()}"

    def apply(self) -> None:
        lines = (ROOT / self.source).read_text().splitlines(keepends=True)
        lines[self.line - 1] = self.after
        (TREE / self.source).write_text("".join(lines))

    def take_back(self) -> None:
        shutil.copy(ROOT / self.source, TREE / self.source)


class Test(NamedTuple):
    """A command that fails where it finds a mutant."""

    name: str
    command: list[str | Path]
    target: str = ""  # what is built before
    where: Path = NATIVE


@dataclass
class Tally:
    """Of one entry of files.toml."""

    killed: Counter[str] = field(default_factory=Counter)  # by test
    survived: list[Mutant] = field(default_factory=list)
    argued: list[Mutant] = field(default_factory=list)

    def row(self, name: str) -> str:
        tried = self.killed.total() + len(self.survived) + len(self.argued)
        return f"| {name} | {tried} | {self.killed.total()} | {len(self.argued)} | {len(self.survived)} |"


# ---- what there is ---------------------------------------------------------------------------------


def owners() -> dict[str, Own]:
    """files.toml."""
    table = tomllib.loads((HERE / "files.toml").read_text())
    return {name: Own(**{key: tuple(value) for key, value in row.items()}) for name, row in table.items()}


def path_of(name: str) -> str:
    """The one file of the core or the package with that name, or that folder and name."""
    named = (path for path in (ROOT / "ssm").rglob(Path(name).name) if path.match(name))
    found = [path for path in named if "binding" not in path.parts]
    if len(found) != 1:
        raise SystemExit(f"files.toml names {name!r}, and {len(found)} files have that name")
    return str(found[0].relative_to(ROOT))


def arguments() -> set[tuple[str, str]]:
    """(before, after) of the survivors that docs/testing.md argues for."""
    text = (ROOT / "docs/testing.md").read_text()
    return {(a.strip(), b.strip()) for a, b in re.findall(r"^ *- `(.+)` → `(.*)`", text, re.MULTILINE)}


def mutants_of(source: str) -> list[Mutant]:
    """All of them. universalmutator passes over lines with comments: it gets the source without."""
    text = (ROOT / source).read_text()
    is_c = not source.endswith(".py")
    bare = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text) if is_c else text
    bare = "".join(f"{line.rstrip()}\n" for line in bare.splitlines())
    rules = HERE / ("c.rules" if is_c else "python.rules")
    with tempfile.TemporaryDirectory() as directory:
        folder, file = Path(directory), Path(directory, Path(source).name)
        file.write_text(bare)
        (folder / "out").mkdir()
        command = ["mutate", file.name, "--noCheck", "--redundantOK", "--mutantDir", "out", "--only", rules]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=300)
        found = {changed(source, bare, path.read_text()) for path in (folder / "out").iterdir()}
    return sorted((m for m in found if m), key=lambda m: (m.line, m.after))


def changed(source: str, bare: str, mutated: str) -> Mutant | None:
    """The line in which they differ, with the comment that stands behind it."""
    old, new = bare.splitlines(keepends=True), mutated.splitlines(keepends=True)
    lines = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if len(old) != len(new) or len(lines) != 1:
        return None
    number = lines[0]
    before = (ROOT / source).read_text().splitlines(keepends=True)[number]
    if ASSERTION.search(before):
        return None
    comment = re.search(r"\s*/\*.*$", before.rstrip("\n"))
    return Mutant(
        source, number + 1, before, new[number].rstrip("\n") + (comment[0] if comment else "") + "\n"
    )


# ---- trying them -----------------------------------------------------------------------------------


def run(command: list[str | Path], seconds: float, cwd: Path = TREE) -> tuple[bool, str]:
    """True, and its output, when it ended with 0 in time."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(),
        )
        try:
            done = process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            done = False
            process.kill()
            process.wait()
        output.seek(0)
        return done, output.read()


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "SSM_TEST_ALL": "1",
        "PYTHONPATH": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def apart(command: list[str | Path]) -> list[str | Path]:
    return [*APART, PRIVATE_SHM, "sh", *command]


class Bench:
    """The copy of the tree, built; and how long each test takes in it."""

    def __init__(self) -> None:
        self.copy_tree()
        self.isolated = run(apart(["true"]), 20)[0]
        if not self.isolated:
            print("note: no namespaces here: what a mutant leaves behind in /dev/shm stays there")
        self.usual: dict[str, float] = {}

    def copy_tree(self) -> None:
        """As it is now, with what is not committed."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
        for path in [p for p in TREE.rglob("*") if p.is_file() and str(p.relative_to(TREE)) not in wanted]:
            path.unlink()
        for name in wanted:
            there = TREE / name
            if not there.exists() or there.read_bytes() != (ROOT / name).read_bytes():
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, there)

    def prepare(self, own: Own) -> None:
        """Builds what an entry needs, and sees that its tests pass on the source as it is."""
        if own.programs:
            for where, asserts in ((NATIVE, "ON"), (PLAIN, "OFF")):
                options = ["-DCMAKE_BUILD_TYPE=Release", f"-DSSM_ASSERTS={asserts}", NO_COMPILING]
                done, output = run(["cmake", "-S", TREE, "-B", where, "-G", "Ninja", *options], BUILD_S)
                if not done:
                    raise SystemExit(output)
            if not all(self.build(test) for test in self.tests(own)):
                raise SystemExit("the source as it is does not compile")
        else:
            self.make_venv()
        for test in self.tests(own):
            start = time.monotonic()
            done, output = run(test.command, 3600)
            self.usual[test.name] = time.monotonic() - start
            if not done:
                raise SystemExit(f"{test.name} fails on the source as it is:\n{output}")

    def make_venv(self) -> None:
        """An interpreter for which ssm is the copy; an editable installation would find the checkout."""
        here = (
            Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        )
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", WORK / "venv"], check=True)
        for package in ("ssm", "allocators"):
            for library in (here / package).glob("_core*.so"):
                shutil.copy(library, TREE / package)
        found = next((WORK / "venv/lib").glob("python*/site-packages"))
        (found / "copy.pth").write_text(f"{TREE}\n{here}\n")

    def build(self, test: Test) -> bool:
        command = ["cmake", "--build", test.where, "-j", str(os.cpu_count()), "--target", test.target]
        return not test.target or run(command, BUILD_S)[0]

    def compiled(self, own: Own) -> bytes | None:
        """The instructions of the source as it is in the copy; None where there are none."""
        if own.pytest:
            try:
                code = compile(
                    (TREE / path_of(own.sources[0])).read_text(), own.sources[0], "exec", optimize=2
                )
            except SyntaxError:
                return None
            return marshal.dumps(code)
        if not self.build(Test("the core", [], "ssm_static")):
            return None
        digest = hashlib.sha256()
        for path in sorted((NATIVE / "CMakeFiles").glob("ssm_*.dir/**/*.o")):
            digest.update(path.read_bytes())
        return digest.digest()

    def tests(self, own: Own) -> list[Test]:
        """In the order in which they run. The labels come late: few mutants touch one, and pytest starts slowly."""
        found = [Test(name, [NATIVE / "tests/c" / name], name) for name in own.programs]
        if own.programs:
            labels = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "tests/test_labels.py"]
            found.append(Test("test_labels", labels))
        if own.kills:
            killer = [PLAIN / "tests/crash/ssm_killer", "--narrow", "--first", "--rescued", "2", *own.kills]
            found.append(Test("ssm_killer", killer, "ssm_killer", PLAIN))
        python = WORK / "venv/bin/python"
        for path in sorted(path for pattern in own.pytest for path in TREE.glob(pattern)):
            name = str(path.relative_to(TREE))
            found.append(
                Test(name, [python, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", name])
            )
        return [test._replace(command=apart(test.command)) if self.isolated else test for test in found]

    def killer(self, own: Own) -> str:
        """Which test fails; none does: nothing. Each program is built when its turn comes: most mutants end early."""
        for test in self.tests(own):
            if not self.build(test):
                return "the compiler"
            if not run(test.command, max(LEAST_S, PATIENCE * self.usual[test.name]))[0]:
                return test.name
        return ""


def try_some(bench: Bench, name: str, own: Own, count: int, seed: int) -> Tally:
    tally, known = Tally(), arguments()
    bench.prepare(own)
    as_it_is = bench.compiled(own)
    drawn = [mutant for source in own.sources for mutant in mutants_of(path_of(source))]
    random.Random(f"{seed} {name}").shuffle(drawn)
    tried = 0
    for mutant in drawn:
        if tried == count:
            break
        start = time.monotonic()
        mutant.apply()
        try:
            if bench.compiled(own) in (None, as_it_is):
                continue
            tried += 1
            test = bench.killer(own)
        finally:
            mutant.take_back()
        seconds = time.monotonic() - start
        if test:
            tally.killed[test] += 1
        elif (mutant.before.strip(), mutant.after.strip()) in known:
            tally.argued.append(mutant)
        else:
            tally.survived.append(mutant)
        print(
            f"{name} {tried}/{count}, {seconds:.0f} s, {f'killed by {test}' if test else 'SURVIVED'}: {mutant}",
            flush=True,
        )
    return tally


def main() -> int:
    table = owners()
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--files", nargs="+", choices=list(table), default=list(table), metavar="FILE", help=" ".join(table)
    )
    parser.add_argument("--count", type=int, default=3, help="mutants of each file (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    alone = (WORK / "lock").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error(f"another run is at work in {WORK}: wait for it, or end it")
    print(f"seed {options.seed}", flush=True)
    bench = Bench()
    tallies = {
        name: try_some(bench, name, table[name], options.count, options.seed) for name in options.files
    }
    print("\n| file | mutants | killed | survived, argued | survived |\n|---|---|---|---|---|")
    for name, tally in tallies.items():
        print(tally.row(name))
    survivors = [mutant for tally in tallies.values() for mutant in tally.survived]
    for mutant in survivors:
        print(f"\nsurvived: {mutant}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
