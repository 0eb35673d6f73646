# SPDX-License-Identifier: Apache-2.0
"""RMIDs in the kernel: a BPF program gives each process that runs an RMID, and counts under it.

bpf/rmid_tasks.bpf.c uses the RMID allocator inside the kernel, attached to the scheduler. This is its loader, by libbpf
and ctypes; bpf/rmid_tasks.c is the same in C. It starts a few processes that are given a processor again and again, and
says which RMIDs they had; when they have ended, the RMIDs rest and are given out again.

Needs root, clang, libbpf with its headers (Debian: libbpf-dev), and a kernel with BTF.

python examples/12_rmid_bpf.py [processes]
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

from allocators.bpf import include

SOURCE = Path(__file__).parent / "bpf" / "rmid_tasks.bpf.c"
NAPS = 20  # of each process: so often it gives up its processor, at least


class Process(ctypes.Structure):
    """As in rmid_tasks.bpf.c."""

    _fields_ = [("rmid", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("switches", ctypes.c_uint64)]


def why_not() -> str | None:
    """Say what is missing here."""
    if os.geteuid() != 0:
        return "loading BPF programs needs root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel has no BTF, so a program cannot read its structs"
    if shutil.which("clang") is None:
        return "clang is not installed"
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return "libbpf is not installed"
    if not Path("/usr/include/bpf/bpf_helpers.h").exists():
        return "libbpf's headers are not installed"
    return None


def compile_program(folder: Path) -> Path:
    """Compile the BPF program with the allocator's header."""
    target = folder / "rmid_tasks.bpf.o"
    machine = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-target", "bpf", "-O2", "-g", f"-I{include()}", machine, "-c", SOURCE, "-o", target]
    subprocess.run(command, check=True)
    return target


class Loader:
    """The program in the kernel, attached; gone at the end of the with statement."""

    def __init__(self, program: Path) -> None:
        self.bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name in ("bpf_object__open_file", "bpf_object__next_program", "bpf_program__attach"):
            getattr(self.bpf, name).restype = ctypes.c_void_p
        self.bpf.libbpf_set_print(None)
        self.object = self.pointer(self.bpf.bpf_object__open_file(os.fsencode(program), None))
        self.links: list[ctypes.c_void_p] = []

    def pointer(self, value: int | None) -> ctypes.c_void_p:
        if not value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return ctypes.c_void_p(value)

    def __enter__(self) -> Self:
        error = self.bpf.bpf_object__load(self.object)
        if error:
            raise OSError(-error, os.strerror(-error))
        program = None
        while program := self.bpf.bpf_object__next_program(self.object, ctypes.c_void_p(program)):
            self.links.append(self.pointer(self.bpf.bpf_program__attach(ctypes.c_void_p(program))))
        self.map = self.bpf.bpf_object__find_map_fd_by_name(self.object, b"processes")
        return self

    def __exit__(self, *error: object) -> None:
        for link in self.links:
            self.bpf.bpf_link__destroy(link)
        self.bpf.bpf_object__close(self.object)

    def process(self, pid: int) -> Process | None:
        """Return what the kernel noted of a process; None: it has no RMID."""
        found = Process()
        missing = self.bpf.bpf_map_lookup_elem(
            self.map, ctypes.byref(ctypes.c_uint32(pid)), ctypes.byref(found)
        )
        return None if missing else found


def main(count: int = 4) -> None:
    """Run the processes, and ask the kernel about them."""
    if reason := why_not():
        print(f"skipped: {reason}")
        return
    nap = f"import time\nfor _ in range({NAPS}): time.sleep(0.005)\nprint(flush=True); input()"
    with tempfile.TemporaryDirectory() as folder, Loader(compile_program(Path(folder))) as loader:
        command = [sys.executable, "-c", nap]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        children = [subprocess.Popen(command, **pipes) for _ in range(count)]
        rmids = []
        for child in children:
            child.stdout.readline()  # it has slept long enough, and lives
            noted = loader.process(child.pid)
            rmids.append(noted.rmid if noted else 0)
            enough = noted is not None and noted.switches >= NAPS
            print(f"process {child.pid}: RMID {rmids[-1]}, switched to at least {NAPS} times: {enough}")
        for child in children:
            child.communicate("\n")
        print(f"{count} processes, {len(set(rmids) - {0})} RMIDs")
        until = time.monotonic() + 5
        while any(loader.process(child.pid) for child in children) and time.monotonic() < until:
            time.sleep(0.01)  # the kernel frees a process a little after its end
        left = sum(loader.process(child.pid) is not None for child in children)
        print(f"after their end {left} of them still have one")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
