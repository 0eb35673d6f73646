# SPDX-License-Identifier: Apache-2.0
"""The harness bites: each bug of ssm/src/platform/seed_bug.h is found, and by the tool that is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.crash.programs import BUGS, FOUND_BY_SOAK, run

HEADER = Path(__file__).resolve().parents[2] / "ssm" / "src" / "platform" / "seed_bug.h"

# Bug: the operation during which it is found, and what the checker says.
FOUND = {
    "NO_INTENT": ("put: empty ring", "are the ring's, but are not queued"),
    "INTENT_EARLY": ("put: over an old handle", "was delivered torn"),
    "HEAD_EARLY": ("put: 3 packets", "was delivered torn"),
    "NO_UNDO": ("put: empty ring", "carries ring"),
    "TAIL_EARLY": ("get: one of two", "are the ring's, but are not queued"),
    "NO_REBUILD": ("alloc: refill", "contradicts itself"),
    "NO_SCRUB": ("alloc: lock of a dead process", "still locked"),
    "SLOT_EARLY": ("alloc: from the cache", "where nobody lives"),
    "LONG_SLEEP": ("free: somebody sleeps", "the blocked call went on"),
    "RING_EARLY": ("ring_open: new", "has no name"),
    "NO_JOURNAL": ("ids: alloc", "the service"),
    "RUSHED_THIEF": ("", "fault"),
    "NO_RETURN": ("redelivering get: 3", "a holder slot that no process has"),
    "NO_HANDOVER": ("redelivering get: put into", "delivered twice"),
    "TAKE_HEAD_FIRST": ("chain: get", "carries ring"),
    "DROP_HEAD_FIRST": ("chain: get behind a half-taken one", "carries ring"),
    "NO_NEW_TREE": ("arena alloc: fresh", "arena: tree"),
    "SILENT_RELEASE": ("close: everything in hand", "lost: nobody holds it"),
    "VIEW_DELAYS": ("redelivering get: free, viewed", "came back although they had been freed"),
    "TRUSTED_LEFTOVER": ("growing arena alloc: an extent", "units that are not reserved"),
    "WIDE_EARLY": ("growing ring put: more slots", "are the ring's, but are not queued"),
    "KEEP_STOLEN": ("alloc: from another process's cache", "which is not its own"),
    "UNLINK_USED": ("unlink: a ring that the peer has", "which is none"),
    "UNLINK_QUEUED": ("unlink: a ring that nobody has", "a holder slot that nobody has"),
    "NO_FORGET": ("ring_close: the last user", "which is none, or it is no process"),
    "DONE_EARLY": ("done put: a new packet", "packets are lost"),
    "DONE_LATE": ("done put: a new packet", "delivered twice"),
    "KEEP_TAKEN": ("get: one of two", "was delivered torn"),
    "OWNED_STAYS": ("topic: reap the owner of a ring", 'the ring "owned" is left'),
    "OWNER_FIRST": ("call: reap a caller", 'the ring "replies" is left'),
}
SOON = {
    "NO_INTENT",
    "NO_REBUILD",
    "NO_JOURNAL",
}  # one of a ring, of a block and of a service; the others are slow


def seeded() -> dict[int, str]:
    """Numbers and names, in the order of the header."""
    names = re.findall(r"^    SSM_BUG_(\w+)", HEADER.read_text(), re.MULTILINE)
    return dict(enumerate(names, start=1))


def test_every_bug_is_looked_for() -> None:
    assert list(seeded().values()) == list(FOUND)
    assert len(FOUND) == BUGS


@pytest.mark.parametrize(
    ("number", "name"),
    [
        pytest.param(number, name, id=name, marks=() if name in SOON else pytest.mark.slow)
        for number, name in seeded().items()
    ],
)
def test_it_is_found(number: int, name: str) -> None:
    operation, complaint = FOUND[name]
    if number in FOUND_BY_SOAK:
        status, output = run(f"ssm_soak_bug{number}", "--seconds", "40", "--first")
    else:
        arguments = ("--narrow", "--only", operation, "--rescued", "2", "--first")
        status, output = run(f"ssm_killer_bug{number}", *arguments)
        assert "VIOLATION" in output
    assert status == 1
    assert complaint in output
