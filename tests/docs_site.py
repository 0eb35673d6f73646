# SPDX-License-Identifier: Apache-2.0
"""The pages that `make docs` has built, in Chromium: they fit a telephone and a desk, stay quiet, and load nothing.

Not one of the tests of `make test`, since the pages have to be built first. SSM_SCREENSHOTS names a folder for pictures
of the pages.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

try:
    from playwright import sync_api
except ModuleNotFoundError:
    sync_api = None

SITE = Path(__file__).resolve().parent.parent / "build" / "docs"
PAGES = sorted(
    str(page.relative_to(SITE))
    for page in SITE.rglob("*.html")
    if not page.name.startswith(("genindex", "py-modindex"))
)
WIDTHS = (400, 1400)
SCHEMES = ("light", "dark")
TIMEOUT_MS = 60_000
# The theme lets the column of text scroll where something in it is too wide, not the window. Blocks of code and tables
# may scroll in frames of their own.
TOO_WIDE = """[document.documentElement, ...document.querySelectorAll('.content')]
  .filter(one => one.scrollWidth > one.clientWidth)
  .map(one => `${one.tagName} ${one.className}: ${one.scrollWidth} > ${one.clientWidth}`)"""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.skipif(sync_api is None, reason="playwright drives the browser: not installed"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and does not log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    """The address of the pages; the search has to fetch them, which browsers refuse for plain files."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def page(browser, site, said):
    """One tab for all pages; what they complain about, and what they load from elsewhere, is collected."""
    with contextlib.closing(browser.new_context(base_url=site)) as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("requestfailed", lambda request: said.append(f"not there: {request.url}"))
        page.on(
            "request", lambda request: request.url.startswith((site, "data:")) or said.append(request.url)
        )
        yield page


def open_page(page, name, width=WIDTHS[-1], scheme="light"):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/{name}")


def test_the_site_is_built():
    assert {"index.html", "tutorial.html", "cookbook.html", "contributing.html", "search.html"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_is_quiet(page, said, name):
    said.clear()
    open_page(page, name)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(TOO_WIDE) == [], (scheme, width)
            if folder := os.environ.get("SSM_SCREENSHOTS"):
                shot = Path(folder, f"{name.replace('/', '-').removesuffix('.html')}-{width}-{scheme}.png")
                page.screenshot(path=shot, full_page=True)
    assert said == []


def test_it_is_dark_in_the_dark(page):
    grounds = []
    for scheme in SCHEMES:
        open_page(page, "index.html", scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in colour.strip("rgb()").split(",")[:3]))
    assert grounds[0] > 3 * 200
    assert grounds[1] < 3 * 60


def test_search_finds_alloc(page, said):
    said.clear()
    open_page(page, "search.html?q=alloc")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    assert any("reference/python.html" in link for link in found)
    assert said == []


def test_every_picture_is_shown(page):
    for name in PAGES:
        open_page(page, name)
        missing = page.evaluate("[...document.images].filter(one => !one.naturalWidth).map(one => one.src)")
        assert missing == [], name
