# SPDX-License-Identifier: Apache-2.0
"""`ssm web`: what it serves, to whom, and what it tells of pools and pipelines."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager
from importlib.resources import files

import pytest

import ssm
from ssm.cli import main
from ssm.web.feed import Feed
from tests.conftest import SHM, SMALL
from tests.processes import PATIENCE_S, wait_until

pytest.importorskip("aiohttp")

from aiohttp.test_utils import TestClient, TestServer

from ssm.web import server

PATHS = ("/", "/page.css", "/page.js", "/icon.svg")


@pytest.fixture
def pool(name):
    with ssm.Pool.create(name, **SMALL, ephemeral=True, label="maker") as pool:
        yield pool


@pytest.fixture
def feed(pool):
    feed = Feed(pool.name)
    yield feed
    feed.close()


@asynccontextmanager
async def client_of(pool, bind="127.0.0.1", names=()):
    app = server.application(Feed(pool.name), server.hosts_of(bind, names))
    async with TestClient(TestServer(app)) as client:
        yield client


async def next_look(stream):
    """Return the next look of an open stream."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            line = await stream.content.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: "):
                return json.loads(line[6:])


# ---- HTTP --------------------------------------------------------------------------------------------


def test_all_that_is_served_is_under_a_strict_policy(pool):
    async def ask():
        async with client_of(pool) as client:
            return {path: await client.get(path) for path in (*PATHS, "/events")}

    for path, answer in asyncio.run(ask()).items():
        policy = dict(
            each.strip().partition(" ")[::2] for each in answer.headers["Content-Security-Policy"].split(";")
        )
        assert answer.status == 200, path
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_is_whole_and_loads_nothing_from_elsewhere():
    page = files("ssm.web")
    for path in ("page.html", "page.css", "page.js", "icon.svg"):
        text = page.joinpath(path).read_text()
        assert set(re.findall(r"https?://[^\s'\"]+", text)) <= {"http://www.w3.org/2000/svg"}
    html = page.joinpath("page.html").read_text()
    assert set(re.findall(r'(?:href|src)="(/[^"]*)"', html)) == set(PATHS) - {"/"}
    assert not re.search(r"style=|\son\w+=|<style|<script>", html)
    script = page.joinpath("page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:9465", 200),
        ("LOCALHOST.", 200),
        ("evil.example", 403),
        ("evil.example:9465", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.7", 403),
        ("localhost@evil.example", 403),
        ("", 403),
    ],
)
def test_names_that_anybody_may_have_pointed_here_are_refused(pool, host, status):
    async def ask():
        async with client_of(pool) as client:
            return [await client.get(path, headers={"Host": host}) for path in ("/", "/events", "/absent")]

    page, events, absent = asyncio.run(ask())
    assert (page.status, events.status) == (status, status)
    assert absent.status == (404 if status == 200 else 403)


def test_beyond_loopback_it_answers_to_addresses_and_to_names_that_it_was_given():
    is_ours = server.hosts_of("0.0.0.0", ["Lab.example"])
    assert all(map(is_ours, ["192.0.2.7", "[2001:db8::7]", "lab.example", "localhost"]))
    assert not any(map(is_ours, ["evil.example", "lab.example.evil.example", ""]))


def test_nothing_can_be_changed_by_a_request(pool):
    async def ask():
        async with client_of(pool) as client:
            return [
                (await client.request(method, path)).status
                for method in ("POST", "PUT", "DELETE", "PATCH")
                for path in ("/", "/events")
            ]

    assert set(asyncio.run(ask())) == {405}


def test_the_stream_follows_the_pool(pool):
    ring = pool.ring("frames", capacity=8)
    ring.send(b"one")

    async def ask():
        async with client_of(pool) as client, client.get("/events") as stream:
            assert stream.content_type == "text/event-stream"
            first = await next_look(stream)
            ring.send(b"two")
            async with asyncio.timeout(PATIENCE_S):
                while (look := await next_look(stream))["rings"][0]["depth"] != 2:
                    pass
            return first, look

    first, look = asyncio.run(ask())
    assert [point[1:] for point in first["history"][str(first["rings"][0]["id"])]][-1] == [1, 0]
    assert "history" not in look
    assert look["classes"][0]["held"] == 2
    assert look["classes"][0]["cells"].count("r") == 2
    assert look["pipeline"] is None
    assert look["rings"][0]["users"] == 1


