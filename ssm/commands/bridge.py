# SPDX-License-Identifier: Apache-2.0
"""``ssm bridge``: rings that go on in a pool of another host."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ssm.commands.completion import completed_by, pool_names
from ssm.commands.output import add_json, print_json_line
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse

    from ssm import Pool
    from ssm.bridge import Bridge
    from ssm.bridge.config import Settings

SEVERAL = (
    "exports",
    "imports",
    "export_topics",
    "import_topics",
    "peer_keys",
)  # options that can be given more than once
LOOK_S = 0.1  # between two looks whether a ring is there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm bridge``; what is not given comes from the file, or is the default."""
    add = parser.add_argument
    completed_by(pool_names, add("pool", nargs="?", metavar="POOL", help="the pool on this host"))
    add("--config", type=Path, metavar="FILE", help="settings in TOML, by the names of these options")
    add(
        "--export",
        dest="exports",
        action="append",
        metavar="RING[:NAME]",
        help="a ring whose packets go there",
    )
    add(
        "--import",
        dest="imports",
        action="append",
        metavar="NAME[:RING]",
        help="a ring that packets come into",
    )
    add(
        "--export-topic",
        dest="export_topics",
        action="append",
        metavar="TOPIC[:NAME]",
        help="likewise, a topic",
    )
    add(
        "--import-topic",
        dest="import_topics",
        action="append",
        metavar="NAME[:TOPIC]",
        help="likewise, a topic",
    )
    add(
        "--overflow",
        choices=("block", "drop", "overwrite"),
        help="what a publisher does when what waits for the other host is full, of exported topics (block)",
    )
    add(
        "--hosts",
        type=int,
        metavar="N",
        help="there may be so many other hosts; each packet goes to one of them (1)",
    )
    add(
        "--lost",
        type=float,
        metavar="S",
        help="what a host that is silent so long has goes to others (30)",
    )
    add("--listen", metavar="HOST:PORT", help="where the other host's bridge connects to")
    add("--connect", metavar="HOST:PORT", help="where the other host's bridge listens")
    add(
        "--discover",
        action="store_true",
        default=None,
        help="find the other host's bridge by multicast (zenoh)",
    )
    add("--carrier", choices=("zenoh", "zmq"), help="what moves the messages (zenoh)")
    add("--link", metavar="NAME", help="the same on both hosts, another for each pair of hosts (zenoh; ssm)")
    add("--key", metavar="FILE", help="this bridge's secret key (zmq)")
    add("--peer-key", dest="peer_keys", action="append", metavar="FILE", help="a peer's public key (zmq)")
    add("--zenoh-config", metavar="FILE", help="certificates, routers and more, in JSON5 (zenoh)")
    add(
        "--insecure",
        action="store_true",
        default=None,
        help="let anybody on the network read and write these rings",
    )
    add("--window", type=int, metavar="N", help="packets that may wait for room in an imported ring")
    add("--window-bytes", type=int, metavar="N", help="bytes that may wait in this process (8 MiB)")
    add("--quota", type=int, metavar="N", help="bytes of the pool that this process may have in hand")
    add("--wait", type=float, metavar="S", help="for the pool and its rings (10)")
    add("--status", type=float, metavar="S", help="between two lines of status (0: none)")
    add("--make-key", type=Path, metavar="FILE", help="make FILE.key and FILE.key_secret, and end (zmq)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run a bridge until Ctrl-C or SIGTERM."""
    if args.make_key:
        return _make_key(args.make_key)
    from ssm import Pool
    from ssm.bridge import Bridge, config
    from ssm.bridge.wire import MESSAGE_MAX

    settings = _settings(args)
    config.check(settings)
    exports = config.mapping(settings.exports, "export")
    imports = config.mapping(settings.imports, "import")
    export_topics = config.mapping(settings.export_topics, "export-topic")
    import_topics = config.mapping(settings.import_topics, "import-topic")
    until = time.monotonic() + settings.wait
    with Pool.attach(settings.pool, timeout=settings.wait, quota=settings.quota) as pool:
        topics = {f"{topic}>" for topic in (*export_topics, *import_topics.values())}
        _wait_for_rings(pool, {*exports, *imports.values(), *topics}, until)
        carrier = config.open_carrier(settings, MESSAGE_MAX)
        with Bridge(
            pool,
            carrier,
            exports=exports,
            imports=imports,
            export_topics=export_topics,
            import_topics=import_topics,
            overflow=settings.overflow,
            hosts=settings.hosts,
            lost=settings.lost,
            window=settings.window,
            window_bytes=settings.window_bytes,
            tell=lambda text: say(f"ssm bridge: {text}", error=True),
        ) as bridge:
            _run(bridge, settings.status, as_json=args.json)
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from ssm.bridge.config import Settings, load

    told = load(args.config) if args.config else {}
    for field in dataclasses.fields(Settings):
        value = getattr(args, field.name)
        if value is not None:
            told[field.name] = tuple(value) if field.name in SEVERAL else value
    return Settings(**told)


def _wait_for_rings(pool: Pool, names: set[str], until: float) -> None:
    """Give programs time to make their rings; what is missing then, Bridge tells."""
    while not names <= {*pool.rings()} and time.monotonic() < until:
        time.sleep(LOOK_S)


def _run(bridge: Bridge, every: float, *, as_json: bool) -> None:
    def stop(_number: int, _frame: object) -> None:
        bridge.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ended = threading.Event()

    def tell() -> None:
        for status in bridge.statuses():
            if as_json:
                print_json_line({"time": time.time(), **dataclasses.asdict(status)})
            else:
                say(status)

    def tell_now_and_then() -> None:
        while not ended.wait(every):
            tell()

    teller = threading.Thread(target=tell_now_and_then, name="ssm bridge status", daemon=True)
    if every > 0:
        teller.start()
    try:
        bridge.run()
    finally:
        ended.set()
    if every > 0:
        teller.join()
        tell()


def _make_key(path: Path) -> int:
    from ssm.bridge.carrier import engine

    if path.with_name(f"{path.name}.key_secret").exists():
        raise ValueError(f"{path}.key_secret is there already: remove it, or take another name")
    mask = os.umask(0o077)
    try:
        for file in engine("zmq.auth", "bridge-zmq").create_certificates(path.parent, path.name):
            say(file)
    finally:
        os.umask(mask)
    return 0
