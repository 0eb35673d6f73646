# SPDX-License-Identifier: Apache-2.0
"""What a pipeline raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssm.errors import SSMError

if TYPE_CHECKING:
    from ssm.pipeline.report import Report


class PipelineError(SSMError, RuntimeError):
    """A pipeline ended before it was done. The cause is the exception of the stage, and its worker's traceback."""

    report: Report | None = None
    """How far it came."""
    stage: str | None = None
    """The stage that failed."""
    worker: int | None = None
    """The number of its worker."""
    tag: int | None = None
    """The tag of the packet."""


class PipelineRefused(PipelineError, ValueError):
    """A pipeline cannot run as it was declared; nothing was started."""
