# SPDX-License-Identifier: Apache-2.0
"""`ssm demo` as a whole: on real captures, on bad ones, and when somebody kills it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ssm
from ssm.cli import main
from tests.conftest import SHM
from tests.effort import first_one
from tests.processes import START_METHODS, is_running, wait_until

dpkt = pytest.importorskip("dpkt", reason="the demo reads captures with dpkt")

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CAPTURES = {"http.pcap": 43, "smb3_multichannel.pcap": 1_448, "echo-connections.pcap.gz": 82_582}
ENOUGH_S = 60


def capture(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


@pytest.fixture
def http() -> str:
    return str(capture("http.pcap"))


def command(*args: object) -> list[str]:
    """Return the demo as a user starts it, every warning an error."""
    return [sys.executable, "-X", "dev", "-W", "error", "-m", "ssm", "demo", *map(str, args)]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=ENOUGH_S, check=False)


def result_of(*args: object) -> dict[str, Any]:
    """Run it, see that it is content and quiet, and return what it says."""
    done = run(*args, "--json")
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    document: dict[str, Any] = json.loads(done.stdout)
    assert not (SHM / document["pool"].lstrip("/")).exists()
    return document


def pools_of(pid: int) -> list[str]:
    return [path.name for path in SHM.glob(f"ssm-demo-{pid}-*")]


@pytest.fixture(autouse=True)
def nothing_left_by_us():
    yield
    assert pools_of(os.getpid()) == []


# ---- exact -------------------------------------------------------------------------------------------


def flows_by_dpkt(path: Path) -> Counter[str]:
    """Count the packets of each TCP and UDP flow with dpkt alone, in one process."""
    import gzip

    flows: Counter[str] = Counter()
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            packet = dpkt.ethernet.Ethernet(frame).data
            if isinstance(packet, dpkt.ip.IP) and isinstance(packet.data, (dpkt.tcp.TCP, dpkt.udp.UDP)):
                protocol, segment = type(packet.data).__name__.lower(), packet.data
                source, destination = socket.inet_ntoa(packet.src), socket.inet_ntoa(packet.dst)
                flows[f"{protocol} {source}:{segment.sport} > {destination}:{segment.dport}"] += 1
    return flows


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if CAPTURES[name] > 10_000 else ()) for name in CAPTURES],
)
def test_every_packet_once_and_every_flow(name):
    path = capture(name)
    result = result_of(path, "--top", 0)
    assert result["exact"]
    assert result["findings"] == []
    assert result["file"]["packets"] == result["table"]["once"] == CAPTURES[name]
    assert result["table"]["bytes"] == result["file"]["bytes"]
    assert sum(parser["packets"] for parser in result["parsers"]) == CAPTURES[name]
    found = {row["flow"]: row["packets"] for row in result["table"]["talkers"] if " > " in row["flow"]}
    assert found == flows_by_dpkt(path)
    assert all(each["free"] == each["blocks"] for each in result["left"]["classes"])


@pytest.mark.parametrize("start_method", START_METHODS)
def test_start_methods(http, start_method):
    assert result_of(http, "--start-method", start_method)["table"]["once"] == 43


@pytest.mark.parametrize(
    "settings",
    first_one(
        [
            "--classes 128:2,256:2,1024:3,2048:2 --batch 7",
            "--parsers 1 --batch 1 --ring 1",
            "--parsers 4 --batch 1000 --ring 4",
            "--classes 2048:1",
        ]
    ),
)
def test_tight_settings(http, settings):
    assert result_of(http, *settings.split())["table"]["once"] == 43


def test_main_prints_what_happened(http, capfd):
    assert main(["demo", http, "--parsers", "3", "--top", "2"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for expected in (
        rf"^Input: {re.escape(http)}\.$",
        r"^tcp 65\.208\.228\.223:80 > 145\.254\.160\.237:3372 +18 +19,344 ",
        r"^\.\.\. and 4 more flows$",
        r"^  reader +43 in ",
        r"^  ring 'frames' +43 put, 43 got, never more than \d+ of 1,024 in it$",
        r"^  parser 3 +\d+ in ",
        r"^  flow table +43 in 6 flows$",
        r"^    2,048-byte blocks  2,048 free of 2,048$",
        r"^exact: 43 packets and 25,091 bytes, as in the file; ",
    ):
        assert re.search(expected, out, re.MULTILINE), expected


def test_capture_without_packets(tmp_path):
    path = tmp_path / "empty.pcap"
    with path.open("wb") as file:
        dpkt.pcap.Writer(file)
    assert result_of(path)["table"]["packets"] == 0


# ---- without a file ----------------------------------------------------------------------------------


def test_default_input_is_exact_and_named():
    done = run()
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    first = done.stdout.splitlines()[0]
    assert re.fullmatch(
        r"Input: ([\d,]+ frames of its own traffic, captured on loopback|a capture it wrote itself \(.*\))\.",
        first,
    )


def test_without_permission_for_loopback_it_writes_a_capture(monkeypatch, capfd):
    class NoRawSockets(socket.socket):
        def __init__(self, family=-1, kind=-1, *args):
            if kind == socket.SOCK_RAW:
                raise PermissionError(1, "Operation not permitted")
            super().__init__(family, kind, *args)

    monkeypatch.setattr(socket, "socket", NoRawSockets)
    assert main(["demo"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("Input: a capture it wrote itself (loopback: Operation not permitted).\n")
    assert "exact: 20,000 packets" in out


def test_synthetic():
    assert result_of("--synthetic", 1234)["table"]["once"] == 1234


# ---- packets that do not fit -------------------------------------------------------------------------

SMALL = ("--classes", "256:512,2048:512")
LIMIT = 2048 - 64 - 8


def sizes(path: Path) -> list[int]:
    with path.open("rb") as file:
        return [len(frame) for _, frame in dpkt.pcap.Reader(file)]


def test_oversize_is_an_error_with_a_remedy():
    path = capture("smb3_multichannel.pcap")
    too_large = sum(size > LIMIT for size in sizes(path))
    done = run(path, *SMALL)
    assert done.returncode == 2
    assert done.stderr == (
        f"ssm demo: {path} holds {too_large} packets that fit no size class: the largest has 16,162 bytes, "
        f"the limit is {LIMIT:,}; give larger --classes, or choose --oversize truncate or skip\n"
    )


def test_oversize_truncate_is_reported():
    path = capture("smb3_multichannel.pcap")
    result = result_of(path, *SMALL, "--oversize", "truncate")
    assert result["table"]["once"] == 1448
    assert result["table"]["bytes"] == sum(min(size, LIMIT) for size in sizes(path))
    assert result["file"]["oversize_packets"] == sum(size > LIMIT for size in sizes(path))


def test_oversize_skip_is_reported():
    path = capture("smb3_multichannel.pcap")
    kept = [size for size in sizes(path) if size <= LIMIT]
    done = run(path, *SMALL, "--oversize", "skip")
    assert (done.stderr, done.returncode) == ("", 0)
    assert (
        f"oversize: {1448 - len(kept)} packets of more than {LIMIT:,} bytes (largest 16,162) were skipped"
        in done.stdout
    )
    assert f"exact: {len(kept):,} packets and {sum(kept):,} bytes" in done.stdout


# ---- bad input ---------------------------------------------------------------------------------------


def test_missing_file(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "none.pcap")]) == 2
    assert capsys.readouterr().err == f"ssm demo: {tmp_path}/none.pcap: No such file or directory\n"


def test_cut_file_starts_nothing(tmp_path, http, capsys):
    path = tmp_path / "cut.pcap"
    path.write_bytes(Path(http).read_bytes()[:-1])
    assert main(["demo", str(path)]) == 2
    assert capsys.readouterr().err == f"ssm demo: {path} is cut short after packet 42\n"


def test_pool_that_cannot_be_created(http, capsys):
    assert main(["demo", http, "--classes", "32:10,2048:10"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("ssm demo: the pool could not be created: ")
    assert err.count("\n") == 1


def test_missing_dpkt_is_said():
    program = "import sys; sys.modules['dpkt'] = None; from ssm.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'ssm demo: dpkt is missing; install it: pip install "ssm-pool[demo]"\n'


@pytest.mark.parametrize("args", [[], ["demo", "--parsers", "0"], ["demo", "--classes", "x"], ["nonsense"]])
def test_wrong_usage(args, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(args)
    assert exit_.value.code == 2
    assert "usage: ssm" in capsys.readouterr().err


# ---- something fails ---------------------------------------------------------------------------------


def test_failing_member(http):
    program = """
