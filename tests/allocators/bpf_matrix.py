# SPDX-License-Identifier: Apache-2.0
"""BPF programs with the RMID allocator, by every clang that is installed, for each cpu and level of optimisation.

``python -m tests.allocators.bpf_matrix`` prints the table of docs/rmid-bpf.md; ``make verifier`` calls it.
"""

from __future__ import annotations

import concurrent.futures
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from allocators.bpf import include

HERE = Path(__file__).parent / "bpf"
CANNOT = 77  # the loader's exit code where programs cannot be loaded
OLDEST = 13  # the oldest clang that a supported Debian has
CPUS = ("v1", "v2", "v3", "v4")
LEVELS = ("O1", "O2", "Os")
INCLUDES = (f"-I{include()}", f"-I/usr/include/{platform.machine()}-linux-gnu")
WARNINGS = ("-g", "-Wall", "-Wextra", "-Werror")


class CannotRun(Exception):
    """What is missing here."""


class Build(NamedTuple):
    """One way to compile."""

    compiler: str
    cpu: str
    level: str


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it; both streams are kept."""
    return subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def build(*command: str | Path) -> None:
    """Run a compiler; AssertionError with what it said when it fails."""
    done = run(*command)
    assert done.returncode == 0, f"{done.args}:\n{done.stderr}"


def compilers() -> list[str]:
    """Every versioned clang of the PATH that is new enough, or else the one called clang."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    names = {path.name for folder in folders for path in folder.glob("clang-*")}
    versions = sorted(int(name[6:]) for name in names if re.fullmatch(r"clang-\d+", name))
    found = [f"clang-{version}" for version in versions if version >= OLDEST]
    return found or ["clang"] * (shutil.which("clang") is not None)


def builds() -> list[Build]:
    """All of them; a compiler says which cpus it knows."""
    found = []
    for compiler in compilers():
        for cpu in CPUS:
            probe = run(
                compiler, "-target", "bpf", f"-mcpu={cpu}", "-x", "c", "-c", "/dev/null", "-o", "/dev/null"
            )
            if probe.returncode == 0:
                found += [Build(compiler, cpu, level) for level in LEVELS]
    return found


def compile_program(source: Path, how: Build, target: Path, *options: str) -> Path:
    """Compile a BPF program."""
    flags = ("-target", "bpf", f"-mcpu={how.cpu}", f"-{how.level}", *WARNINGS, *INCLUDES, *options)
    build(how.compiler, *flags, "-c", source, "-o", target)
    return target


def build_loader(folder: Path) -> Path:
    """Compile rmid_loader.c."""
    if not compilers():
        raise CannotRun("clang is not installed")
    compiler = shutil.which("cc") or compilers()[-1]
    if run(compiler, "-E", "-include", "bpf/libbpf.h", "-x", "c", "/dev/null").returncode != 0:
        raise CannotRun("libbpf's headers are not installed (libbpf-dev)")
    if os.geteuid() != 0:
        raise CannotRun("loading BPF programs needs root")
    loader = folder / "rmid_loader"
    build(compiler, "-O2", "-std=gnu11", *WARNINGS, *INCLUDES, HERE / "rmid_loader.c", "-o", loader, "-lbpf")
    return loader


def load(loader: Path, *objects: Path) -> dict[str, str]:
    """Verify and run them in one process; what it said of each, by the name of its file without suffixes."""
    done = run(loader, *objects)
    if done.returncode == CANNOT:
        raise CannotRun(f"the kernel does not take BPF programs here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    lines = (line.split(": ", 1) for line in done.stdout.splitlines() if ".bpf.o: " in line)
    said = {Path(name).name.removesuffix(".bpf.o"): text for name, text in lines}
    assert len(said) == len(objects), done.stdout
    return said


def try_all(
    folder: Path, chosen: list[Build], source: Path = HERE / "rmid.bpf.c", *options: str
) -> dict[Build, str]:
    """Compile with all of those builds, then load all: what the loader said of each."""
    loader = build_loader(folder)
    objects = {how: folder / f"{'-'.join(how)}.bpf.o" for how in chosen}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(compile_program, source, how, path, *options) for how, path in objects.items()]
    for task in tasks:
        task.result()
    said = load(loader, *objects.values())
    return {how: said["-".join(how)] for how in objects}


def table(results: dict[Build, str]) -> str:
    """Draw it: a row for each compiler and cpu."""
    lines = ["| compiler | `-mcpu` | levels | XDP | `tp_btf` | raw tracepoint |", "|---|---|---|--:|--:|--:|"]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for how, text in results.items():
        counts = re.findall(r"(\d+) (?:xdp|tp_btf|raw)", text)
        rows.setdefault((how.compiler, how.cpu, "|".join(counts)), []).append(how.level)
    for (compiler, cpu, counts), levels in rows.items():
        cells = [f"{count} accepted" for count in counts.split("|")]
        lines.append(f"| {compiler} | {cpu} | {', '.join(levels)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        results = try_all(Path(folder), builds())
    print(f"Linux {platform.release()}, {len(results)} builds\n\n{table(results)}")


if __name__ == "__main__":
    main()
