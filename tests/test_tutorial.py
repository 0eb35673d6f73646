# SPDX-License-Identifier: Apache-2.0
"""The tutorial, and the ten lines of the first page: their files are written, their commands run, in their order."""

from __future__ import annotations

import pytest

from tests.pages import ROOT, Page, blocks_of

PAGES = [ROOT / "docs" / "index.md", ROOT / "docs" / "tutorial.md"]


@pytest.mark.parametrize(
    "page", [PAGES[0], pytest.param(PAGES[1], marks=pytest.mark.slow)], ids=lambda page: page.stem
)
def test_what_the_page_says_happens(page, tmp_path):
    pytest.importorskip("aiohttp", reason="a command of the page is `ssm web`, which aiohttp serves")
    Page(page, tmp_path).follow()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run(page):
    """Each is a file or what a terminal shows; nothing is there that no test would miss."""
    for block in blocks_of(page):
        assert block.kind in {"{include}", "{toctree}", "console"} or (
            block.kind == "python" and block.caption
        )
