# SPDX-License-Identifier: Apache-2.0
"""The bar: on a terminal only, gone when it is done, rich or not."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from ssm import progress as module
from ssm.progress import progress


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal(monkeypatch):
    """Stand in for the terminal; not as sys.stderr, which pytest changes between fixture and test."""
    stderr = Terminal()
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stderr))
    return stderr


@pytest.fixture
def without_rich(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)


def test_silent_in_a_pipe(capsys):
    with progress("packets", 10) as show:
        show(5)
    assert capsys.readouterr().err == ""


def test_plain_bar(terminal, without_rich):
    with progress("packets", 10) as show:
        show(5)
        assert terminal.take() == f"\rpackets [{'#' * 15:<30}]  50%"
        show(10)
        assert terminal.take() == f"\rpackets [{'#' * 30:<30}] 100%"
    assert terminal.take().strip() == ""


def test_short_work_has_no_bar(monkeypatch, terminal, without_rich):
    monkeypatch.setattr(module, "PATIENCE_S", 60.0)
    with progress("packets", 0) as show:
        show(0)
    assert terminal.take() == ""


def test_rich_bar(terminal, monkeypatch):
    console = pytest.importorskip("rich.console").Console
    monkeypatch.setattr("rich.console.Console", lambda stderr: console(file=terminal))
    with progress("packets", 10) as show:
        show(10)
    assert "packets" in terminal.take()