def test_there_is_an_end_of_streams(pool, monkeypatch):
    monkeypatch.setattr(server, "STREAMS_MAX", 1)

    async def ask():
        async with client_of(pool) as client:
            async with client.get("/events") as stream:
                await next_look(stream)
                async with client.get("/events") as refused:
                    status = refused.status
            async with asyncio.timeout(PATIENCE_S):
                while True:  # the first one is closed: there is room as soon as the server has seen it
                    async with client.get("/events") as again:
                        if again.status == 200:
                            return status, await next_look(again)

    status, look = asyncio.run(ask())
    assert status == 503
    assert look["gone"] is None


# ---- looking -----------------------------------------------------------------------------------------


def test_looking_changes_not_one_byte(pool, feed):
    pool.ring("frames").send(b"one")
    held = pool.alloc(7)
    holders = pool.holders()
    before = hashlib.sha256((SHM / pool.name[1:]).read_bytes()).hexdigest()
    for _ in range(5):
        assert feed.look()["gone"] is None
    assert hashlib.sha256((SHM / pool.name[1:]).read_bytes()).hexdigest() == before
    assert [each.id for each in pool.holders()] == [each.id for each in holders]
    held.free()


def test_it_says_when_the_pool_is_gone_and_finds_the_next_one(name):
    feed = Feed(name)
    assert "there is none yet" in feed.look()["verdict"]["text"]
    with ssm.Pool.create(name, **SMALL) as first:
        first.ring("frames").send(b"one")
        seen = feed.look()
        assert seen["pool"]["generation"] == f"{first.generation:016x}"
        assert len(feed.history()) == 1
        first.unlink()
    gone = feed.look()
    assert gone["gone"] == "its name was removed"
    assert gone["verdict"]["tone"] == "gone"
    with ssm.Pool.create(name, **SMALL, ephemeral=True) as second:
        again = feed.look()
        assert again["gone"] is None
        assert again["pool"]["generation"] == f"{second.generation:016x}"
        assert feed.history() == {}
    assert feed.look()["gone"] is not None
    feed.close()


def _attach_and_wait(talk, name):
    with ssm.Pool.attach(name, label="visitor") as pool:
        packet = pool.alloc(8)
        talk.send(os.getpid())
        talk.recv()
        packet.free()


def test_processes_come_and_die(pool, feed, children):
    feed.look()
    child = children.start(_attach_and_wait, pool.name)
    pid = child.hear()
    came = feed.look()
    assert [(each["kind"], each["who"]) for each in came["events"]] == [("start", "visitor")]
    assert {each["name"]: each["blocks"] for each in came["holders"]} == {"visitor": 1, "maker": 0}
    child.kill()
    wait_until(lambda: not all(each.alive for each in pool.holders()), "the death is seen")
    look = feed.look()
    assert [each["kind"] for each in look["events"]] == ["start", "death"]
    assert look["verdict"] == {"tone": "bad", "text": f"'visitor' (pid {pid}) is dead and holds 1 block."}
    assert look["classes"][0]["cells"].count("d") == 1
    assert [each["alive"] for each in look["holders"]] == [False, True]
    pool.reap()
    assert feed.look()["verdict"]["tone"] == "idle"


def test_worst_first(pool, feed):
    full = pool.ring("a full one", capacity=2)
    drops = pool.ring("losses", capacity=1, overflow="drop")
    for _ in range(2):
        full.send(b"x")
    feed.look()
    for _ in range(500):
        drops.send(b"y")
    look = feed.look()
    assert [each["weight"] for each in look["findings"]] == [3, 2]
    assert look["findings"][0]["text"].startswith("Ring 'losses' is full and loses")
    assert look["findings"][1]["text"] == "Ring 'a full one' is full: every put waits."
    assert look["verdict"]["tone"] == "bad"
    assert look["verdict"]["text"].endswith(" 1 more below.")


