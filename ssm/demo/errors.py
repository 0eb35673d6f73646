# SPDX-License-Identifier: Apache-2.0
"""What can go wrong that the user can mend: each error is one sentence."""


class DemoError(Exception):
    """Wrong input or a wrong setting; nothing was run."""


class CrewError(Exception):
    """A process of the run failed or died."""
