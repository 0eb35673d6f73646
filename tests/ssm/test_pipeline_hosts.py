# SPDX-License-Identifier: Apache-2.0
"""Pipelines over several hosts: what each role runs, what is refused, and a run over two network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import ssm
from ssm import cli
from ssm.bridge import figures
from ssm.pipeline import PipelineRefused, plan
from tests.processes import PATIENCE_S, wait_until
from tests.ssm.bridge import two_hosts
from tests.ssm.bridge.test_carriers import free_port, needs_zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = """
import time
import ssm

pipe = ssm.Pipeline("NAME")
raw, rows = pipe.ring("raw", 32, size=64), pipe.ring("rows", 32, size=64)

@pipe.source(raw, at="capture")
def read(count):
    for number in range(count):
        time.sleep(0.001)
        yield number.to_bytes(8, "little")

@pipe.stage(raw, rows, workers=2, at="parser")
def parse(packet):
    packet[:8] = (2 * int.from_bytes(packet[:8], "little")).to_bytes(8, "little")
    return packet

@pipe.sink(rows, at="capture")
class Sum:
    def __init__(self):
        self.count = self.total = 0
        self.tags = set()

    def __call__(self, packet):
        self.count += 1
        self.total += int.from_bytes(packet[:8], "little")
        self.tags.add(packet.tag)

    def close(self):
        return self.count, self.total, len(self.tags)
"""
ROLES = ("capture", "parser")


def declared() -> ssm.Pipeline:
    pipe = ssm.Pipeline("roles")
    raw, rows = pipe.ring("raw", 32, size=100), pipe.ring("rows", 32)
    pipe.source(raw, name="read", at="capture")(lambda: iter(()))
    pipe.stage(raw, rows, name="parse", at="parser", headroom=8)(lambda packet: packet)
    pipe.sink(rows, name="keep", at="capture")(lambda packet: None)
    return pipe


LOCAL: dict[str, Any] = {"carrier": "zmq", "listen": "127.0.0.1:7400"}


@pytest.mark.parametrize(
    ("role", "stages", "exports", "imports"),
    [
        ("capture", ["read", "keep"], {"raw": "parser"}, {"rows": "parser"}),
        ("parser", ["parse"], {"rows": "capture"}, {"raw": "capture"}),
    ],
)
def test_what_a_role_runs(role: str, stages: list[str], exports: Any, imports: Any) -> None:
    pipe = declared()
    pipe.at(role)
    pipe.bridge(next(iter(exports.values())), **LOCAL)
    planned = plan.make(pipe._declared)
    assert [stage.name for stage in planned.here.stages] == stages
    assert (planned.here.exports, planned.here.imports) == (exports, imports)
    for name in exports:
        assert planned.rings[name]["consumers"] == "one"
    for name in imports:
        assert planned.rings[name]["producers"] == "one"
    # What bridges keep and what waits in inboxes has blocks; packets of 100 bytes come to the other host, too.
    assert planned.pool["headroom"] == 8
    assert planned.pool["sizes"][100] >= 32 + 64 + 32 + 64 + 32
    assert planned.blocks > 32 + 64 + 32 + 64 + 32


def test_all_roles_on_one_host() -> None:
    planned = plan.make(declared()._declared)
    assert len(planned.here.stages) == 3
    assert not planned.here.exports


def without_role(pipe: ssm.Pipeline) -> None:
    pipe.sink(pipe._declared.rings["rows"], name="more")(lambda packet: None)


def two_roles_read(pipe: ssm.Pipeline) -> None:
    pipe.sink(pipe._declared.rings["rows"], name="more", at="disk")(lambda packet: None)


def loses(pipe: ssm.Pipeline) -> None:
    ring = pipe.ring("more", overflow="drop")
    pipe.source(ring, name="more", at="parser")(lambda: iter(()))
    pipe.sink(ring, name="less", at="capture")(lambda packet: None)


def objects_from_anybody(pipe: ssm.Pipeline) -> None:
    pipe.bridge("parser", carrier="zmq", listen="10.0.0.1:7400", insecure=True)
    ring = pipe.ring("more", objects=True)
    pipe.source(ring, name="more", at="parser")(lambda: iter(()))
    pipe.sink(ring, name="less", at="capture")(lambda packet: None)


@pytest.mark.parametrize(
    ("change", "role", "text"),
    [
        (lambda _: None, "nobody", "no stage has the role 'nobody'"),
        (lambda pipe: pipe._declared.bridges.clear(), "capture", "--bridge parser=FILE"),
        (without_role, "capture", "'more' has no role"),
        (two_roles_read, "capture", "read by hosts of several roles"),
        (loses, "capture", "needs redeliver=True"),
        (objects_from_anybody, "capture", "would be unpickled"),
        (lambda pipe: pipe.bridge("parser", ring="raw"), "capture", "no setting 'ring'"),
        (lambda pipe: pipe.bridge("parser", hosts=2), "capture", "no setting 'hosts'"),
        (lambda pipe: pipe.bridge("parser", listen="10.0.0.1:1"), "capture", "--insecure"),
    ],
)
def test_what_is_refused(change: Callable[[ssm.Pipeline], None], role: str, text: str) -> None:
    pipe = declared()
    pipe.bridge("parser", **LOCAL)
    with pytest.raises(PipelineRefused, match=text):  # noqa: PT012
        change(pipe)
        pipe.at(role)
        pipe.check()


def test_inline_runs_all_roles() -> None:
    pipe = declared()
    pipe.at("capture")
    pipe.bridge("parser", **LOCAL)
    with pytest.raises(PipelineRefused, match="all roles in one process"):
        pipe.run(inline=True)


@needs_zmq
def test_a_bridge_that_cannot_work_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / f"lab{os.getpid()}.py"
    program.write_text(PROGRAM.replace("NAME", program.stem))
    file = tmp_path / "bridge.toml"
    run = ["run", str(program), "10", "--at", "capture"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file.write_text(f'carrier = "zmq"\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert cli.main([*run, "--bridge", f"parser={file}"]) == 1
    assert "the bridge to 'parser': cannot listen" in capsys.readouterr().err
    for wrong in (f"parser={tmp_path / 'none'}", "parser"):
        sys.modules.pop(program.stem)  # as a process of its own would not have it
        assert cli.main([*run, "--bridge", wrong]) == 2


class Labs:
    """A run on each of two hosts."""

    def __init__(self, name: str, inside: list[list[str]], address: str, folder: Path) -> None:
        self.name = name
        program = folder / f"{name}.py"
        program.write_text(PROGRAM.replace("NAME", name))
        self.runs = []
        for role, other, end, before in zip(ROLES, ROLES[::-1], ("listen", "connect"), inside, strict=True):
            file = folder / f"{role}.toml"
            safe = "" if address.startswith("127.") else "insecure = true\n"
            file.write_text(f'carrier = "zmq"\n{end} = "{address}"\n{safe}')
            command = [
                *before,
                sys.executable,
                "-m",
                "ssm",
                "run",
                str(program),
                "1500",
                "--json",
                "--at",
                role,
            ]
            self.runs.append(
                subprocess.Popen(
                    [*command, "--bridge", f"{other}={file}"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def bridges(self) -> dict[int, figures.BridgeStats]:
        """Return the rings that go out, by the bridge's process."""
        found = {}
        for name in ssm.list_pools():
            if not name.startswith(f"/{self.name}-"):
                continue
            with ssm.Pool.attach(name, readonly=True) as pool:
                for end in figures.Reader(pool).read(pool.stats().services, pool.holders()):
                    if end.way == "out":
                        found[end.pid] = end
        return found

    def kill(self, ring: str, packets: int) -> None:
        """Kill the bridge that this ring goes out of, when so many packets went."""

        def gone_so_many() -> int:
            assert all(run.poll() is None for run in self.runs), [run.communicate() for run in self.runs]
            return next(
                (pid for pid, end in self.bridges().items() if end.name == ring and end.packets > packets), 0
            )

        os.kill(wait_until(gone_so_many, f"{packets} packets of {ring}"), signal.SIGKILL)

    def end(self) -> list[dict[str, Any]]:
        """Wait for both, and return their reports."""
        told = [run.communicate(timeout=PATIENCE_S) for run in self.runs]
        assert [run.returncode for run in self.runs] == [0, 0], told
        return [json.loads(out) for out, _ in told]

    def close(self) -> None:
        for run in self.runs:
            run.terminate()
        until = time.monotonic() + PATIENCE_S
        for run in self.runs:
            run.wait(max(0.1, until - time.monotonic()))


