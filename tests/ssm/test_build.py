# SPDX-License-Identifier: Apache-2.0
"""What others get: the wheel, and the installed C library with its CMake package and pkg-config file."""

import os
import platform
import re
import shutil
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest

from tests.cmake import ROOT, build, run
from tests.test_examples import EXAMPLES
from tests.test_examples import run as run_example

QUICK_EXAMPLES = {"01", "02", "17"}
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

USER_C = r"""
#include <ssm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    struct ssm_pool_options options;
    struct ssm_pool *pool;
    struct ssm_ring *ring;
    struct ssm_ring_options plain = {0};
    uint64_t handle;
    int fd = memfd_create("ssm-test", 0);
    ssm_pool_options_default(&options);
    struct ssm_attach_options attach = {.name = "user"};
    int error = ssm_pool_create(fd, &options, &attach, &pool);
    if (error == 0)
        error = ssm_alloc(pool, 100, 0, &handle);
    if (error == 0)
        error = ssm_free(pool, handle);
    if (error == 0)
        error = ssm_ring_open(pool, "ring", &plain, &ring);
    if (error != 0) {
        fprintf(stderr, "%s\n", ssm_strerror(error));
        return 1;
    }
    uint32_t capacity = ssm_ring_capacity(ring);
    ssm_ring_close(ring);
    ssm_pool_close(pool);
    ssm_pool_destroy(pool);
    close(fd);
    printf("shards=%u\nholders=%u\nring=%u\n", options.shards, options.holders, capacity);
    for (uint32_t i = 0; i < options.class_count; i++)
        printf("%u=%u\n", (unsigned)options.classes[i].block_size, options.classes[i].block_count);
    return 0;
}
"""
USER_CMAKE = """
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C)
find_package(ssm 0.2 REQUIRED)
add_executable(with_shared user.c)
target_link_libraries(with_shared PRIVATE ssm::ssm)
add_executable(with_static user.c)
target_link_libraries(with_static PRIVATE ssm::ssm_static)
"""
DEFAULTS = {
    "shards": 4,
    "holders": 128,
    "ring": 1024,
    "256": 1024,
    "512": 768,
    "1024": 512,
    "2048": 384,
    "4096": 256,
    "16384": 128,
    "65536": 64,
    "262144": 32,
    "1048576": 16,
}


# ---- the wheel -------------------------------------------------------------------------------------

of_the_wheel = pytest.mark.xdist_group("wheel")


