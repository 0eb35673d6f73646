# SPDX-License-Identifier: Apache-2.0
"""What `ssm bridge` is told, by options or by a file, and the carrier that follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re
import socket
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ssm.bridge.bridge import LOST_S, WINDOW_BYTES
from ssm.bridge.errors import BridgeError
from ssm.bridge.ledger import HOSTS_MAX
from ssm.bridge.over_zenoh import OverZenoh
from ssm.bridge.over_zmq import Keys, OverZmq

if TYPE_CHECKING:
    from collections.abc import Mapping


SAFE = ("tls", "quic")  # protocols of zenoh that encrypt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """One bridge; the fields are the keys of a configuration file, with ``-`` for ``_``."""

    pool: str = ""
    """Name of the pool."""
    carrier: str = "zenoh"
    """"zenoh" or "zmq"."""
    listen: str = ""
    """Address to listen on: HOST:PORT, or what the carrier calls an endpoint."""
    connect: str = ""
    """Address of the other bridge."""
    discover: bool = False
    """Whether zenoh looks for the other bridge by multicast; it does, too, if nothing says where that is."""
    link: str = "ssm"
    """Of zenoh: the name of the link, the same on both hosts."""
    exports: tuple[str, ...] = ()
    """Rings whose packets go to the other host: RING, or RING:NAME with another name on the link."""
    imports: tuple[str, ...] = ()
    """What comes from there: NAME, or NAME:RING with another name here."""
    export_topics: tuple[str, ...] = ()
    """Topics whose packets go to the other host, likewise."""
    import_topics: tuple[str, ...] = ()
    overflow: str = "block"
    """What a publisher of an exported topic does when what waits for the other host is full."""
    hosts: int = 1
    """How many other hosts there may be."""
    lost: float = LOST_S
    """Seconds; what a host has not acknowledged goes to others when it was not heard for so long."""
    key: str = ""
    """Of zmq: file with the secret key of this bridge."""
    peer_keys: tuple[str, ...] = ()
    """Of zmq: files with the public keys of those who may connect, or of the one that is connected to."""
    zenoh_config: str = ""
    """Configuration of zenoh, a file in JSON5: certificates, routers."""
    insecure: bool = False
    """Whether anybody on the network may connect, read and write."""
    window: int | None = None
    window_bytes: int = WINDOW_BYTES
    quota: int | None = None
    """Bytes of the pool that the bridge's process may have in hand."""
    wait: float = 10.0
    """Seconds to wait for the pool and its rings."""
    status: float = 0.0
    """Seconds between two lines of status; 0: none."""

    @property
    def finds(self) -> bool:
        """Whether zenoh looks for the other bridge."""
        return self.discover or not (self.listen or self.connect or self.zenoh_config)


