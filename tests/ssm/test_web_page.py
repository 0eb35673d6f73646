# SPDX-License-Identifier: Apache-2.0
"""The page of `ssm web` in Chromium: it fits, it stays quiet, it shows texts as texts, it says what it lost.

Playwright drives the browser that the system has; without one, or without playwright, these tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import threading
import time

import pytest

import ssm
from ssm.bridge import Exported, Status, figures
from ssm.bridge.sender import Sent
from ssm.bridge.session import Link
from tests.processes import PATIENCE_S

pytest.importorskip("aiohttp")
pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: not installed")

from playwright import sync_api

from ssm.web.feed import Feed
from ssm.web.server import serve

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)"),
]
SIZES = [(1100, 820), (390, 844)]
EVIL = "<img src=x onerror=alert(1)>"
TIMEOUT_MS = PATIENCE_S * 1000


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages; at the end none may have complained, but of a server that is gone."""
    with contextlib.ExitStack() as pages:
        said = []

        def open_at(url, size=SIZES[0], scheme="light", **more):
            context = browser.new_context(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **more
            )
            pages.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
            page.goto(url)
            page.wait_for_selector("#link[data-state=live]")
            return page

        yield open_at
        assert [each for each in said if "ERR_CONNECTION_REFUSED" not in each] == []


class Serving:
    """The server, in a thread of this process: it is there at once."""

    def __init__(self, name, port=0):
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(name, port))
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    def _run(self, name, port):
        def ready(url):
            self.url = url
            self.port = int(url.rsplit(":")[-1].strip("/"))
            self._ready.set()

        self._task = self._loop.create_task(serve(Feed(name), "127.0.0.1", port, (), ready))
        with contextlib.closing(self._loop), contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def pool(name):
    """A pool in which nothing is as it should be."""
    with ssm.Pool.create(name, classes={512: 64, 2048: 8}, ephemeral=True, label=EVIL, arena=1 << 20) as pool:
        ring = pool.ring(EVIL, capacity=4)
        for _ in range(4):
            ring.send(b"x")
        pool.ring("n" * 47, capacity=9).send(b"x")
        pool.ids("flows " + "w" * 40, 0, 9)
        end = Exported(EVIL, Sent(packets=70_000), in_flight=3, oldest_s=0.5, exact=True, refused="")
        figures.Teller(pool, 1).tell(lambda: [Status(Link(peer=f"{EVIL} on {'h' * 60}", met=1), (end,), ())])
        yield pool


def wide(page):
    return page.evaluate("[document.documentElement.scrollWidth, innerWidth]")


def test_a_pool_fits_and_its_texts_are_texts(pool, open_page):
    with Serving(pool.name) as server:
        page = open_page(server.url, reduced_motion="reduce")
        page.wait_for_selector(".card")
        for scheme in ("light", "dark"):
            for width, height in SIZES:
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": height})
                assert wide(page)[0] <= wide(page)[1], (scheme, width)
            for selector in (
                "#verdict",
                ".soft",
                ".node small",
                ".facts dt",
                ".facts .hot dd",
                ".ways",
                "th",
            ):
                assert contrast(page, selector) >= 4.5, (scheme, selector)
        assert page.locator("img").count() == 0
        assert EVIL in page.locator("#rings").inner_text()
        assert EVIL in page.locator("#holders").inner_text()
        assert all(
            each in page.locator("#bridges").inner_text()
            for each in (f"{EVIL} out", "70,000", "oldest s 0.5")
        )
        assert page.locator("#verdict").inner_text().startswith(f"Ring '{EVIL}' is full")
        assert page.locator("#blocks canvas:visible").count() == 1  # the other class has nothing to show
        assert "flows www" in page.locator("#services").inner_text()
        assert page.locator("#key").is_hidden()
        assert page.evaluate("document.getAnimations().length") == 0
        by_keyboard(page)


