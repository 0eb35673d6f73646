# SPDX-License-Identifier: Apache-2.0
"""`ssm bridge`: what it is told, what it refuses, and two of it between two hosts on this machine."""

from __future__ import annotations

import configparser
import dataclasses
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import cli
from ssm.bridge import BridgeError, config
from tests.processes import wait_until
from tests.rings import free
from tests.ssm.bridge import faults, two_hosts
from tests.ssm.bridge.test_bridge import EXACT, put, take
from tests.ssm.bridge.test_carriers import free_port, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parents[3] / "examples/deploy"


def settings(**told: Any) -> config.Settings:
    return config.Settings(**{"pool": "lab", "exports": ("frames",), "listen": "127.0.0.1:7400"} | told)


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tls.json5").write_text("{transport: {link: {tls: {enable_mtls: true}}}}")
    (tmp_path / "open.json5").write_text("{transport: {link: {tls: {// enable_mtls: true\n}}}}")


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"carrier": "zmq"},
        {"listen": "", "connect": "localhost:7400"},
        {"listen": "tcp/[::1]:7400"},
        {"listen": "10.0.0.1:7400", "insecure": True},
        {"carrier": "zmq", "listen": "10.0.0.1:7400", "key": "a", "peer_keys": ("b",)},
        {"listen": "tls/lab1:7400", "zenoh_config": "tls.json5"},
        {"listen": "", "zenoh_config": "tls.json5", "connect": "tls/lab1:7400"},
        {"listen": "", "discover": True, "insecure": True},
    ],
)
def test_what_is_taken(told: dict[str, Any], certificates: None) -> None:
    config.check(settings(**told))


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"pool": ""}, "which pool"),
        ({"exports": ()}, "which rings"),
        ({"carrier": "pigeon"}, "no carrier 'pigeon'"),
        ({"listen": ""}, "--insecure"),
        ({"listen": "", "carrier": "zmq"}, "give --listen or --connect"),
        ({"listen": "tls/lab1:7400", "zenoh_config": "open.json5"}, "enable_mtls: true"),
        ({"connect": "10.0.0.1:7400"}, "where is the other host"),
        ({"listen": "10.0.0.1:7400"}, "--insecure"),
        ({"listen": "0.0.0.0:7400", "carrier": "zmq"}, "--peer-key"),
        ({"listen": "127.0.0.1.evil.example:7400"}, "--insecure"),
        ({"listen": "*:7400", "carrier": "zmq", "key": "a"}, "--peer-key"),
        ({"listen": "tls/lab1:7400"}, "--zenoh-config"),
        ({"listen": "tcp/lab1:7400", "zenoh_config": "tls.json5"}, "--insecure"),
        ({"listen": "", "discover": True}, "--insecure"),
        ({"listen": "", "discover": True, "carrier": "zmq"}, "zmq finds no peer"),
        ({"hosts": 0}, "not 0"),
    ],
)
def test_what_is_refused(told: dict[str, Any], text: str, certificates: None) -> None:
    """Nothing is open to the network unless that was asked for."""
    with pytest.raises(BridgeError, match=text):
        config.check(settings(**told))


def test_names_on_the_link() -> None:
    assert config.mapping(("a", "b:c"), "export") == {"a": "a", "b": "c"}
    with pytest.raises(BridgeError, match="'c' is there twice"):
        config.mapping(("a:c", "c"), "export")


def test_a_file_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text('pool = "lab"\nexports = ["frames"]\npeer-keys = ["b.key"]\nwindow = 64\nwait = 1\n')
    told = config.load(file)
    assert config.Settings(**told) == config.Settings(
        pool="lab", exports=("frames",), peer_keys=("b.key",), window=64, wait=1.0
    )
    for text, error in (
        ("rings = 1", "rings is no setting"),
        ("window = 'x'", "want a int"),
        ("exports = 'frames'", "list of texts"),
        ("pool =", "Invalid"),
    ):
        file.write_text(text)
        with pytest.raises(BridgeError, match=error):
            config.load(file)


