# SPDX-License-Identifier: Apache-2.0
"""What can go wrong that the user can mend: each error is one sentence."""


class DemoError(Exception):
    """A wrong setting, or a file that does not agree with the settings; nothing was run."""


class CrewError(Exception):
    """A process of the run failed or died."""