import sys
from ssm.cli import main
from ssm.demo import lab

def parse(*args):
    raise ValueError("no parser today")

lab.parse = parse
sys.exit(main(["demo", sys.argv[1], "--start-method", "fork"]))
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, http]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=ENOUGH_S)
    assert process.returncode == 1
    assert re.fullmatch(
        r"ssm demo: stage 'parser', worker [01] \(pid \d+\), packet with tag \d+: ValueError: no parser today; "
        r"the other processes were ended and the pool removed\n",
        err,
    )
    assert pools_of(process.pid) == []


def test_reader_of_the_output_goes_away(http):
    process = subprocess.Popen(command(http), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.wait(ENOUGH_S) == 1
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert pools_of(process.pid) == []


# ---- ended from outside ------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    """Return its processes, in the order in which it started them."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if "resource_tracker" not in command_of(child)]
    except OSError:  # somebody ended meanwhile
        return []


def command_of(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def has_traffic(pid: int) -> bool:
    for name in pools_of(pid):
        with suppress(FileNotFoundError), ssm.Pool.attach(name, readonly=True) as pool:
            return any(ring.name == "parsed" and ring.gets for ring in pool.stats().rings)
    return False


class Demo:
    """A demo that runs for long, in a process group of its own as a terminal's foreground job has one."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            command("--synthetic", 300_000, "--batch", 1, "--ring", 4, *args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        )
        wait_until(self.has_traffic, "packets on their way")
        self.members = children_of(self.process.pid)

    def has_traffic(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        return has_traffic(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it said."""
        _, err = self.process.communicate(timeout=ENOUGH_S)
        wait_until(lambda: not any(map(is_running, self.members)), "all processes gone")
        return self.process.returncode, err


@pytest.fixture
def demo():
    started = Demo()
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


def test_interrupt(demo):
    os.killpg(demo.process.pid, signal.SIGINT)
    interrupted = time.monotonic()
    status, err = demo.end()
    assert (status, err) == (130, "ssm demo: interrupted; all processes were ended and the pool removed\n")
    assert time.monotonic() - interrupted < 10
    assert pools_of(demo.process.pid) == []


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow)],
)
def test_terminate(demo, number, status):
    demo.process.send_signal(number)
    assert demo.end() == (status, "")
    assert pools_of(demo.process.pid) == []


