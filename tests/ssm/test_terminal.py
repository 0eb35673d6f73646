# SPDX-License-Identifier: Apache-2.0
"""Texts that others wrote do not reach the terminal as they are: names of rings, services, processes, pools, files."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ssm
from ssm.terminal import plain, say
from tests.ssm.test_commands import ssm_command

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = 'a[/b]\x1b[31m"\\\r\n\u202e\x9b2J'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("frames [left] äöü 日本", "frames [left] äöü 日本"),
        ("back\\slash", "back\\slash"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m \x7f", "\\x9b31m \\x7f"),
        ("two\nlines\ttab", "two\\nlines\\ttab"),
        ("\u202eright to left\u2028", "\\u202eright to left\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("no utf-8 \udcff", "no utf-8 \\udcff"),
        (ValueError("\x1b"), "\\x1b"),
    ],
)
def test_plain(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_has_not_all_letters(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    say("ring 'töpfe' …\x1b")
    sys.stdout.flush()
    assert raw.getvalue().decode(encoding).encode("ascii", "backslashreplace").count(b"\\x1b\n") == 1


def test_only_say_prints():
    """Whatever is printed for people goes through plain(); JSON escapes by itself."""
    allowed = {
        "ssm/terminal.py": 1,
        "ssm/commands/completion.py": 1,  # code for a shell
        "ssm/commands/output.py": 2,  # JSON
        "ssm/demo/command.py": 1,  # JSON
        "ssm/progress.py": 2,  # its own words
    }
    found = {}
    for path in sorted((ROOT / "ssm").rglob("*.py")):
        code = re.sub(r'(?s)""".*?"""', "", path.read_text())
        count = len(re.findall(r"\bprint\(|\bstd(?:out|err)\.write\(", code))
        if count:
            found[str(path.relative_to(ROOT))] = count
    assert found == allowed


@pytest.fixture
def hostile(make_pool):
    """A pool whose ring, service and process have names that a terminal would obey."""
    pool = make_pool(classes={512: 16})
    mine = ssm.Pool.attach(pool.name)
    mine._set_label(b"\x1b[31m[/b]\xff")
    packets = [mine.alloc(1)]
    pool.ring(HOSTILE, 4).send(b"x")
    pool.ids(HOSTILE, 0, 9)
    yield pool
    packets.clear()
    mine.close()


COMMANDS = [
    ("stat", "POOL"),
    ("holders", "POOL"),
    ("holders", "POOL", "--packets"),
    ("dump", "POOL", HOSTILE),
    ("dump", "POOL", "no such ring\x1b[31m"),
    ("record", "POOL", "\x1b[31m", "/nowhere"),
    ("replay", "/no\x1b[31m", "POOL", HOSTILE),
    ("stat", "no pool\x1b[31m"),
    ("list", "what\x1b[31m"),
    ("demo", "/no\x1b[31m"),
    ("unlink", "POOL"),
    ("check", "POOL"),
    ("list",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: plain(" ".join(command[:3])))
def test_no_command_lets_a_name_through(hostile, command):
    arguments = [hostile.name if word == "POOL" else word for word in command]
    done = subprocess.run(
        [sys.executable, "-m", "ssm", *arguments], capture_output=True, timeout=60, check=False
    )
    shown = done.stdout + done.stderr
    assert re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]", shown) is None, shown
    assert b"Traceback" not in shown
    assert shown
    if command[0] in {"stat", "dump"} and command[-1] in {"POOL", HOSTILE}:
        assert b'a[/b]\\x1b[31m"' in shown


def test_the_screen_of_top_shows_names_as_they_are(hostile):
    from rich.console import Console

    from ssm.commands.top import Watch, screen

    hostile.ring("frames[left]", 4)
    hostile.ring(":smile: [bold]x", 4)
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system="truecolor").print(
        screen(Watch(hostile).look())
    )
    shown = out.getvalue()
    for name in ("frames[left]", ":smile: [bold]x", 'a[/b]\\x1b[31m"', "\\x1b[31m[/b]\ufffd"):
        assert name in shown
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown


def test_metrics_can_be_parsed(hostile):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    from ssm.commands.metrics import _Collector

    registry = CollectorRegistry()
    registry.register(_Collector([hostile.name]))
    text = generate_latest(registry).decode()
    assert "\x1b" not in text
    assert "\r" not in text
    rings = {
        sample.labels["ring"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "ring" in sample.labels
    }
    assert rings == {plain(HOSTILE)}


def test_a_pool_whose_name_is_no_utf8(new_name):
    """The file system takes any bytes, and whoever made the file need not be a friend."""
    name = os.fsdecode(os.fsencode(new_name()) + b"-\xff\x1b")
    with ssm.Pool.create(name, classes={512: 4}, ephemeral=True) as pool:
        with ssm.Pool.attach(name) as other:
            assert other.name == "/" + name
        assert plain(name) in ssm_command("list")
        assert ssm_command("stat", name).startswith("/" + plain(name))
        assert "/" + name in [each["name"] for each in json.loads(ssm_command("list", "--json"))]
        line = json.loads(ssm_command("metrics", name, "--json", "--count", 1))
        assert line["pools"][0]["name"] == "/" + name
        assert pool.name == "/" + name
