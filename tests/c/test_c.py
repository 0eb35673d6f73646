# SPDX-License-Identifier: Apache-2.0
"""The C tests of this folder, each through ctest as a test of its own."""

from pathlib import Path

import pytest

from tests.cmake import build, run

PROGRAMS = sorted(path.stem for path in Path(__file__).parent.glob("test_*.c"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_c(program: str) -> None:
    output = run(
        "ctest", "--test-dir", build(), "-R", f"^{program}$", "--output-on-failure", "--no-tests=error"
    )
    if "***Skipped" in output:
        pytest.skip(f"{program} says that it cannot run here")
