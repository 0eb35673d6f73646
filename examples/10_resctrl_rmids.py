# SPDX-License-Identifier: Apache-2.0
"""RMIDs for groups of processes, as the kernel's resctrl has them.

A machine with cache monitoring counts, in each group of /sys/fs/resctrl/mon_groups, what its processes use; a group is
a resource monitoring id (RMID) of the processor, and there are few. This hands RMIDs to jobs, makes a monitoring group
for each, and reads its counters. When a job ends, its RMID rests: what is still in the cache is counted under it, and
must not be booked on the next job. Where there is no resctrl, a directory tree like it is used.

python examples/10_resctrl_rmids.py [directory]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from allocators import RmidAllocator

RESCTRL = Path("/sys/fs/resctrl")
REST_NS = 20_000_000


def make_tree(root: Path, rmids: int) -> None:
    """Lay out what this program needs of resctrl, with one cache domain."""
    (root / "info" / "L3_MON").mkdir(parents=True)
    (root / "info" / "L3_MON" / "num_rmids").write_text(f"{rmids}\n")
    (root / "mon_groups").mkdir()


class Monitor:
    """Jobs under RMIDs: a monitoring group for each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        count = int((root / "info" / "L3_MON" / "num_rmids").read_text())
        self.rmids = RmidAllocator(min(count - 1, 1024), REST_NS)  # RMID 0 is the root group's
        self.is_real = root == RESCTRL

    def start(self, pid: int) -> int:
        """Give the process an RMID and a group; 0: none is free, or the first has not rested yet."""
        rmid = self.rmids.alloc()
        if rmid:
            group = self.root / "mon_groups" / f"rmid-{rmid}"
            group.mkdir()
            if not self.is_real:  # there the kernel makes these
                (group / "mon_data" / "mon_L3_00").mkdir(parents=True)
                (group / "mon_data" / "mon_L3_00" / "llc_occupancy").write_text(f"{rmid * 4096}\n")
            (group / "tasks").write_text(f"{pid}\n")
        return rmid

    def occupancy(self, rmid: int) -> int:
        """Return the bytes of cache that the group has, in all domains."""
        files = (self.root / "mon_groups" / f"rmid-{rmid}").glob("mon_data/mon_L3_*/llc_occupancy")
        return sum(int(file.read_text()) for file in files)

    def end(self, rmid: int) -> None:
        """Remove the group; the RMID rests from now on."""
        group = self.root / "mon_groups" / f"rmid-{rmid}"
        if not self.is_real:
            for path in sorted(group.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        group.rmdir()
        self.rmids.free(rmid)


def watch(root: Path) -> None:
    """Run jobs until no RMID is left, end two, and start another one."""
    monitor = Monitor(root)
    jobs = []
    while len(jobs) < 3 and (rmid := monitor.start(os.getpid())):
        jobs.append(rmid)
        print(f"job {len(jobs)} has RMID {rmid}, {monitor.occupancy(rmid)} bytes of cache")
    for rmid in jobs[1::-1]:
        monitor.end(rmid)
    print(f"ended: RMID {jobs[1]}, then {jobs[0]}; in use: {list(monitor.rmids)}")
    if monitor.rmids.max_rmid == 3:
        print(f"another job at once: RMID {monitor.start(os.getpid())}, they rest")
        time.sleep(2 * REST_NS / 1e9)
        rmid = monitor.start(os.getpid())
        print(f"after the rest: RMID {rmid}, the one that ended first")
        monitor.end(rmid)
    for rmid in list(monitor.rmids):
        monitor.end(rmid)


def main(folder: str | None = None) -> None:
    """Watch the real one, a directory that was given, or one of our own."""
    if folder is not None:
        watch(Path(folder))
    elif (RESCTRL / "info" / "L3_MON" / "num_rmids").exists() and os.access(RESCTRL / "mon_groups", os.W_OK):
        print(f"monitoring by {RESCTRL}")
        watch(RESCTRL)
    else:
        print("this machine has no resctrl (mount -t resctrl resctrl /sys/fs/resctrl): a tree like it")
        with tempfile.TemporaryDirectory() as own:
            make_tree(Path(own), 4)
            watch(Path(own))


if __name__ == "__main__":
    main(*sys.argv[1:])