def test_killed_table(demo):
    assert len(demo.members) == 4
    os.kill(demo.members[3], signal.SIGKILL)
    status, err = demo.end()
    assert status == 1
    assert re.fullmatch(
        r"ssm demo: stage 'flow table', worker 0 \(pid \d+\), was killed by SIGKILL: its state died with it, .*; "
        r"the other processes were ended and the pool removed\n",
        err,
    )
    assert pools_of(demo.process.pid) == []


def test_killed_reader():
    """Another one goes on where the ring says that it was."""
    args = command("--synthetic", 20_000, "--ring", 64, "--batch", 16, "--json")
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: has_traffic(process.pid), "packets on their way")
    os.kill(children_of(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=ENOUGH_S)
    assert (err, process.returncode) == ("", 0), out
    result = json.loads(out)
    assert result["exact"]
    assert result["table"]["once"] == 20_000
    assert result["stages"]["reader"]["killed"] == 1


@pytest.mark.parametrize("settings", ["--parsers 2", "--parsers 1 --batch 7 --ring 8"])
@pytest.mark.parametrize("kills", first_one([3, 1]))
def test_parsers_that_are_killed_in_the_middle_of_a_batch(settings, kills):
    result = result_of("--synthetic", 3000, "--kill-parser", kills, *settings.split())
    assert result["table"]["once"] == 3000
    assert result["killed"] == result["parsers"].count(None) == kills
    assert result["redelivered"] >= kills


def test_parsers_that_are_killed_at_any_moment():
    """From outside, at work and before; the flow table equals the file all the same."""
    args = command("--synthetic", 40_000, "--ring", 64, "--batch", 16, "--json")
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: has_traffic(process.pid), "packets on their way")
    reader, *parsers, table = children_of(process.pid)
    killed: set[int] = set()
    while parsers and process.poll() is None and len(killed) < 10:
        killed.add(parsers[0])
        os.kill(parsers[0], signal.SIGKILL)
        time.sleep(0.1)
        parsers = [pid for pid in children_of(process.pid) if pid not in {reader, table, *killed}]
    out, err = process.communicate(timeout=ENOUGH_S)
    assert (err, process.returncode) == ("", 0), out
    result = json.loads(out)
    assert result["exact"]
    assert len(killed) > 2
    assert result["killed"] in {len(killed), len(killed) - 1}  # the last one may have reported before


def test_killed_itself(demo):
    """Its processes leave, and the next look at the pools finds nobody alive in its own."""
    demo.process.kill()
    demo.end()
    assert not set(pools_of(demo.process.pid)) & set(ssm.list_pools())
    assert pools_of(demo.process.pid) == []