def load(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, by field."""
    try:
        told = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BridgeError(f"{path}: {error}") from None
    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(Settings)}
    if unknown := sorted(told.keys() - fields.keys()):
        raise BridgeError(f"{path}: {', '.join(unknown)} is no setting; there are {', '.join(fields)}")
    return {fields[key].name: _checked(path, key, value, fields[key].default) for key, value in told.items()}


def _checked(path: Path, key: str, value: Any, default: Any) -> Any:
    """Return the value as its field has it; its default says which type that is."""
    kind = cast("type[object]", int if default is None else type(default))
    if kind is tuple:
        given = cast("list[object]", value) if isinstance(value, list) else [None]
        if not all(isinstance(each, str) for each in given):
            raise BridgeError(f"{path}: {key} = {value!r}, want a list of texts")
        return tuple(given)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BridgeError(f"{path}: {key} = {value!r}, want a {kind.__name__}")
    return value


def mapping(pairs: tuple[str, ...], what: str) -> Mapping[str, str]:
    """Return "a:b" as {"a": "b"}, and "a" as {"a": "a"}."""
    split = [(left, right or left) for left, _, right in (pair.partition(":") for pair in pairs)]
    for side in zip(*split, strict=True):
        if twice := {name for name in side if side.count(name) > 1}:
            raise BridgeError(f"{what} {', '.join(sorted(twice))!r} is there twice")
    return dict(split)


def check(settings: Settings) -> None:
    """Refuse what cannot work, and what would be open to the network without a word."""
    if not settings.pool:
        raise BridgeError("which pool? 'ssm list' shows those that are there")
    if not any((settings.exports, settings.imports, settings.export_topics, settings.import_topics)):
        raise BridgeError(
            "which rings? --export RING for what goes to the other host, --import RING for what comes from it"
        )
    if settings.carrier not in ("zenoh", "zmq"):
        raise BridgeError(f"there is no carrier {settings.carrier!r}: zenoh or zmq")
    if sum((bool(settings.listen), bool(settings.connect), settings.discover)) > 1:
        raise BridgeError(
            "where is the other host? --listen on one host, --connect on the other; or neither, to find each other"
        )
    if settings.carrier == "zmq" and (settings.finds or settings.zenoh_config):
        raise BridgeError("zmq finds no peer by itself: give --listen or --connect, or --carrier zenoh")
    if not 1 <= settings.hosts <= HOSTS_MAX:
        raise BridgeError(f"a bridge has 1 .. {HOSTS_MAX} other hosts, not {settings.hosts}")
    if not settings.insecure and not _is_safe(settings):
        remedy = (
            "--key and --peer-key ('ssm bridge --make-key FILE' makes them)"
            if settings.carrier == "zmq"
            else "--zenoh-config with certificates, enable_mtls: true, and endpoints like tls/HOST:PORT"
        )
        raise BridgeError(
            f"the network could read and write these rings: give {remedy}, or --insecure if nobody else is on it"
        )


def _is_safe(settings: Settings) -> bool:
    if _is_local(settings):
        return True
    if settings.carrier == "zmq":
        return bool(settings.key and settings.peer_keys)
    text = _text_of(settings.zenoh_config)
    mutual = re.search(r"""["']?enable_mtls["']?\s*:\s*true""", text)
    endpoints = _endpoints(settings)
    return bool(endpoints and mutual) and all(each.partition("/")[0] in SAFE for each in endpoints)


def _is_local(settings: Settings) -> bool:
    """Whether nobody beyond this machine can reach it."""
    endpoints = _endpoints(settings)
    return bool(endpoints) and not settings.finds and all(map(_is_loopback, endpoints))


def _endpoints(settings: Settings) -> list[str]:
    """Return where it listens and connects; in the file, any text that looks like an endpoint."""
    found = re.findall(r"""["'](\w+/[^"'/\s]+:\d+)["']""", _text_of(settings.zenoh_config))
    return [each for each in (settings.listen, settings.connect, *found) if each]


def _text_of(path: str) -> str:
    """Return a file in JSON5, without its comments."""
    return re.sub(r"//[^\n]*", "", Path(path).read_text()) if path else ""


def _is_loopback(address: str) -> bool:
    host = re.sub(r"^\w+(://|/)", "", address).rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def endpoint(carrier: str, address: str) -> str:
    """Return HOST:PORT as the carrier has it; an endpoint stays what it is."""
    if "/" in address:
        return address
    return f"tcp://{address}" if carrier == "zmq" else f"tcp/{address}"


def open_carrier(settings: Settings, part_max: int) -> OverZmq | OverZenoh:
    """Open what moves the messages; `part_max`: bytes of a part."""
    who = (
        f"{socket.gethostname()} {settings.pool} {settings.exports} {settings.imports} {settings.export_topics} "
        f"{settings.import_topics}"
    )
    name = b"b" + hashlib.blake2b(who.encode(), digest_size=15).digest()
    listen, connect = (
        endpoint(settings.carrier, each) if each else "" for each in (settings.listen, settings.connect)
    )
    if settings.carrier == "zmq":
        keys = None
        if settings.key:
            keys = Keys(Path(settings.key), tuple(Path(each) for each in settings.peer_keys))
        return OverZmq(
            listen or connect,
            listen=bool(listen),
            name=name,
            keys=keys,
            part_max=part_max,
            many=settings.hosts > 1,
        )
    return OverZenoh(
        settings.link,
        name=name,
        listen=[listen] if listen else [],
        connect=[connect] if connect else [],
        discover=settings.finds,
        config=Path(settings.zenoh_config) if settings.zenoh_config else None,
        many=settings.hosts > 1,
        protocols=SAFE if settings.zenoh_config and not settings.insecure and not _is_local(settings) else (),
    )