def by_keyboard(page):
    """What can be followed is reached in its order, and has a name; so has each picture."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip the picture"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel").startswith(f"ring {EVIL}: 4 of 4 ready")
    page.keyboard.press("Enter")
    assert page.locator(".card:target b").inner_text() == EVIL
    unnamed = (
        "a:not([aria-label]):not(.skip), canvas:not([aria-label]), svg:not([aria-label]):not([aria-hidden])"
    )
    assert page.locator(unnamed).count() == 0


def contrast(page, selector):
    """Return the contrast of a text with the page behind it, as WCAG has it."""
    return page.evaluate(
        """selector => {
          const light = color => {
            const pen = document.createElement('canvas').getContext('2d')
            pen.fillStyle = color; pen.fillRect(0, 0, 1, 1)
            return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map(part => part / 255)
              .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
              .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0)
          }
          const both = [light(getComputedStyle(document.querySelector(selector)).color),
            light(getComputedStyle(document.body).backgroundColor)].sort((a, b) => b - a)
          return (both[0] + 0.05) / (both[1] + 0.05)
        }""",
        selector,
    )


def test_it_says_what_it_lost_and_finds_it_again(name, open_page):
    with ssm.Pool.create(name, classes={512: 64}) as pool, Serving(name) as server:
        pool.ring("frames")
        page = open_page(server.url)
        pool.unlink()
        page.wait_for_selector("#verdict[data-tone=gone]")
        assert "is gone: its name was removed" in page.locator("#verdict").inner_text()
        with ssm.Pool.create(name, classes={512: 64}, ephemeral=True) as again:
            again.ring("flows")
            page.wait_for_selector(".card b >> text=flows")
            assert page.locator(".card").count() == 1
            server.__exit__()
            page.wait_for_selector("#link[data-state=lost]")
            assert page.locator("#link").inner_text() == "connection lost"
            assert "connection is lost" in page.locator("#verdict").inner_text()
            with Serving(name, server.port):
                page.wait_for_selector("#link[data-state=live]")


def _numbers(count):
    yield from (b"%d" % number for number in range(count))


def _even(packet):
    time.sleep(0.002)  # the browser wants a processor, too
    if packet.tag == 7:
        raise ValueError(EVIL)
    return packet


def _nothing(packet):
    pass


BOXES = "[...document.querySelectorAll('.node')].map(node => node.getBoundingClientRect().toJSON())"


def test_a_pipeline_is_drawn(name, open_page):
    pipe = ssm.Pipeline(name, start="fork", stuck=None)
    numbers, results = pipe.ring("numbers", 16), pipe.ring("results", 16)
    pipe.source(numbers, name="read")(_numbers)
    pipe.stage(numbers, results, name=EVIL, workers=3, on_error="dead")(_even)
    pipe.sink(results, name="end")(_nothing)
    seen = {}

    def look(url):
        page = open_page(url, SIZES[0])
        page.wait_for_selector(".stage")
        page.wait_for_selector(".letters details")
        page.locator(".letters summary").click()
        seen["stages"] = page.locator(".stage b").all_inner_texts()
        seen["rings"] = page.locator(".node.ring b").all_inner_texts()
        seen["dots"] = page.locator(".dot:visible").count()
        seen["letter"] = page.locator(".letters pre").inner_text()
        seen["images"] = page.locator("img").count()
        seen["title"] = page.locator("#name").inner_text()
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(100)  # it is drawn anew
            seen[width] = page.evaluate(BOXES)
            assert wide(page)[0] <= wide(page)[1]

    feed = Feed(name)

    def tick(run):
        # Told already: while the page is looked at, the run tells nothing.
        if not seen and feed.look().get("letters"):
            with Serving(name) as server:
                look(server.url)
            run.stop()

    with pipe.start(1 << 40) as run:
        report = run.wait(tick)
    feed.close()
    assert report.exact, report
    assert seen["stages"] == ["read", EVIL, "end"]
    assert seen["rings"] == ["numbers", "results"]
    assert seen["dots"] == 5 + 3  # workers, and the key
    assert seen["letter"].endswith(f"ValueError: {EVIL}")
    assert seen["images"] == 0
    assert seen["title"] == name
    assert len({box["top"] for box in seen[390]}) == 5  # one below the other
    for width, _ in SIZES:
        for one, other in itertools.combinations(seen[width], 2):  # none lies on another
            beside = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert beside or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