def test_the_example_files_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration names every setting with its default; what it sets is taken, and its certificates are."""
    monkeypatch.chdir(EXAMPLES)
    text = Path("lab.toml").read_text()
    told = config.load(Path("lab.toml"))
    config.check(config.Settings(**told))
    for field in dataclasses.fields(config.Settings):
        key = field.name.replace("_", "-")
        given = re.search(rf"^(# )?{key} = (.*?)(  .*)?$", text, flags=re.MULTILINE)
        assert given, key
        if given[1] and field.default is not None and key != "zenoh-config":
            value = tomllib.loads(f"x = {given[2]}")["x"]
            default = [] if field.default == () else field.default
            assert value == default or key == "export-topics", key
    config.check(config.Settings(pool="lab", exports=("frames",), zenoh_config="zenoh.json5"))
    unit = configparser.ConfigParser(interpolation=None)
    unit.read("ssm-bridge@.service")
    assert unit["Service"]["ExecStart"].endswith("ssm bridge --config /etc/ssm/%i.toml")


def test_errors_of_the_command(pool: ssm.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bridge", pool.name, "--export", "frames", "--listen", "10.0.0.1:7400"]) == 2
    assert "--insecure" in capsys.readouterr().err
    local = ["--listen", "127.0.0.1:1", "--carrier", "zmq", "--wait", "0"]
    assert cli.main(["bridge", "no-such-pool", "--export", "frames", *local]) == 2
    assert "no pool of the name" in capsys.readouterr().err


@needs_zmq
def test_keys_are_made_for_their_owner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bridge", "--make-key", str(tmp_path / "lab")]) == 0
    assert (tmp_path / "lab.key_secret").stat().st_mode & 0o077 == 0
    assert cli.main(["bridge", "--make-key", str(tmp_path / "lab")]) == 2
    assert "is there already" in capsys.readouterr().err


@needs_zmq
def test_two_commands(make_pool: Callable[..., ssm.Pool], tmp_path: Path) -> None:
    """As in the guide, by a file and by options; SIGTERM ends them, and nothing is lost by that."""
    here, there = make_pool(), make_pool()
    out, into = here.ring("out", capacity=16, **EXACT), there.ring("in", capacity=16)
    port = free_port()
    file = tmp_path / "bridge.toml"
    file.write_text(
        f'pool = "{here.name}"\ncarrier = "zmq"\nlisten = "127.0.0.1:{port}"\nexports = ["out:frames"]\nstatus = 0.1\n'
    )
    there_too = ["--carrier", "zmq", "--connect", f"127.0.0.1:{port}", "--import", "frames:in"]
    command = [sys.executable, "-m", "ssm", "bridge"]
    bridges = [
        subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for arguments in (["--config", str(file)], [there.name, *there_too])
    ]
    try:
        put(out, range(50))
        assert take(into, 50) == list(range(50))
        wait_until(lambda: free(here) == 64, "the last acknowledgement")
        for bridge in bridges:
            bridge.send_signal(signal.SIGTERM)
        told = [bridge.communicate(timeout=60) for bridge in bridges]
    finally:
        for bridge in bridges:
            bridge.kill()
            bridge.wait()
    assert [bridge.returncode for bridge in bridges] == [0, 0], told
    assert "out:" not in told[0][0]
    assert "frames: 50 there" in told[0][0]
    assert "met /" in told[1][1]


@needs_zmq
@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip command")
def test_two_hosts(new_name: Callable[[], str]) -> None:
    """The link goes down, and each bridge is killed; all arrives once, encrypted. More: make bridge-faults."""

    def happens(scene: faults.Scene) -> faults.Told:
        faults.cut(3, 1)(scene)
        for host in (0, 1):
            scene.restart(host)
            scene.flow.progress(100)
        return faults.Told(3)

    try:
        result = faults.run("zmq", faults.Row("short", happens), (new_name(), new_name()))
    except two_hosts.NotPermitted as error:
        pytest.skip(str(error))
    assert result.good, result
    assert result.put > 500


@needs_zmq
def test_a_wrong_key_gets_nothing(make_pool: Callable[..., ssm.Pool], tmp_path: Path) -> None:
    from ssm.bridge.over_zmq import Keys, OverZmq

    pool = make_pool()
    pool.ring("out", capacity=16, **EXACT)
    for name in ("ours", "theirs", "other"):
        cli.main(["bridge", "--make-key", str(tmp_path / name)])
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    arguments = ["--carrier", "zmq", "--listen", f"127.0.0.1:{port}", "--export", "out"]
    arguments += ["--key", str(tmp_path / "ours.key_secret"), "--peer-key", str(tmp_path / "theirs.key")]
    bridge = subprocess.Popen([sys.executable, "-m", "ssm", "bridge", pool.name, *arguments])
    try:
        for name, right in (("other", False), ("theirs", True)):
            keys = Keys(tmp_path / f"{name}.key_secret", (tmp_path / "ours.key",))
            peer = OverZmq(address, listen=False, name=name.encode(), keys=keys)
            try:
                assert peer.send([b"let me in"], 60.0 if right else 2.0) is right
            finally:
                peer.close()
    finally:
        bridge.terminate()
        bridge.wait(60)
