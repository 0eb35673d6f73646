# SPDX-License-Identifier: Apache-2.0
"""What moves messages between two bridges, and what a bridge may expect of it.

A message is a list of parts, each some bytes. A carrier promises little, so that any engine can be one:

- A message arrives whole, with the parts that it was sent with, or not at all.
- Messages of one side arrive in their order, as long as the link holds. A cut link, or a peer that ends, may lose those
  that are on their way. The carrier connects again by itself.
- A Carrier has one peer at a time, which has a name. Another one is not heard until the first has been silent for
  `SILENCE_S`. A peer that was started anew has the name that it had. An Exchange has several.

Sequence, acknowledgement and credit are the bridge's, see sender.py and receiver.py.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from ssm.bridge.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

SILENCE_S = 5.0  # a peer that was not heard that long may be replaced by another one
WAITING_BYTES_MAX = 64 << 20  # received and not yet taken by recv(); what comes on top is lost


class Carrier(Protocol):
    """One end of a link. One thread may send while another one receives.

    Where it has an attribute `trouble`, a text, this says why a peer could not connect.
    """

    def send(self, parts: Sequence[Buffer], timeout: float) -> bool:
        """Hand a message over.

        Parameters
        ----------
        parts : sequence of buffers
            Not changed by the caller until the peer has confirmed them: the carrier may keep the buffers, uncopied.
        timeout : float
            Seconds to wait while the carrier has no room, or no peer; ``0`` does not wait.

        Returns
        -------
        bool
            Whether the carrier has taken it.

        Raises
        ------
        ValueError
            The carrier is closed.
        """
        ...

    def recv(self, timeout: float) -> list[memoryview] | None:
        """Return the parts of the next message, or None if none came within `timeout` seconds.

        Raises
        ------
        ValueError
            The carrier is closed, perhaps while this call waited.
        """
        ...

    def close(self) -> None:
        """End the link, without waiting for what is on its way. Closing twice is fine."""
        ...


class Exchange(Protocol):
    """One end that several peers reach. A peer's name is its own, and the same whenever it is opened again."""

    def send_to(self, peer: bytes, parts: Sequence[Buffer], timeout: float) -> bool:
        """Hand a message for one peer over; see `Carrier.send`."""
        ...

    def recv_from(self, timeout: float) -> tuple[bytes, list[memoryview]] | None:
        """Return the next message, and the name of its sender; without parts, it only says that the peer is there."""
        ...

    def announce(self) -> None:
        """Let peers know that this end is there, if the engine does not."""
        ...

    def close(self) -> None:
        """See `Carrier.close`."""
        ...


class Line:
    """What goes to one peer of an Exchange; a Carrier's sending half."""

    def __init__(self, exchange: Exchange, peer: bytes) -> None:
        self._exchange, self._peer = exchange, peer

    def send(self, parts: Sequence[Buffer], timeout: float) -> bool:
        """See `Carrier.send`."""
        return self._exchange.send_to(self._peer, parts, timeout)


class OnePeer:
    """Which of the peers that reach this end is the one that is heard."""

    def __init__(self) -> None:
        self.name = b""
        self._heard = 0.0

    def hears(self, name: bytes) -> bool:
        """Return whether a message of that peer counts; it does, if the peer is the one, or becomes it."""
        now = time.monotonic()
        if name != self.name and self.name and now - self._heard < SILENCE_S:
            return False
        self.name, self._heard = name, now
        return True


def engine(module: str, extra: str) -> Any:
    """Import the library that a carrier is made of."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BridgeError(f'this carrier needs {module}: pip install "ssm-pool[{extra}]"') from error
