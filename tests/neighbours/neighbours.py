# SPDX-License-Identifier: Apache-2.0
"""Each neighbour in a process of its own. Run by `make neighbours`, in an environment that has them all."""

import re
import subprocess
import sys

import pytest

from tests.neighbours.programs import PROGRAMS

PIPES = {"subproc_vec_env"}  # all others use queues


@pytest.mark.parametrize("name", PROGRAMS)
def test_neighbour(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.neighbours.programs", name],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    queues, pipes = map(int, re.search(r"queues of ours: (\d+), pipes of ours: (\d+)", done.stderr).groups())
    assert (pipes if name in PIPES else queues) > 0
