# SPDX-License-Identifier: Apache-2.0
"""Rings of a pipeline that go from one host to another: what their bridges are told, and what they take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ssm.pipeline.errors import PipelineRefused

if TYPE_CHECKING:
    from ssm.bridge.config import Settings

METADATA = 1 << 16  # bytes for the boards and semaphores of bridges
# Of the settings, those that the pipeline gives, or that its bridges do not have: they have one peer, and no topics.
OWN = ("pool", "exports", "imports", "wait", "status")
NONE = ("export_topics", "import_topics", "overflow", "hosts", "lost")


def window(capacity: int) -> int:
    """Return the packets of a ring that may wait at the other end of its bridge, besides those in the ring there."""
    from ssm.bridge.bridge import WINDOW_MAX

    return min(WINDOW_MAX, 2 * capacity)


def settings_of(role: str, given: dict[str, Any], **own: Any) -> Settings:
    """Return the settings of a bridge of a host with that role.

    Raises
    ------
    PipelineRefused
        There is no such setting, or the bridge cannot work, or would be open to the network without a word.
    """
    from ssm.bridge import BridgeError, config

    known = [field.name for field in dataclasses.fields(config.Settings) if field.name not in OWN + NONE]
    if unknown := sorted(given.keys() - set(known)):
        raise PipelineRefused(f"a bridge of a pipeline has no setting {unknown[0]!r}, but {', '.join(known)}")
    told: dict[str, Any] = given | {"pool": "of the run", "exports": (role,)} | own
    try:
        settings = config.Settings(**told)
        config.check(settings)
    except BridgeError as error:
        raise PipelineRefused(str(error)) from error
    return settings
