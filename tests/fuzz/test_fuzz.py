# SPDX-License-Identifier: Apache-2.0
"""The fuzzer's corpus, replayed, and the fields of all shared structs, written over: each through ctest."""

import pytest

from tests.cmake import build, run


@pytest.mark.parametrize("program", ["fuzz_corpus", "fuzz_scribble"])
def test_fuzz(program: str) -> None:
    run("ctest", "--test-dir", build(), "-R", f"^{program}$", "--output-on-failure", "--no-tests=error")
