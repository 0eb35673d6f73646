# SPDX-License-Identifier: Apache-2.0
"""dpkt, which reads capture files and knows the headers, or a clear message where it is missing.

dpkt carries no types, so it is ``Any`` here and everything that leaves the modules that use it is typed.
"""

from __future__ import annotations

import importlib
from typing import Any

from ssm.captures.errors import CaptureError


def _load() -> Any:
    try:
        for part in ("ethernet", "ip", "ip6", "pcap", "pcapng", "sll", "sll2", "tcp", "udp"):
            importlib.import_module(f"dpkt.{part}")
        return importlib.import_module("dpkt")
    except ModuleNotFoundError as error:
        raise CaptureError('dpkt is missing; install it: pip install "ssm-pool[demo]"') from error


dpkt: Any = _load()
