# SPDX-License-Identifier: Apache-2.0
"""``ssm web``: a page that shows a pool as it works, with the graph of its pipeline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json_line
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse

PORT = 9465


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm web``."""
    add_pool(parser)
    add = parser.add_argument
    add("--port", type=int, default=PORT, help="of the HTTP server (%(default)s; 0 takes a free one)")
    add("--bind", default="127.0.0.1", metavar="ADDRESS", help="that it listens on (%(default)s)")
    add(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which browsers ask for it, besides localhost and addresses; may be given several times",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    try:
        from ssm.web.server import serve
    except ModuleNotFoundError as error:
        raise ValueError('the page is served by aiohttp: pip install "ssm-pool[web]"') from error
    from ssm.web.feed import Feed

    feed = Feed(args.pool)
    feed.attach()  # one that is not there is an error of the command

    def ready(url: str) -> None:
        if args.json:
            print_json_line({"url": url})
        else:
            say(f"{url}  Ctrl-C ends")

    asyncio.run(serve(feed, args.bind, args.port, args.host, ready))
    return 0
