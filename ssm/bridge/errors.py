# SPDX-License-Identifier: Apache-2.0
"""What bridges raise."""

from __future__ import annotations

from ssm.errors import SSMError


class BridgeError(SSMError, RuntimeError):
    """A bridge cannot do what it was asked to; the message says what is in the way, and the remedy."""


class WireError(BridgeError):
    """A message from the other host is none that a bridge sends; it is dropped."""


class VersionMismatch(WireError):
    """The other host speaks another version of the bridges' protocol."""
