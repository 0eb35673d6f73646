# SPDX-License-Identifier: Apache-2.0
"""The C tests of this folder, each through ctest as a test of its own."""

from pathlib import Path

import pytest

from tests.cmake import build, run
from tests.isolation import cannot_run

PROGRAMS = sorted(path.stem for path in Path(__file__).parent.glob("test_*.c"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_c(program: str) -> None:
    output = run(
        "ctest", "--test-dir", build(), "-R", f"^{program}$", "--output-on-failure", "--no-tests=error"
    )
    if "***Skipped" in output:
        cannot_run(f"{program} says that it cannot run here")
