# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates really tried: who has them gets through, who has others is refused, and both are told why."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ssm.bridge import BridgeError, config, session
from tests.processes import wait_until
from tests.ssm.bridge import two_hosts
from tests.ssm.bridge.test_bridge import CLASSES, EXACT, Host, put, take
from tests.ssm.bridge.test_carriers import free_port, needs_zenoh, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import ssm

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")


@pytest.fixture
def hosts(make_pool: Callable[..., ssm.Pool]) -> Iterator[tuple[Host, Host]]:
    here, there = (Host(make_pool(classes=CLASSES)) for _ in range(2))
    here.pool.ring("out", capacity=64, **EXACT)
    there.pool.ring("in", capacity=64)
    yield here, there
    here.close()
    there.close()


def join(hosts: tuple[Host, Host], listens: config.Settings, connects: config.Settings) -> None:
    """Run both ends, as `ssm bridge` would."""
    for host, told in zip(hosts, (listens, connects), strict=True):
        config.check(told)
        rings: dict[str, Any] = {"exports": {"out": "f"}} if host is hosts[0] else {"imports": {"f": "in"}}
        host.bridge(config.open_carrier(told, 3 << 20), **rings).start()


def crosses(hosts: tuple[Host, Host]) -> bool:
    put(hosts[0].pool.ring("out"), range(20))
    return take(hosts[1].pool.ring("in"), 20) == list(range(20))


# ---- zenoh: certificates ---------------------------------------------------------------------------------


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


NEW = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def authority(folder: Path, name: str) -> Path:
    path = folder / name
    openssl(
        "req",
        "-x509",
        *NEW,
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
        "-keyout",
        f"{path}.key",
        "-out",
        f"{path}.pem",
    )
    return path


def certificate(folder: Path, name: str, signer: Path) -> Path:
    path = folder / name
    (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("req", *NEW, "-subj", f"/CN={name}", "-keyout", f"{path}.key", "-out", f"{path}.csr")
    sign = [
        "x509",
        "-req",
        "-in",
        f"{path}.csr",
        "-days",
        "2",
        "-CA",
        f"{signer}.pem",
        "-CAkey",
        f"{signer}.key",
    ]
    openssl(*sign, "-CAcreateserial", "-extfile", f"{path}.ext", "-out", f"{path}.pem")
    return path


def tls(folder: Path, own: Path, trusted: Path, way: str, port: int, **more: Any) -> config.Settings:
    """Settings of an end with that certificate."""
    keys = {
        "root_ca_certificate": f"{trusted}.pem",
        "enable_mtls": True,
        **{f"{end}_private_key": f"{own}.key" for end in ("listen", "connect")},
        **{f"{end}_certificate": f"{own}.pem" for end in ("listen", "connect")},
    }
    told = {
        "mode": "peer",
        "scouting": {"multicast": {"enabled": False}},
        "listen": {"endpoints": []},  # else it listens on TCP as well
        way: {"endpoints": [f"tls/localhost:{port}"]},
        "transport": {"link": {"tls": keys | more}},
    }
    file = folder / f"{own.name}.json5"
    file.write_text(json.dumps(told))
    return config.Settings(pool="lab", exports=("f",), zenoh_config=str(file), link=f"tls-{port}")


@needs_zenoh
@needs_openssl
def test_certificates(hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that another authority has signed is refused, by either end; nothing crosses, and both ends say so."""
    monkeypatch.setattr(session, "SILENCE_S", 1.0)
    port, ours, others = free_port(), authority(tmp_path, "ours"), authority(tmp_path, "others")
    a, b, stranger = (
        certificate(tmp_path, name, by) for name, by in (("a", ours), ("b", ours), ("s", others))
    )
    listens = tls(tmp_path, a, ours, "listen", port)
    join(hosts, listens, tls(tmp_path, stranger, ours, "connect", port))
    for host in hosts:
        wait_until(lambda host=host: host.heard("each other's keys or certificates"), "a word of it")
        assert not host.heard("met")
        host.close()
    join(hosts, listens, tls(tmp_path, b, ours, "connect", port))
    assert crosses(hosts)


@needs_zenoh
@needs_openssl
def test_certificates_of_both_are_asked_for(tmp_path: Path) -> None:
    """Otherwise everybody could connect. A file with a place that is not encrypted is refused."""
    ours = authority(tmp_path, "ours")
    own = certificate(tmp_path, "a", ours)
    told = tls(tmp_path, own, ours, "listen", 7400)
    file = tmp_path / "a.json5"
    text = file.read_text().replace("localhost", "0.0.0.0")
    file.write_text(text)
    config.check(told)
    for bad in (text.replace("true", "false"), text.replace("tls/0.0.0.0", "tcp/0.0.0.0")):
        file.write_text(bad)
        with pytest.raises(BridgeError, match="enable_mtls: true"):
            config.check(told)


# ---- zmq: keys -------------------------------------------------------------------------------------------


@needs_zmq
@pytest.mark.parametrize("wrong", ["unknown here", "unknown there"])
def test_a_wrong_key_is_told_by_both(wrong: str, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    import zmq.auth

    for name in ("a", "b", "c"):
        zmq.auth.create_certificates(tmp_path, name)
    port = free_port()

    def keyed(way: str, own: str, peer: str) -> config.Settings:
        keys: Any = {
            "key": str(tmp_path / f"{own}.key_secret"),
            "peer_keys": (str(tmp_path / f"{peer}.key"),),
        }
        where: Any = {way: f"127.0.0.1:{port}"}
        return config.Settings(pool="lab", exports=("f",), carrier="zmq", **keys, **where)

    listens = keyed("listen", "a", "b")
    if wrong == "unknown here":
        join(hosts, listens, keyed("connect", "c", "a"))
        texts = "whose key is not known here", "refuses the key of this one"
    else:
        join(hosts, listens, keyed("connect", "b", "c"))
        texts = "does not have this bridge's key", "has another key, or none"
    for host, text in zip(hosts, texts, strict=True):
        wait_until(lambda host=host, text=text: host.heard(text), text)
        assert not host.heard("met")
        host.close()
    join(hosts, listens, keyed("connect", "b", "a"))
    assert crosses(hosts)


# ---- found by multicast ----------------------------------------------------------------------------------


@needs_zenoh
@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip command")
def test_two_hosts_find_each_other(new_name: Callable[[], str]) -> None:
    """The command has no addresses, and is the same on both hosts but for the direction of its rings."""
    with two_hosts.pools((new_name(), new_name())) as (here, there):
        try:
            with two_hosts.Hosts() as hosts:
                for host in (0, 1):
                    hosts.on(host, "ip", "route", "add", "224.0.0.0/4", "dev", hosts.device(host, 1))
                link = ["--link", f"find{here.name.strip('/')}", "--insecure"]
                hosts.bridges[0, 1].start([here.name, "--export", "out:frames", *link])
                hosts.bridges[1, 1].start([there.name, "--import", "frames:in", *link])
                put(here.ring("out"), range(100))
                assert take(there.ring("in"), 100) == list(range(100)), hosts.said()
        except two_hosts.NotPermitted as error:
            pytest.skip(str(error))
