# SPDX-License-Identifier: Apache-2.0
"""The command line, as its users type it: each command in a process of its own, `top` on a pseudo-terminal."""

import contextlib
import html.parser
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import ssm
from ssm.captures import recording
from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60


def ssm_command(*args, status=0):
    """Run ``ssm ARGS``; returns what it printed, after looking at its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "ssm", *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def ssm_json(*args, status=0):
    return json.loads(ssm_command(*args, "--json", status=status))


@contextlib.contextmanager
def started(*args, **options):
    """``ssm ARGS`` in the background; it is ended, whatever happens."""
    process = subprocess.Popen([sys.executable, "-m", "ssm", *map(str, args)], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def ring(pool):
    return pool.ring("frames", capacity=16)


@pytest.fixture
def queued(pool, ring):
    """Three packets: tags 0 .. 2, contents b"packet 0" .. b"packet 2"."""
    for number in range(3):
        packet = pool.alloc(8)
        packet[:] = b"packet %d" % number
        packet.tag = number
        ring.put(packet)
    yield ring
    ring.shutdown(immediate=True)


def die_with(talk, pool, count):
    held = [pool.alloc(100) for _ in range(count)]
    talk.send(len(held))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def dead_holder(pool, children):
    """A process that died with two packets in its hands, and was not reaped."""
    child = children.start(die_with, pool, 2)
    assert child.hear() == 2
    child.join()


# ---- looking ---------------------------------------------------------------------------------------


def test_list(pool, queued):
    assert pool.name.strip("/") in ssm_command("list")
    (mine,) = [each for each in ssm_json("list") if each["name"] == pool.name]
    assert (mine["size"], mine["processes"], mine["rings"], mine["error"]) == (pool.size, 1, 1, None)


def test_stat(pool, queued):
    pool.ids("flows", 0, 9)
    text = ssm_command("stat", pool.name)
    assert re.search(r"frames +3 +16 ", text)
    assert "ids(0, 9, reclaim=False)" in text
    assert ssm_json("stat", pool.name)["rings"][0]["depth"] == 3


def test_what_a_full_ring_lost_is_shown(pool):
    ring = pool.ring("lossy", capacity=1, overflow="overwrite")
    for _ in range(1235):
        ring.send(b"x")
    assert re.search(r"lossy .* overwrite +1,?234 ", ssm_command("stat", pool.name))
    (told,) = ssm_json("stat", pool.name)["rings"]
    assert (told["overflow"], told["drops"]) == ("overwrite", 1234)
    (line,) = ssm_command("metrics", pool.name, "--json", "--count", 1).splitlines()
    assert json.loads(line)["pools"][0]["rings"][0]["drops"] == 1234
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "60"}
    try:
        with started("top", pool.name, "--interval", 0.1, stdout=theirs, stderr=theirs, env=environment):
            assert "1,234" in read_screen(ours, "1,234")
    finally:
        os.close(ours)
        os.close(theirs)


def test_holders_name_the_dead(pool, queued, dead_holder):
    assert "DEAD" in ssm_command("holders", pool.name)
    found = ssm_json("holders", pool.name)["holders"]
    assert [h["blocks"] for h in found if not h["alive"]] == [2]
    assert [h["blocks"] for h in found if h["kind"] == "ring"] == [3]


def test_holders_of_each_packet(pool, queued):
    packet = pool.alloc(100)
    found = ssm_json("holders", pool.name, "--packets")
    ids = {holder["name"]: holder["id"] for holder in found["holders"]}
    assert sorted(each["tag"] for each in found["packets"] if each["holders"] == [ids["frames"]]) == [0, 1, 2]
    (mine,) = [each for each in found["packets"] if each["handle"] == packet.handle]
    assert (mine["length"], mine["block_size"]) == (100, 256)
    assert f"(pid {os.getpid()})" in ssm_command("holders", pool.name, "--packets")


def test_check(pool, queued):
    assert ssm_command("check", pool.name) == "consistent\n"
    assert ssm_json("check", pool.name) == []


def test_check_fails_where_a_pool_contradicts_itself(make_pool, new_name):
    name = new_name()
    pool = make_pool(name)
    ring = pool.ring("frames")
    ring.send(b"x")
    with Path(f"/dev/shm/{name}").open("r+b") as file:
        data = file.read()
        at = data.index(b"frames\0")
        file.seek(at - at % 128)  # the slot that names the ring: its kind is first
        file.write(b"\0\0\0\0")
    findings = ssm_json("check", pool.name, status=1)
    assert findings
    pool.close()


def test_reap(pool, dead_holder):
    assert ssm_json("reap", pool.name) == {"processes": 1, "blocks": 2}
    assert ssm_command("reap", pool.name).startswith("0 dead processes")


def test_unlink_spares_what_is_in_use(make_pool, new_name):
    name = new_name()
    pool = make_pool(name)
    assert "--force" in ssm_command("unlink", name, status=1)
    pool.close()
    assert ssm_json("unlink", name) == {"removed": [name], "in_use": {}}
    assert not Path(f"/dev/shm/{name}").exists()


def test_unlink_rings(pool, queued):
    assert "'frames' has 1 processes that have it open" in ssm_command(
        "unlink", pool.name, "--ring", "frames", status=1
    )
    pool.ring("old", capacity=2).close()
    assert ssm_json("unlink", pool.name, "--ring", "old") == {"removed": ["old"], "in_use": {}}
    assert ssm_json("unlink", pool.name, "--ring", "frames", "--force") == {
        "removed": ["frames"],
        "in_use": {},
    }
    assert pool.rings() == []
    assert "frames (unlinked)" in ssm_command("stat", pool.name)
    assert "no ring 'frames'" in ssm_command("unlink", pool.name, "--ring", "frames", status=2)
    assert ssm_json("check", pool.name) == []


def test_dump_shows_what_is_queued_and_takes_nothing(pool, queued):
    text = ssm_command("dump", pool.name, "frames")
    assert "70 61 63 6b 65 74 20 31" in text
    assert "packet 1" in text
    assert "held by ring 'frames'" in text
    found = ssm_json("dump", pool.name, "frames", "--count", 2, "--bytes", 3)
    assert [(each["tag"], each["length"], bytes.fromhex(each["data"])) for each in found] == [
        (0, 8, b"pac"),
        (1, 8, b"pac"),
    ]
    assert queued.qsize() == 3
    assert ssm_json("dump", pool.name, hex(found[0]["handle"]))[0]["handle"] == found[0]["handle"]


def test_dump_decodes(pool, ring):
    ring.send(bytes(12) + b"\x08\x06" + bytes(46))
    assert "arp" in ssm_command("dump", pool.name, "frames", "--decode", "ethernet").splitlines()
    ring.get().free()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["stat", "no-such-pool"], "no pool of the name 'no-such-pool'; 'ssm list' shows"),
        (["top", "/no-such-pool"], "no pool of the name '/no-such-pool'; 'ssm list' shows"),
        (["dump", "POOL", "nothing"], "no ring 'nothing'"),
        (["dump", "POOL", "0xffffffff"], "does not hold that packet"),
        (["record", "POOL", "nothing", "/nowhere"], "no ring 'nothing'"),
        (["replay", "/nowhere", "POOL", "frames"], "/nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(pool, args, says):
    text = ssm_command(*(pool.name if arg == "POOL" else arg for arg in args), status=2)
    assert says in text
    assert "Traceback" not in text
    assert text.count("\n") == 1


# ---- top -------------------------------------------------------------------------------------------


def read_screen(fd, until, seconds=TIMEOUT_S):
    """What a terminal got, until `until` is in it."""
    text, end = "", time.monotonic() + seconds
    while until not in text and time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            text += os.read(fd, 65536).decode(errors="replace")
    return text


def test_top_on_a_terminal(pool, queued, dead_holder):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "60"}
    try:
        with started(
            "top", pool.name, "--interval", 0.1, stdout=theirs, stderr=theirs, env=environment
        ) as top:
            text = read_screen(ours, "DEAD")
            assert "frames" in text
            assert "held longest" in text
            assert "DEAD" in text
            pool.alloc(10).free()
            os.read(ours, 65536)
            assert read_screen(ours, "frames")  # it goes on
            top.send_signal(signal.SIGINT)
            assert top.wait(TIMEOUT_S) == 130
    finally:
        os.close(ours)
        os.close(theirs)
    assert pool.holders()[0].alive


def test_top_as_lines_of_json(pool, queued):
    ssm_lines = ssm_command("top", pool.name, "--json", "--count", 3, "--interval", 0.05).splitlines()
    looks = [json.loads(line) for line in ssm_lines]
    assert len(looks) == 3
    assert looks[0]["oldest"][0]["holders"] == ["ring 'frames'"]
    assert looks[2]["oldest"][0]["seconds"] > looks[0]["oldest"][0]["seconds"]


# ---- record and replay -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", recording.FORMATS)
def test_record_and_replay(pool, queued, tmp_path, form):
    file = tmp_path / f"x.{form}"
    found = ssm_json("record", pool.name, "frames", file, "--count", 3, "--format", form)
    assert found == {"packets": 3, "bytes": 24}
    assert queued.empty()
    assert ssm_json("replay", file, pool.name, "again", "--speed", 0, "--shutdown") == found
    packets = [(bytes(packet), packet.tag) for packet in pool.ring("again")]
    tags = range(3) if form == "records" else (0, 0, 0)
    assert packets == [(b"packet %d" % number, tag) for number, tag in enumerate(tags)]


def test_record_passes_on(pool, queued, tmp_path):
    onward = pool.ring("onward", capacity=16)
    ssm_json("record", pool.name, "frames", tmp_path / "x", "--count", 3, "--to", "onward")
    assert [bytes(packet) for packet in onward.get_many(3)] == [b"packet %d" % number for number in range(3)]


def test_record_ends_with_its_ring_and_with_ctrl_c(pool, ring, tmp_path):
    for end in (lambda p: p.send_signal(signal.SIGINT), lambda p: ring.shutdown()):
        file = tmp_path / "x"
        with started("record", pool.name, "frames", file, "--json", stdout=subprocess.PIPE) as process:
            ring.send(b"hello")
            wait_until(lambda: ring.empty(), "the packet is recorded")
            end(process)
            assert process.wait(TIMEOUT_S) == 0
            assert json.loads(process.stdout.read()) == {"packets": 1, "bytes": 5}
        assert [record.data for record in recording.read(file)] == [b"hello"]
        file.unlink()


def test_replay_keeps_the_timing(pool, ring, tmp_path):
    file = tmp_path / "x"
    with recording.writer(file, "records") as write:
        for number in range(3):
            write(recording.Record(number * 200_000_000, number, b"x"))
    start = time.monotonic()
    ssm_json("replay", file, pool.name, "frames", "--speed", 2)
    assert time.monotonic() - start > 0.2
    assert len(ring.get_many(3)) == 3


def test_a_damaged_recording_is_said_to_be(pool, ring, tmp_path):
    file = tmp_path / "x"
    with recording.writer(file, "records") as write:
        write(recording.Record(0, 0, b"hello"))
        write(recording.Record(0, 0, b"world"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "after packet 1" in ssm_command("replay", file, pool.name, "frames", status=2)
    assert bytes(ring.get()) == b"hello"
    file.write_bytes(b"no recording" * 10)
    assert "is not a pcap" in ssm_command("replay", file, pool.name, "frames", status=2)


@pytest.mark.parametrize(
    "args",
    [
        ["dump", "POOL", "frames", "--decode", "ethernet"],
        ["record", "POOL", "frames", "x.pcapng", "--count", "1"],
        ["replay", "x.pcapng", "POOL", "frames"],
    ],
    ids=lambda args: args[0],
)
def test_missing_dpkt_is_said_and_costs_nothing(pool, queued, tmp_path, args):
    file = tmp_path / "x.pcapng"
    file.write_bytes(b"not a file of records")
    args = [{"POOL": pool.name, file.name: str(file)}.get(arg, arg) for arg in args]
    program = "import sys; sys.modules['dpkt'] = None; from ssm.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    remedy = 'dpkt is missing; install it: pip install "ssm-pool[demo]"'
    assert done.returncode == 2
    assert done.stderr in (f"ssm {args[0]}: {remedy}\n", f"ssm {args[0]}: {remedy}; 0 packets were put\n")
    assert file.read_bytes() == b"not a file of records"
    assert queued.qsize() == 3


# ---- metrics ---------------------------------------------------------------------------------------


def test_metrics_over_http(pool, queued):
    with started("metrics", pool.name, "--port", 0, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().split()[0]
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
        server.send_signal(signal.SIGINT)
        assert server.wait(TIMEOUT_S) == 130
    assert f'ssm_ring_depth{{pool="{pool.name}",ring="frames"}} 3.0' in text
    assert f'ssm_ring_puts_total{{pool="{pool.name}",ring="frames"}} 3.0' in text
    assert f'ssm_blocks{{block_size="256",pool="{pool.name}"}} 64.0' in text


@pytest.mark.parametrize("more", [[], ["--json", "--count", 1]])
def test_metrics_of_a_pool_that_is_not_there(pool, new_name, more):
    missing = new_name()
    said = ssm_command("metrics", pool.name, missing, *more, status=2)
    assert said == f"ssm metrics: no pool of the name {missing!r}; 'ssm list' shows those that are there\n"


def test_metrics_as_lines(pool, queued):
    lines = ssm_command("metrics", pool.name, "--json", "--count", 2, "--interval", 0.05).splitlines()
    assert [json.loads(line)["pools"][0]["rings"][0]["depth"] for line in lines] == [3, 3]


def test_metrics_of_all_pools_pass_over_what_is_none(pool, new_name):
    from ssm.commands.metrics import collect

    Path(f"/dev/shm/{new_name()}").write_bytes(b"no pool")
    with ssm.Pool.create(new_name(), classes={512: 8}) as damaged:
        damaged.ids("flows", 0, 9)
        path = Path(f"/dev/shm{damaged.name}")
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(b"flows\0") - 32)  # of the service's entry
            file.write(b"\xff" * 8)
        with pytest.raises(ssm.CorruptionError):
            damaged.stats()
    (blocks,) = [family for family in collect([]) if family.name == "ssm_blocks"]
    assert (pool.name, "256") in [(s.labels["pool"], s.labels["block_size"]) for s in blocks.samples]


def test_the_dashboard_shows_metrics_that_there_are(pool, queued):
    from ssm.commands.metrics import collect

    pool.ids("flows", 0, 9)
    dashboard = (ROOT / "examples" / "grafana-dashboard.json").read_text()
    used = set(re.findall(r"\bssm_[a-z_]+", " ".join(re.findall(r'"expr": "([^"]*)"', dashboard))))
    there = {sample.name for family in collect([pool.name]) for sample in family.samples}
    assert used
    assert used <= there
    json.loads(dashboard)


# ---- bench, help -----------------------------------------------------------------------------------


def test_bench():
    found = ssm_json("bench")
    assert all(0 < case["median_ns"] < 1e6 for case in found.values())


def test_version():
    assert ssm_command("--version") == f"ssm {ssm.__version__}\n"


def test_every_command_has_help():
    from ssm.cli import COMMANDS

    text = ssm_command("--help")
    for command in COMMANDS:
        assert command.name in text
        assert command.name == "completion" or "--json" in ssm_command(command.name, "--help")


def test_pool_exhausted_names_who_holds_the_blocks(pool, ring):
    packets = [pool.alloc(100) for _ in range(64)]
    ring.put(packets.pop())
    with pytest.raises(ssm.PoolExhausted) as caught:
        pool.alloc(100)
    text = str(caught.value)
    assert "ring 'frames'" in text
    assert f"(pid {os.getpid()})" in text
    ring.get().free()


# ---- what others than pools are called ---------------------------------------------------------------


def test_list_is_not_wide_where_a_file_is_no_pool(pool, new_name):
    name = new_name()
    (Path("/dev/shm") / name).write_bytes(b"pl\x00ssm01" + b"x" * 5000)
    text = ssm_command("list")
    lines = text.splitlines()
    assert f"/{name}: no pool of this release; `ssm unlink {name}` removes it" in lines
    head = next(line for line in lines if line.startswith("name"))
    assert head.split() == ["name", "size", "processes", "dead", "rings", "services"]
    assert len(head) <= max(len(line.split()[0]) for line in lines if line.startswith("/")) + 60
    (found,) = [each for each in ssm_json("list") if each["name"] == f"/{name}"]
    assert "is not an ssm pool" in found["error"]
    says = f"ssm stat: {name!r} is no pool, or one of another release of ssm; 'ssm list' shows those that are there"
    assert ssm_command("stat", name, status=2).startswith(says)


@pytest.mark.parametrize(
    "arguments", [("unlink",), ("reap",), ("check",), ("holders", "--where"), ("stat", "--json")]
)
def test_what_is_not_there_is_said_in_the_words_of_the_shell(arguments):
    text = ssm_command(*arguments, "no-such-pool", status=2)
    assert text == (
        f"ssm {arguments[0]}: no pool of the name 'no-such-pool'; 'ssm list' shows those that are there\n"
    )


# ---- the same in Python ------------------------------------------------------------------------------


def test_statistics_print_as_the_command_does(pool, queued):
    pool.ids("flows", 0, 9)
    assert f"{pool.stats()}\n" == ssm_command("stat", pool.name)
    assert repr(pool.stats()).startswith("PoolStats(name=")


def test_a_notebook_shows_tables(pool):
    pool.ring("<b>&x", 4)
    shown = pool._repr_html_()
    assert f"&lt;ssm.Pool &#x27;{pool.name}&#x27;" in shown
    assert pool.stats()._repr_html_() in shown
    assert "<td>&lt;b&gt;&amp;x</td>" in shown
    assert f"<td>{pool.stats().classes[0].blocks}</td>" in shown
    parser = html.parser.HTMLParser()
    opened: list[str] = []
    parser.handle_starttag = lambda tag, _: opened.append(tag)
    parser.handle_endtag = lambda tag: opened.remove(tag)
    parser.feed(shown)
    assert opened == []
    pool.close()
    assert "closed" in pool._repr_html_()
    assert "<table>" not in pool._repr_html_()
