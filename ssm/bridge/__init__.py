# SPDX-License-Identifier: Apache-2.0
"""Bridges: rings that end on another host.

::

    errors                          what is raised
    carrier                         what a bridge expects of the engine that moves its messages
    memory, over_zmq, over_zenoh    the carriers
"""
