# SPDX-License-Identifier: Apache-2.0
"""The labelled operations of a Promela model, and the model with a switch at each of them.

A label stands in a comment beside its operation, as in the C code. `steps` reads which operations a label has, and
`with_switches` writes the model so that BUG=100, 101, ... makes the first, second, ... of them relaxed, or takes a
fence away. So each labelled order can be weakened without anybody having seeded it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/testing.md"
FIRST = 100  # as BUG; below are the orders that are seeded by hand

LABEL = r"[A-Z]\d{1,2}"
BEGINS_WITH_LABELS = re.compile(rf"/\*\s*({LABEL}(?:, {LABEL})*)(?=\s*(?:->|:|;|\*/))")
CALL = re.compile(
    r"\b(?:(?P<kind>load|store|rmw_read|rmw_write|fetch_\w+|fence)\("
    r"(?P<order>\((?:[^()]|\([^()]*\))*\)|\w+)(?:, (?P<location>\w+))?|(?P<full>fence_seqcst|membarrier)\(\))"
)
LOCATION = re.compile(r"^#define (\w+)(?:\(\w+\))? .*/\* (\w+(?:, \w+)*) \*/", re.MULTILINE)


class Step(NamedTuple):
    """What a label stands beside, in one model: all places of it at once."""

    label: str
    what: str  # "store REL", "fence_seqcst"
    location: str  # of the model; a fence has none

    def __str__(self) -> str:
        return f"{self.what} of {self.location}" if self.location else self.what


class Outcome(NamedTuple):
    """A row of the table: what comes of a step that is weakened."""

    operation: str  # of the C code
    model: str
    step: Step
    scene: int | None  # which finds it
    reason: str  # why no scene does


class Place(NamedTuple):
    """One call in the text of a model."""

    start: int
    end: int
    line: int
    what: str
    location: str


def place_of(call: re.Match[str], text: str) -> Place:
    line = text.count("\n", 0, call.start()) + 1
    if call["full"]:
        return Place(call.start(), call.end(), line, call["full"], "")
    plain = call["order"].strip("()").split(":")[-1].strip()  # without a seeded order
    kind = "rmw" if call["kind"].startswith(("rmw", "fetch")) else call["kind"]
    span = (call.start(), call.end() + 1) if kind == "fence" else call.span("order")
    return Place(*span, line, f"{kind} {plain}", call["location"] or "")


def text_of(model: str) -> str:
    return (HERE / f"{model}.pml").read_text()


def blanked(text: str) -> str:
    """Without its comments; lines and columns stay."""
    return re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)


@cache
def steps(model: str) -> dict[Step, list[Place]]:
    """Each labelled operation, with its places. A read-modify-write has two: its read stands above its write."""
    text = text_of(model)
    calls = list(CALL.finditer(blanked(text)))
    found: dict[Step, list[Place]] = {}
    for comment in BEGINS_WITH_LABELS.finditer(text):
        line = text.count("\n", 0, comment.start()) + 1
        for number, call in enumerate(calls):
            place = place_of(call, text)
            if place.line != line:
                continue
            places = [place]
            if call["kind"] == "rmw_write":
                read = next(c for c in reversed(calls[:number]) if c["kind"] == "rmw_read")
                assert read["location"] == call["location"], f"{model}.pml:{line}: what does it read?"
                places.append(place_of(read, text))
            elif call["kind"] == "rmw_read":
                continue  # with its write
            for label in re.findall(LABEL, comment[1]):
                found.setdefault(Step(label, place.what, place.location), []).extend(places)
    return found


def labelled_lines(model: str) -> dict[str, list[int]]:
    """The lines that have a label, with an operation or with none."""
    text = text_of(model)
    found: dict[str, list[int]] = {}
    for comment in BEGINS_WITH_LABELS.finditer(text):
        for label in re.findall(LABEL, comment[1]):
            found.setdefault(label, []).append(text.count("\n", 0, comment.start()) + 1)
    return found


@cache
def words(model: str) -> dict[str, set[str]]:
    """Which fields of the C code a location stands for: ``#define HEAD 0 /* index */``."""
    return {name: set(fields.split(", ")) for name, fields in LOCATION.findall(text_of(model))}


def switch(model: str, step: Step) -> int:
    """BUG for it."""
    return FIRST + list(steps(model)).index(step)


def with_switches(model: str) -> str:
    """The text of the model."""
    numbers: dict[Place, set[int]] = {}
    for step, places in steps(model).items():
        for place in places:
            numbers.setdefault(place, set()).add(switch(model, step))
    text = text_of(model)
    for place in sorted(numbers, reverse=True):
        there = text[place.start : place.end]
        chosen = " || ".join(f"bug == {number}" for number in sorted(numbers[place]))
        if place.what.startswith(("fence", "membarrier")):
            there = f"if :: ({chosen}) -> skip :: else -> {there} fi"
        else:
            there = f"(({chosen}) -> RLX : {there})"
        text = text[: place.start] + there + text[place.end :]
    return text


ROW = re.compile(
    rf"^\| ({LABEL}) \| (.*?) \| `(\w+)\.pml`: ([^|]*?)(?: of ([A-Z]\w*))? \| (?:scene (\d+)|not found: (.*?)) \|$",
    re.MULTILINE,
)


@cache
def outcomes() -> list[Outcome]:
    """The table of docs/testing.md."""
    return [
        Outcome(said, model, Step(label, what, location), int(scene) if scene else None, reason)
        for label, said, model, what, location, scene, reason in ROW.findall(PAGE.read_text())
    ]
