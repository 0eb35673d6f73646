# SPDX-License-Identifier: Apache-2.0
"""How many instructions do the hot operations of the C core take? Valgrind counts, so a busy machine does not matter.

    python -m benchmarks.callgrind [--record] [--profile]

Fails when an operation takes over 5 % more than benchmarks/callgrind.json says. Who has a reason for that changes the
number there by hand, in the same commit. How many instructions a source becomes is the compiler's doing: the file
keeps a set of numbers per compiler and machine, and where it has none the counts are printed and nothing fails;
`--record` adds that set (it never changes one that is there).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import HERE, build_core, machine, write
from benchmarks.cases import PATIENCE_S
from benchmarks.performance import PROFILE

COUNTS = HERE / "callgrind.json"
OPERATIONS = ("alloc_free", "alloc_free_batch", "put_get", "put_get_batch", "put_get_one")
FEW, MANY = 6_400, 38_400
TOLERANCE = 0.05
TOP = 6  # functions that --profile names

TOTAL = re.compile(r"Collected : (\d+)")


def collect(core: Path, operation: str, packets: int, output: Path) -> int:
    command = [
        "valgrind",
        "--tool=callgrind",
        f"--callgrind-out-file={output}",
        core,
        operation,
        str(packets),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    found = TOTAL.search(done.stderr)
    if done.returncode or not found:
        sys.exit(f"callgrind of {operation} failed:\n{done.stderr}")
    return int(found[1])


def instructions(core: Path, operation: str) -> float:
    """Per packet: what so many more packets take, so that the start and the end do not count."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "callgrind.out"
        few, many = (collect(core, operation, packets, output) for packets in (FEW, MANY))
    return round((many - few) / (MANY - FEW), 1)


def profile(core: Path, operation: str) -> dict[str, float]:
    """Function -> instructions per packet, its own without those it calls; inlined ones count for their caller."""
    with tempfile.TemporaryDirectory() as folder:
        counts = []
        for packets in (FEW, MANY):
            output = Path(folder) / "callgrind.out"
            collect(core, operation, packets, output)
            command = ["callgrind_annotate", "--threshold=100", output]
            text = subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=PATIENCE_S
            ).stdout
            found = re.findall(r"^\s*([\d,]+) \(.*?\)\s+\S*?:(\S+)", text, re.MULTILINE)
            counts.append({name: int(number.replace(",", "")) for number, name in found})
    few, many = counts
    per_packet = {name: (number - few.get(name, 0)) / (MANY - FEW) for name, number in many.items()}
    top = sorted(per_packet.items(), key=lambda pair: -pair[1])[:TOP]
    return {name: round(number, 1) for name, number in top if number >= 1}


def compare(known: dict[str, float], counted: dict[str, float]) -> list[str]:
    """Print each operation's counts; return a sentence for each that has grown too much."""
    complaints = []
    for operation, now in counted.items():
        before = known.get(operation)
        change = "new" if before is None else f"{now / before - 1:+.1%}"
        print(f"{operation:<20} {now:>8.1f} instructions per packet, {before or 0:>8.1f} recorded  {change}")
        if before is None or now > before * (1 + TOLERANCE):
            complaints.append(f'"{operation}": {now}')
        elif now < before * (1 - TOLERANCE):
            print(f"{'':<20} fewer: set it to {now}, so that it stays so")
    return complaints


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--record", action="store_true", help="add the numbers of a compiler that has none yet"
    )
    parser.add_argument(
        "--profile", action="store_true", help="write benchmarks/results/profile, for the docs"
    )
    args = parser.parse_args(argv)
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not there (Debian: apt-get install valgrind).")
    core = build_core()
    if core is None:
        return 1
    here = f"{machine(core)['compiler']}, {platform.machine()}"
    recorded = json.loads(COUNTS.read_text(encoding="utf-8"))
    counted = {operation: instructions(core, operation) for operation in OPERATIONS}
    complaints = compare(recorded.get(here, {}), counted)
    if args.profile:
        operations = {
            operation: {"instructions": count, "functions": profile(core, operation)}
            for operation, count in counted.items()
        }
        write({"compiler": here, "operations": operations}, PROFILE)
    if here not in recorded:
        print(f"{COUNTS.name} has no numbers of {here}: nothing to compare with.")
        if args.record:
            recorded[here] = counted
            COUNTS.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")
        return 0
    if complaints:
        print(
            f"\nOver {TOLERANCE:.0%} more than recorded, or new. If it is meant to be, say why in the commit, and"
        )
        print(f'set, under "{here}" in benchmarks/{COUNTS.name}:', *complaints, sep="\n  ")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
