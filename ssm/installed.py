# SPDX-License-Identifier: Apache-2.0
"""Why ssm cannot be imported: another distribution has put its files into the same folder.

Other projects install a package of that name, too. pip writes over files without a word, so that the folder has files
of both. This runs only when an import has failed: looking through all distributions takes a while.
"""

from __future__ import annotations

from importlib import metadata

OURS = "ssm-pool"


def others() -> list[str]:
    """Return the other distributions whose files are in a top-level package ``ssm``, with their versions."""
    found = {
        f"{each.name} {each.version}"
        for each in metadata.distributions()
        if each.name != OURS and any(file.parts[:1] == ("ssm",) for file in each.files or ())
    }
    return sorted(found)


def explain(error: ImportError) -> ImportError:
    """Return the error to raise instead: it names the other distribution and the way out. Or `error`."""
    there = others()
    if not there:
        return error
    names = " ".join(each.split()[0] for each in there)
    return ImportError(
        f"{' and '.join(there)} has put files into the package 'ssm' as well, and the two are mixed now ({error}). One "
        f"environment can have one of them: `pip uninstall {names} {OURS}`, then `pip install {OURS}`",
        name=error.name,
        path=error.path,
    )
