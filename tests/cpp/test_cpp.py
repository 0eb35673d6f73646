# SPDX-License-Identifier: Apache-2.0
"""ssm.hpp, by each compiler that is here: its test builds without a warning, and passes."""

import shutil
from pathlib import Path

import pytest

from tests.cmake import ROOT, build, run
from tests.isolation import cannot_run

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]


@pytest.mark.parametrize(
    "variant", [["-std=c++17"], ["-std=c++20"], ["-std=c++17", "-fno-exceptions"]], ids="-".join
)
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_hpp(compiler: str, variant: list[str], tmp_path: Path) -> None:
    if not shutil.which(compiler):
        cannot_run(f"{compiler} is not installed")
    library = build("release", ("ssm_static",)) / "libssm.a"
    program = tmp_path / "test_hpp"
    source = ROOT / "tests/cpp/test_hpp.cpp"
    run(compiler, *variant, *WARNINGS, f"-I{ROOT / 'ssm/src'}", source, library, "-pthread", "-o", program)
    run(program)
