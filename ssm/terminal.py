# SPDX-License-Identifier: Apache-2.0
"""What goes to a screen: texts that others wrote, with nothing in them that a terminal would obey.

Names of pools, rings, services and processes, and the errors that quote them, may hold anything: escape sequences,
line ends, marks that turn the direction of writing. All output for people goes through `plain`.
"""

from __future__ import annotations

import sys


def plain(text: object) -> str:
    """Return the text on one line, as it can be shown: what is not printable is escaped as `repr` does it."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in shown
    )


def say(line: object = "", *, error: bool = False) -> None:
    """Print one line for people, to standard output or to standard error.

    What the output's encoding does not have is escaped, too.
    """
    file = sys.stderr if error else sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(plain(line).encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)
