# SPDX-License-Identifier: Apache-2.0
"""The end of a bridge that subscribes to a topic, and sends what is published.

To the topic's publishers it is one more subscription. It begins with the topic's history, and begins with it once more
if the pool at the other end is a new one, as a subscriber does that comes late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.bridge.sender import Sender
from ssm.bridge.wire import TOPIC
from ssm.errors import RingShutDown

if TYPE_CHECKING:
    from ssm import Topic
    from ssm.bridge.wire import Ack


class Subscriber(Sender):
    """One exported topic."""

    def __init__(self, topic: Topic, name: str, overflow: str, capacity: int) -> None:
        """Subscribe.

        Parameters
        ----------
        topic : Topic
            What is sent.
        name : str
            Of the topic on the link.
        overflow : str
            What a publisher does that finds full what waits for the other host; see `Topic.subscribe`.
        capacity : int
            Packets that may wait for it.
        """
        self._topic, self._overflow, self._capacity = topic, overflow, capacity
        self._subscription = topic.subscribe(capacity, overflow)
        super().__init__(self._subscription._incoming(), name)  # pyright: ignore[reportPrivateUsage]
        self.type, self._chains = TOPIC, False
        self._there = 0  # what the other host had when it was heard last
        self.stale = False

    def on_ack(self, ack: Ack) -> None:
        """See `Sender.on_ack`; a host that has less than it had is a new one."""
        self.stale |= not self._open and ack.have < self._there
        if not self.stale:
            super().on_ack(ack)
            self._there = max(self._there, ack.have)

    def again(self) -> None:
        """Begin with the history, for a host that has nothing."""
        self.give_back()
        self._there, self.stale = 0, False
        try:
            subscription = self._topic.subscribe(self._capacity, self._overflow)
        except RingShutDown:  # that is all that there is to tell
            self.begin()
            return
        self._subscription.close()
        self._subscription = subscription
        self.use(subscription._incoming())  # pyright: ignore[reportPrivateUsage]

    def close(self) -> None:
        """See `Sender.close`."""
        super().close()
        self._subscription.close()
