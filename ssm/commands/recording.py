# SPDX-License-Identifier: Apache-2.0
"""Recordings under the name that they had before: they are read and written by `ssm.captures.recording`."""

from ssm.captures.errors import CaptureError as RecordingError
from ssm.captures.recording import MAGIC, Record, format_of, read, writer

__all__ = ["MAGIC", "Record", "RecordingError", "format_of", "read", "writer"]
