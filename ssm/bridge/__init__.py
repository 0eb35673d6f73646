# SPDX-License-Identifier: Apache-2.0
"""Bridges: rings that end on another host, see `Bridge`.

::

    errors                          what is raised
    carrier                         what a bridge expects of the engine that moves its messages
    memory, over_zmq, over_zenoh    the carriers
    wire                            the messages, and their parser
    journal                         what a receiver has to know after it was killed
    pieces                          packets that are large, or have a chain
    arrivals                        what has come, in its order
    sender, receiver                the two ends of one ring
    subscriber, publisher           the two ends of one topic
    ledger, shared                  a ring that goes to several hosts
    session                         what two bridges say to each other
    figures                         what bridges tell those who look from outside
    bridge                          the loop around all of it
    config                          what `ssm bridge` is told
    queued                          the bridge of a Queue
"""

from ssm.bridge.bridge import Bridge, Exported, Imported, Status
from ssm.bridge.errors import BridgeError, VersionMismatch, WireError

__all__ = ["Bridge", "BridgeError", "Exported", "Imported", "Status", "VersionMismatch", "WireError"]
