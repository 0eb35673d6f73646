# SPDX-License-Identifier: Apache-2.0
"""HTTP: the page, and a stream of looks at the pool.

Everyone that reaches the port may read, so it listens on loopback unless it is told otherwise. A page of another site
reaches loopback by giving its own name an address of this machine (DNS rebinding): requests by a name that is not this
server's are refused. The page loads nothing from elsewhere, and the browser is told to refuse anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ssm.web.feed import EVERY_S, Feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

STREAMS_MAX = 32
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Streams:
    """The looks, one after the other, for all pages that are open. One that is slow misses some."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._thread = ThreadPoolExecutor(1, "ssm-web")  # it alone touches the pool
        self._latest: dict[str, Any] = {}
        self._history: dict[str, Any] = {}
        self._changed = asyncio.Condition()
        self._number = 0
        self._over = False
        self.open = 0

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                seen = await loop.run_in_executor(self._thread, self._look)
                async with self._changed:
                    self._latest, self._history = seen
                    self._number += 1
                    self._changed.notify_all()
                await asyncio.sleep(EVERY_S)
        finally:
            await self.end()

    def _look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._feed.look(), self._feed.history()

    async def end(self) -> None:
        """End all streams."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the last look, and let go of the pool."""
        self._thread.submit(self._feed.close)
        self._thread.shutdown()

    async def looks(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each look; the first one has the depths that were seen before."""
        seen, first = 0, True
        while True:
            async with self._changed:
                while not self._over and self._number == seen:
                    await self._changed.wait()
                if self._over:
                    return
                seen, look = self._number, self._latest
                if first:
                    look, first = {**look, "history": self._history}, False
            yield look


def hosts_of(bind: str, names: Collection[str]) -> Callable[[str], bool]:
    """Return whether a request by that host name is for this server."""
    known = {"localhost", *(name.lower() for name in names)}
    loopback = _is_loopback(bind)

    def is_ours(host: str) -> bool:
        name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
        if name in known:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False  # a name that anybody may have pointed here
        return address.is_loopback or not loopback

    return is_ours


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind.lower() == "localhost"


def application(feed: Feed, is_ours: Callable[[str], bool]) -> web.Application:
    """Return the server of one pool."""
    streams = Streams(feed)

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not is_ours(_host_name(request)):
            text = "This server does not know the name that it was asked by; see ssm web --host.\n"
            raise web.HTTPForbidden(text=text, headers=_HEADERS)
        return await handler(request)

    async def file(request: web.Request) -> web.Response:
        name, kind = _FILES[request.path]
        body = files("ssm.web").joinpath(name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

    async def events(request: web.Request) -> web.StreamResponse:
        if streams.open >= STREAMS_MAX:
            raise web.HTTPServiceUnavailable(
                text=f"{STREAMS_MAX} pages are open, the most there may be.\n", headers=_HEADERS
            )
        streams.open += 1
        try:
            answer = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
            await answer.prepare(request)
            with contextlib.suppress(ConnectionResetError):
                async for look in streams.looks():
                    await answer.write(b"data: %s\n\n" % json.dumps(look, separators=(",", ":")).encode())
            return answer
        finally:
            streams.open -= 1

    app = web.Application(middlewares=[guard])
    app.router.add_routes([web.get(path, file) for path in _FILES])
    app.router.add_get("/events", events)

    async def looking(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(streams.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        streams.close()

    async def end(_: web.Application) -> None:
        await streams.end()

    app.cleanup_ctx.append(looking)
    app.on_shutdown.append(end)
    return app


def _host_name(request: web.Request) -> str:
    """Return the name by which the server was asked, without a port."""
    host = request.headers.get("Host", "")
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def serve(
    feed: Feed, bind: str, port: int, names: Collection[str], ready: Callable[[str], None]
) -> None:
    """Serve until cancelled; `ready` gets the address when it can be asked. OSError: the port is taken."""
    runner = web.AppRunner(application(feed, hosts_of(bind, names)), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, bind, port)
        await site.start()
        address: tuple[Any, ...] = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in str(address[0]) else str(address[0])
        ready(f"http://{shown}:{address[1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