def build_wheel(folder: Path, build_dir: str) -> tuple[Path, str]:
    """The wheel, and what its build said."""
    options = ["--no-deps", "--no-build-isolation", "-C", f"build-dir={build_dir}"]
    log = run(sys.executable, "-m", "pip", "wheel", "--verbose", *options, "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path, log


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From what the editable installation has compiled."""
    return build_wheel(tmp_path_factory.mktemp("wheel"), "build/python/editable-{wheel_tag}")[0]


@pytest.mark.slow
def test_wheel_builds_without_a_warning(tmp_path: Path) -> None:
    """Nothing is compiled before."""
    log = build_wheel(tmp_path, str(tmp_path / "build"))[1]
    # pip's own (an index that is away, a newer pip) are not the build's: theirs are not indented.
    warnings = [line for line in log.splitlines() if re.search(r"^\s.*\bwarning\b", line, re.IGNORECASE)]
    assert warnings == []


@of_the_wheel
def test_wheel_holds_python_extension_modules_and_the_page_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = [PurePosixPath(name) for name in archive.namelist()]
    packaged = [file for file in files if not file.parts[0].endswith(".dist-info")]
    assert {file.parts[0] for file in packaged} == {"ssm", "allocators"}
    bpf = {
        file.name
        for file in packaged
        if file.parent == PurePosixPath("allocators/bpf") and file.suffix != ".py"
    }
    assert bpf == {"rmid_allocator.bpf.h", "rmid_allocator.bpf.c", "rmid.h"}
    page = {
        file.name for file in packaged if file.parent == PurePosixPath("ssm/web") and file.suffix != ".py"
    }
    assert page == {"page.html", "page.css", "page.js", "icon.svg"}
    other = {file for file in packaged if file.name not in {"py.typed", *bpf, *page}}
    assert {file.suffix for file in other} == {".py", ".pyi", ".so"}
    for package in ("ssm", "allocators"):
        inside = {file.name.split(".")[0]: file for file in packaged if file.parts[0] == package}
        assert {"__init__", "py", "_core"} <= inside.keys()
    assert sum(file.suffix == ".so" for file in packaged) == 2
    assert sum(file.name == "_core.pyi" for file in packaged) == 2


@of_the_wheel
def test_wheel_names_its_abi_and_its_licence(wheel: Path) -> None:
    _, _, python, abi, platform = wheel.stem.split("-")
    version = "cp{}{}".format(*sys.version_info)
    assert (python, abi) == ((version, f"{version}t") if FREE_THREADED else ("cp311", "abi3"))
    assert platform.startswith("linux_")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = message_from_bytes(archive.read(metadata))
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"ssm = ssm.cli:main" in archive.read(entry_points).replace(b"ssm=", b"ssm = ")
    assert (fields["Name"], fields["License-Expression"]) == ("ssm-pool", "Apache-2.0")
    assert fields["License-File"] == "LICENSE"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a new environment with the wheel in it. What the wheel needs comes from ours."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = str(folder / "bin/python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(
        sysconfig.get_path("purelib")
    )  # which has ssm as a hook only, not read here
    where = run(python, "-c", "import ssm; print(ssm.__file__)", cwd=folder).strip()
    assert where == str(packages / "ssm/__init__.py")
    return python


@of_the_wheel
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem[:2] in QUICK_EXAMPLES else pytest.mark.slow)
        for path in EXAMPLES
    ],
)
def test_examples_run_on_the_installed_wheel(example: Path, installed: str, tmp_path: Path) -> None:
    """From another directory, with nothing of the repository but the example."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run_example(example, python=installed, cwd=tmp_path, env=environment)


def test_sdist_holds_what_a_build_needs(tmp_path: Path) -> None:
    command = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", command, tmp_path)
    (path,) = tmp_path.glob("ssm_pool-*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CMakeLists.txt", "cmake/python.cmake", "ssm/src/ssm.h"} <= files
    assert {str(file.relative_to(ROOT)) for file in ROOT.glob("*/src/**/*.[ch]")} <= files
    assert not [file for file in files if file.startswith((".ci", ".venv", "build/"))]


# ---- the C library ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build(), "--prefix", folder)
    return folder


@pytest.fixture
def user_c(tmp_path: Path) -> Path:
    source = tmp_path / "user.c"
    source.write_text("#define _GNU_SOURCE\n" + USER_C)
    (tmp_path / "CMakeLists.txt").write_text(USER_CMAKE)
    return source


def printed(output: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split("=") for line in output.split())}


