# SPDX-License-Identifier: Apache-2.0
"""What `make mutants` goes by: tests and sources that are there, and arguments that still stand for something."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from tests.mutants import __main__ as mutants

OWNERS = mutants.owners()


@pytest.mark.parametrize("name", OWNERS)
def test_what_a_file_goes_by_is_there(name: str) -> None:
    own = OWNERS[name]
    assert own.programs or own.pytest
    for source in own.sources:
        mutants.path_of(source)
    for program in own.programs:
        assert (mutants.ROOT / "tests/c" / f"{program}.c").is_file()
    for pattern in own.pytest:
        assert list(mutants.ROOT.glob(pattern))


def test_each_source_of_the_core_is_mutated() -> None:
    """A new file gets the tests that are its own; the binding is tested from Python, as a whole."""
    listed = Counter(mutants.path_of(source) for own in OWNERS.values() for source in own.sources)
    core = {
        str(path.relative_to(mutants.ROOT))
        for path in (mutants.ROOT / "ssm/src").glob("*/*.[ch]")
        if path.parent.name != "binding"
    }
    assert {path: count for path, count in listed.items() if count > 1} == {}
    assert core - set(listed) == set()


def test_an_argument_is_about_a_line_that_is_there() -> None:
    paths = [mutants.path_of(source) for own in OWNERS.values() for source in own.sources]
    lines = {line.strip() for path in paths for line in (mutants.ROOT / path).read_text().splitlines()}
    assert {before for before, _ in mutants.arguments()} - lines == set()


@pytest.mark.skipif(
    shutil.which("mutate") is None, reason="universalmutator is not installed: make mutants does that"
)
def test_a_mutant_is_one_line_with_its_comment() -> None:
    found = mutants.mutants_of(mutants.path_of("lock.h"))
    assert len(found) > 10
    for mutant in found:
        assert mutant.before != mutant.after
        if "/*" in mutant.before and "*/" in mutant.before:
            assert mutant.after.rstrip().endswith("*/")