def test_blocks_share_squares_and_none_is_hidden(name):
    with ssm.Pool.create(name, classes={512: 2000}, shards=1, ephemeral=True) as pool:
        feed = Feed(name)
        packets = [pool.alloc(1) for _ in range(3)]
        (row,) = feed.look()["classes"]
        assert row["per_cell"] == 4
        assert len(row["cells"]) == 500
        assert 1 <= row["cells"].count("h") <= 3
        assert set(row["cells"]) == {".", "h"}
        del packets
        feed.close()


# ---- pipelines ---------------------------------------------------------------------------------------


def _numbers(count):
    yield from (b"%d" % number for number in range(count))


def _work(packet):
    if packet.tag == 3:
        raise ValueError("no threes")
    if packet.tag == 5 and not packet.redelivered:
        os.kill(os.getpid(), signal.SIGKILL)
    return packet


def _nothing(packet):
    pass


def test_a_pipeline_is_seen_from_outside(name):
    pipe = ssm.Pipeline(name, start="fork")
    numbers, results = pipe.ring("numbers", 16), pipe.ring("results", 16)
    pipe.source(numbers, name="read")(_numbers)
    pipe.stage(numbers, results, name="work", workers=2, on_error="dead")(_work)
    pipe.sink(results, name="end")(_nothing)
    feed = Feed(name)
    looks = []

    def tick(_run):
        looks.append(feed.look())

    with pipe.start(400) as run:
        report = run.wait(tick)
    assert report.exact, report
    seen = [look for look in looks if look["gone"] is None and look["pipeline"]]
    told = seen[-1]["pipeline"]
    assert told["name"] == name
    assert [(stage["name"], stage["kind"]) for stage in told["stages"]] == [
        ("read", "source"),
        ("work", "stage"),
        ("end", "sink"),
    ]
    for stage in told["stages"]:
        assert (
            stage["busy"] + stage["starved"] + stage["blocked"] == pytest.approx(1, abs=1e-6)
            or not stage["busy"]
        )
    assert {(node["name"], node["column"]) for node in told["nodes"]} == {
        ("read", 0),
        ("numbers", 1),
        ("work", 2),
        ("results", 3),
        ("end", 4),
    }
    rings = {ring["name"]: ring for ring in seen[-1]["rings"]}
    assert (rings["numbers"]["from"], rings["numbers"]["to"]) == (["read"], ["work"])
    events = [(event["kind"], event["who"]) for event in seen[-1]["events"]]
    assert events.count(("start", "read-0")) == 1
    assert ("death", "work-0") in events or ("death", "work-1") in events
    (letter,) = seen[-1]["letters"]
    assert letter["tag"] == "3"
    assert letter["head"] == b"3".hex()
    assert letter["reason"].endswith("ValueError: no threes\n")
    assert "in _work" in letter["reason"]
    assert feed.look()["gone"] is not None
    feed.close()


# ---- the command -------------------------------------------------------------------------------------


def test_the_command_serves_until_ctrl_c(pool):
    asked = [sys.executable, "-m", "ssm", "web", pool.name, "--port", "0", "--json"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as process:
        url = json.loads(process.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}events", timeout=PATIENCE_S) as stream:
            assert json.loads(stream.readline().removeprefix(b"data: "))["pool"]["name"] == pool.name
            process.send_signal(signal.SIGINT)  # while the stream is open
            assert process.wait(PATIENCE_S) == 130


def test_a_pool_that_is_not_there(name, capsys):
    assert main(["web", name]) == 2
    assert f"no pool of the name '{name}'" in capsys.readouterr().err


def test_without_aiohttp_it_says_what_to_install(pool, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ssm.web.server")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["web", pool.name]) == 2
    assert 'pip install "ssm-pool[web]"' in capsys.readouterr().err