def test_cmake_package_gives_both_libraries(prefix: Path, user_c: Path) -> None:
    project = user_c.parent
    run("cmake", "-G", "Ninja", "-S", project, "-B", project / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", project / "b")
    for program in ("with_shared", "with_static"):
        assert printed(run(project / "b" / program)) == DEFAULTS


def test_c_example_builds_against_the_installed_library(prefix: Path, tmp_path: Path) -> None:
    run("cmake", "-G", "Ninja", "-S", ROOT / "examples/c", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    assert (tmp_path / "producer").exists()


def pkg_config(prefix: Path, *options: str) -> list[str]:
    (folder,) = prefix.glob("**/pkgconfig")
    program = next(filter(shutil.which, ("pkg-config", "pkgconf")), "pkgconf")
    return run(program, *options, "ssm", env={"PKG_CONFIG_PATH": str(folder)}).split()


def test_pkg_config_gives_both_libraries(prefix: Path, user_c: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    libdir = pkg_config(prefix, "--variable=libdir")[0]
    program = user_c.with_suffix("")
    run(compiler, user_c, *pkg_config(prefix, "--cflags", "--libs"), f"-Wl,-rpath,{libdir}", "-o", program)
    assert printed(run(program)) == DEFAULTS
    run(compiler, user_c, *pkg_config(prefix, "--cflags"), f"{libdir}/libssm.a", "-pthread", "-o", program)
    assert printed(run(program)) == DEFAULTS


def test_moved_prefix_still_works(prefix: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(prefix, moved, symlinks=True)
    (flag,) = pkg_config(moved, "--cflags")
    assert Path(flag.removeprefix("-I")).resolve() == (moved / "include").resolve()


def test_shared_library_exports_what_the_header_declares(prefix: Path) -> None:
    header = (prefix / "include/ssm.h").read_text()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    inline = set(re.findall(r"static inline \w+ (ssm_\w+)\(", header))
    declared = set(re.findall(r"\b(ssm_\w+)\(", header)) - inline
    (library,) = prefix.glob("lib*/**/libssm.so")
    symbols = run("nm", "--dynamic", "--defined-only", library).splitlines()
    exported = {line.split()[2] for line in symbols if line.split()[1] in "TtDdBbRr"}
    assert {name.split("@")[0] for name in exported} == declared, "cmake/ssm.map has to name them all"
    assert all(re.fullmatch(r"\w+@@SSM_\d+\.\d+", name) for name in exported)


def test_one_version_everywhere(prefix: Path) -> None:
    """Python's is that of the last tag, which the workflow of a release compares with ssm.h."""
    header = (prefix / "include/ssm.h").read_text()
    version = ".".join(re.findall(r"#define SSM_VERSION_\w+ (\d+)", header))
    crate = tomllib.loads((ROOT / "bindings/rust/Cargo.toml").read_text())["package"]
    assert pkg_config(prefix, "--modversion") == [version] == [crate["version"]]


OLDER_GLIBC = r"""
#include <features.h>
#undef __GLIBC_MINOR__
#define __GLIBC_MINOR__ 17 /* as a toolchain for that release says */
#include "platform/thread_lock.h"
#include <pthread.h>
#include <stdio.h>

static void *nothing(void *self) { return self; }

int main(void)
{
    pthread_t thread;
    const bool before = ssm_process_is_single_threaded();
    if (pthread_create(&thread, NULL, nothing, NULL) != 0)
        return 1;
    const bool during = ssm_process_is_single_threaded();
    pthread_join(thread, NULL);
    printf("%d %d\n", before, during);
    return 0;
}
"""


def test_a_build_for_an_older_glibc_asks_the_newer_one_that_runs_it(tmp_path: Path) -> None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    source = tmp_path / "older.c"
    source.write_text("#define _GNU_SOURCE\n" + OLDER_GLIBC)
    run("cc", "-O2", "-pthread", f"-I{ROOT / 'ssm/src'}", source, "-o", tmp_path / "older")
    newer = tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 32)
    assert run(tmp_path / "older").split() == [str(int(newer)), "0"]


def test_what_zig_compiles_for_is_checked() -> None:
    for target in ("", "x86_64-linux-gnu", "riscv64-linux-musl"):
        with pytest.raises(AssertionError, match=re.escape(f"SSM_ZIG_TARGET={target}: want such as")):
            run("cmake", "-P", ROOT / "cmake/zig.cmake", env={"SSM_ZIG": "zig", "SSM_ZIG_TARGET": target})


def test_header_is_strict_c11_and_cplusplus(prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "user.c"
    source.write_text("#include <ssm.h>\nint main(void) { return ssm_strerror(0) == 0; }\n")
    flags = [f"-I{prefix / 'include'}", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    run("cc", "-std=c11", *flags, source)
    if shutil.which("c++"):
        run("c++", "-x", "c++", "-std=c++17", *flags, source)


@pytest.mark.parametrize(
    ("changed", "without", "result"),
    [
        (
            {
                "SSM_POOL_SHARDS": 64,
                "SSM_POOL_256_BLOCKS": 5,
                "SSM_POOL_1M_BLOCKS": 0,
                "SSM_POOL_HOLDERS": 200,
                "SSM_RBUFF_SIZE": 100_000,
            },
            {"1048576"},
            {"shards": 64, "256": 5, "holders": 200, "ring": 100_000},
        ),
        pytest.param({"SSM_POOL_SHARDS": 1}, set(), {"shards": 1}, marks=pytest.mark.slow),
    ],
    ids=["many", "one shard"],
)
def test_cache_variables_reach_the_library(
    user_c: Path, changed: dict[str, int], without: set[str], result: dict[str, int]
) -> None:
    project = user_c.parent
    options = [f"-D{name}={value}" for name, value in changed.items()]
    options += ["-DSSM_TESTS=OFF", "-DSSM_EXAMPLES=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", project / "lib", *options)
    run("cmake", "--build", project / "lib", "--target", "ssm_static")
    program = project / "user"
    run("cc", user_c, f"-I{ROOT / 'ssm/src'}", project / "lib/libssm.a", "-pthread", "-o", program)
    expected = {key: value for key, value in DEFAULTS.items() if key not in without}
    assert printed(run(program)) == {**expected, **result}


def refusal(*command: str | Path) -> str:
    """What CMake says, on one line."""
    with pytest.raises(AssertionError) as caught:
        run("cmake", *command)
    return " ".join(str(caught.value).split())


KNOBS = re.findall(
    r"^\| `(SSM_\w+)` \| (\d+) \| (\d+) \.\. (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
)


def test_the_readme_has_all_knobs() -> None:
    text = (ROOT / "cmake/knobs.cmake").read_text().replace("${blocks_max}", "2147483647")
    assert re.findall(r"^ssm_knob\((\w+) +(\d+) +(\d+) (\d+) ", text, re.MULTILINE) == KNOBS
    assert len(KNOBS) == 14


@pytest.mark.parametrize(
    "value", ["below", "-1", "above", "9" * 30, "many", "", " 4", "4;5", "010", "0x10", "4.5"]
)
def test_each_knob_has_its_range(value: str) -> None:
    """The file of the knobs alone, and all of them at once: configuring takes a second."""
    wrong = {
        name: str(int(low) - 1) if value == "below" else str(int(high) + 1) if value == "above" else value
        for name, _, low, high in KNOBS
    }
    said = refusal(*(f"-D{name}:STRING={wrong[name]}" for name in wrong), "-P", ROOT / "cmake/knobs.cmake")
    for name, _, low, high in KNOBS:
        assert f"{name}={wrong[name]}: want a number, {low} .. {high} (" in said


def test_the_ends_of_each_range_are_taken() -> None:
    script = ("-P", ROOT / "cmake/knobs.cmake")
    run("cmake", *script)
    kept = "SSM_POOL_1M_BLOCKS"
    run("cmake", *(f"-D{name}={low}" for name, _, low, _ in KNOBS if name != kept), *script)
    high = ("SSM_POOL_SHARDS", "SSM_POOL_HOLDERS", "SSM_RBUFF_SIZE")
    run("cmake", *(f"-D{name}={most}" for name, _, _, most in KNOBS if name in high), *script)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-DSSM_POOL_SHARDS=many"], "SSM_POOL_SHARDS=many: want a number, 1 .. 64"),
        (["-DSSM_POOL_SHARDS=100"], "SSM_POOL_SHARDS=100: want a number, 1 .. 64"),
        (["-DSSM_RBUFF_SIZE=0"], "SSM_RBUFF_SIZE=0: want a number, 1 .. 16777216"),
        (
            ["-DSSM_PK_BUFF_HEADSPACE=1048544"],
            "SSM_PK_BUFF_TAILSPACE = 1048576: want less than the largest blocks",
        ),
        (["-DSSM_SEED_BUG=some"], "SSM_SEED_BUG=some: want a number"),
        (["-DSSM_SANITIZE=adress"], "SSM_SANITIZE=adress: want address"),
    ],
    ids=lambda value: value[0][2:] if isinstance(value, list) else "",
)
def test_cache_variables_are_checked(tmp_path: Path, options: list[str], says: str) -> None:
    assert says in refusal("-G", "Ninja", "-S", ROOT, "-B", tmp_path, *options)


def test_knobs_have_to_fit_together() -> None:
    script = ("-P", ROOT / "cmake/knobs.cmake")
    sizes = ["256", "512", "1K", "2K", "4K", "16K", "64K", "256K", "1M"]
    none = [f"-DSSM_POOL_{size}_BLOCKS=0" for size in sizes]
    assert "SSM_POOL_..._BLOCKS are 0 in all: want 1 .. 2147483647" in refusal(*none, *script)
    assert "want less than the largest blocks, which have 256 bytes" in refusal(*none[1:], *script)
    run("cmake", *none[1:], "-DSSM_PK_BUFF_HEADSPACE=200", *script)
    assert "in all: want 1 .." in refusal("-DSSM_POOL_1K_BLOCKS=2147483647", *script)
