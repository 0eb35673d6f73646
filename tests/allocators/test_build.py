# SPDX-License-Identifier: Apache-2.0
"""The allocators as a C library: installed, and used by a project that knows nothing of this one; freestanding."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from allocators.bpf import include
from tests.cmake import ROOT, run
from tests.isolation import cannot_run

pytestmark = pytest.mark.xdist_group("library of the allocators")

FOREIGN = Path(__file__).parent / "foreign"
SOURCES = sorted((ROOT / "allocators" / "src").glob("*.c"))
OF_A_C_LIBRARY = {"memcpy", "memset", "__popcountdi2"}
BARE = ["x86_64-unknown-none", "aarch64-none-elf", "riscv32-unknown-elf", "thumbv7m-none-eabi"]
HELPERS = {"__ctzdi2", "__muldi3", "__aeabi_lmul", "__ashldi3", "__lshrdi3", "__aeabi_llsl", "__aeabi_llsr"}
HELPERS |= {"__aeabi_memcpy", "__aeabi_memcpy4", "__aeabi_memcpy8", "__aeabi_memclr", "__aeabi_memclr4"}
HELPERS |= {"__aeabi_memclr8", "__clzdi2"}
EXIT = '__asm__ volatile("syscall" :: "a"(231), "D"(status)); __builtin_unreachable();'


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("allocators")
    run("cmake", "-G", "Ninja", "-S", ROOT / "allocators", "-B", folder / "build", "-DCMAKE_C_FLAGS=-Werror")
    run("cmake", "--build", folder / "build")
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return folder / "prefix"


def test_a_foreign_project_finds_both_libraries(prefix: Path, tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        cannot_run("there is no C++ compiler")
    run("cmake", "-G", "Ninja", "-S", FOREIGN, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    for program in ("c_shared", "c_static", "cpp_shared", "cpp_static"):
        run(tmp_path / program)
    assert "liballocators.so" in run("ldd", tmp_path / "c_shared")
    assert "liballocators.so" not in run("ldd", tmp_path / "c_static")


def pkg_config(prefix: Path, *options: str) -> list[str]:
    (folder,) = prefix.glob("**/pkgconfig")
    program = next(filter(shutil.which, ("pkg-config", "pkgconf")), "pkgconf")
    return run(program, *options, env={"PKG_CONFIG_PATH": str(folder)}).split()


def test_pkg_config_finds_both_libraries(prefix: Path, tmp_path: Path) -> None:
    libdir = pkg_config(prefix, "--variable=libdir", "allocators")[0]
    flags = pkg_config(prefix, "--cflags", "--libs", "allocators")
    cc, user = os.environ.get("CC", "cc"), FOREIGN / "user.c"
    run(cc, user, *flags, f"-Wl,-rpath,{libdir}", "-o", tmp_path / "shared")
    run(tmp_path / "shared")
    run(
        cc,
        user,
        *pkg_config(prefix, "--cflags", "allocators"),
        f"{libdir}/liballocators.a",
        "-o",
        tmp_path / "static",
    )
    run(tmp_path / "static")
    assert pkg_config(prefix, "--modversion", "allocators") == ["0.2.0"]


def test_pkg_config_finds_the_headers_for_bpf(prefix: Path) -> None:
    (flag,) = pkg_config(prefix, "--cflags", "rmid-allocator-bpf")
    installed = Path(flag.removeprefix("-I"))
    for name in ("rmid_allocator.bpf.h", "rmid_allocator.bpf.c", "rmid.h"):
        assert (installed / name).read_text() == (include() / name).read_text()


def test_each_optimisation_links(prefix: Path, tmp_path: Path) -> None:
    """What the headers inline is in the library too: without optimisation it is called."""
    libdir = pkg_config(prefix, "--variable=libdir", "allocators")[0]
    for level in ("-O0", "-Os", "-O3"):
        cflags = pkg_config(prefix, "--cflags", "allocators")
        run("cc", level, FOREIGN / "user.c", *cflags, f"{libdir}/liballocators.a", "-o", tmp_path / "user")
        run(tmp_path / "user")


# ---- without an operating system ------------------------------------------------------------------------


def undefined(*objects: Path) -> set[str]:
    """What the objects together need of others."""
    lines = run("nm", "--format=posix", *objects).splitlines()
    pairs = [line.split()[:2] for line in lines if len(line.split()) >= 2]
    return {name for name, kind in pairs if kind == "U"} - {
        name for name, kind in pairs if kind in "TtDdBbRrVWw"
    }


def test_freestanding_needs_three_functions(tmp_path: Path) -> None:
    headers = run("cc", "-print-file-name=include").strip()
    flags = [
        "-std=gnu11",
        "-ffreestanding",
        "-nostdinc",
        "-isystem",
        headers,
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    objects = [tmp_path / f"{source.stem}.o" for source in SOURCES]
    for source, target in zip(SOURCES, objects, strict=True):
        run("cc", *flags, "-c", source, "-o", target)
    assert undefined(*objects) <= OF_A_C_LIBRARY


def test_freestanding_program_without_a_c_library(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        cannot_run("the program's way out is that of x86-64")
    exit_h = tmp_path / "exit.h"
    exit_h.write_text(
        f"__attribute__((noreturn)) static inline void leave(int status) {{ {EXIT} }}\n#define EXIT leave\n"
    )
    flags = [
        "-std=gnu11",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-fno-stack-protector",
        "-fno-builtin",
        "-O2",
    ]
    program = tmp_path / "bare"
    include_dir = ROOT / "allocators" / "src"
    run(
        "cc",
        *flags,
        "-DFREESTANDING",
        "-include",
        exit_h,
        f"-I{include_dir}",
        FOREIGN / "user.c",
        *SOURCES,
        "-lgcc",
        "-o",
        program,
    )
    assert subprocess.run([program], check=False).returncode == 0


@pytest.mark.parametrize("target", BARE)
def test_compiles_for_a_bare_target(target: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        cannot_run("clang is not installed")
    headers = Path(run("clang", "-print-resource-dir").strip()) / "include"
    flags = [f"--target={target}", "-std=gnu11", "-ffreestanding", "-nostdinc", "-isystem", headers, "-O2"]
    objects = [tmp_path / f"{source.stem}.o" for source in SOURCES]
    for source, path in zip(SOURCES, objects, strict=True):
        run("clang", *flags, "-Wall", "-Wextra", "-Werror", "-c", source, "-o", path)
    if shutil.which("llvm-nm") is not None:
        lines = run("llvm-nm", "--undefined-only", "--just-symbol-name", *objects).split()
        names = {name for name in lines if not name.endswith(":") and not name.startswith("al_")}
        assert names <= OF_A_C_LIBRARY | HELPERS