@pytest.fixture
def two() -> Iterator[tuple[list[list[str]], str]]:
    """What runs a command on each host, and where the first one listens."""
    if shutil.which("ip") is None:
        pytest.skip("no ip command")
    try:
        with two_hosts.Hosts() as hosts:
            yield [hosts.inside(0), hosts.inside(1)], f"{hosts.address(0, 1)}:7400"
    except two_hosts.NotPermitted as error:
        pytest.skip(str(error))


def check_run(labs: Labs) -> None:
    try:
        labs.kill("raw", 100)
        labs.kill("rows", 100)
        capture, parser = labs.end()
    finally:
        labs.close()
    assert capture["exact"], capture["findings"]
    assert parser["exact"], parser["findings"]
    assert capture["results"]["Sum"] == [[1500, 2 * sum(range(1500)), 1500]]
    assert parser["stages"]["parse"]["packets_in"] == 1500
    assert [
        each["bridges"][other]["killed"] for each, other in ((capture, "parser"), (parser, "capture"))
    ] == [1, 1]


@needs_zmq
def test_a_run_over_two_hosts(
    two: tuple[list[list[str]], str], new_name: Callable[[], str], tmp_path: Path
) -> None:
    """Parsers on the other host; both bridges are killed on the way, and all is exact."""
    check_run(Labs(new_name().strip("/").replace("-", "_"), *two, tmp_path))


@needs_zmq
@pytest.mark.slow
def test_a_run_over_loopback(new_name: Callable[[], str], tmp_path: Path) -> None:
    """The same where namespaces are not permitted."""
    name = new_name().strip("/").replace("-", "_")
    check_run(Labs(name, [[], []], f"127.0.0.1:{free_port()}", tmp_path))
