# SPDX-License-Identifier: Apache-2.0
"""Starts bridges quickly: a process that has imported what a bridge needs, and forks one for each line that it reads.

A line is the arguments of ``ssm bridge``, in JSON. It answers with the pid; when that process has ended, with its
status. So thousands of kills take minutes, and not the start of thousands of interpreters.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys

from tests.processes import PR_SET_PDEATHSIG


def end_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve until the input ends."""
    for name in ("ssm.cli", "ssm.commands.bridge", "ssm.bridge.config", "zmq.auth.thread", "zenoh"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from ssm import cli

    end_with_parent()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            os.close(0)
            status = 1
            try:
                status = cli.main(["bridge", *json.loads(line)])
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
