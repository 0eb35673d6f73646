# SPDX-License-Identifier: Apache-2.0
"""`ssm run`: pipelines out of files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import textwrap
import time
from xml.etree import ElementTree

import pytest

import ssm
from ssm.cli import main
from ssm.commands import stages, top
from ssm.pipeline.pace import Pace

FILE = """
    import ssm
    pipe = ssm.Pipeline({name!r})
    ring = pipe.ring("numbers", objects=True)

    @pipe.source(ring)
    def read(count, word="x"):
        yield from (f"{{word}} {{number}}" for number in range(count))

    @pipe.sink(ring)
    class Keep:
        def __init__(self):
            self.all = []
        def __call__(self, text):
            if text == "fail 3":
                raise ValueError("no threes")
            self.all.append(text)
        def close(self):
            return self.all
"""


@pytest.fixture
def file(tmp_path, name, monkeypatch):
    """A file with a module name of its own: this process keeps what it imports."""
    path = tmp_path / f"pipeline_{name.replace('-', '_')}.py"
    path.write_text(textwrap.dedent(FILE.format(name=name)))
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("how", ["--inline", pytest.param("", marks=pytest.mark.slow)])
def test_it_runs(file, how):
    asked = [sys.executable, "-m", "ssm", "run", str(file), "3", "word", *filter(None, [how])]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "exact" in done.stdout
    assert "['word 0', 'word 1', 'word 2']" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_other_workers(file, capsys):
    assert main(["run", str(file), "3", "--workers", "Keep=2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stages"]["Keep"]["workers"] == report["stages"]["Keep"]["started"] == 2
    assert sorted(each for part in report["results"]["Keep"] for each in part) == ["x 0", "x 1", "x 2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "Keep"], "give a stage and a number, as in --workers parse=8"),
        (["--workers", "Keep=0"], "workers"),
        (["--workers", "Kept=2"], "no stage 'Kept', but read, Keep"),
    ],
)
def test_workers_that_cannot_be(file, capsys, options, said):
    assert main(["run", str(file), *options, "--check"]) == 2
    assert said in capsys.readouterr().err


def test_a_picture_in_svg(file, capsys):
    assert main(["run", str(file), "--workers", "Keep=3", "--svg"]) == 0
    picture = ElementTree.fromstring(capsys.readouterr().out)
    words = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["numbers", "read", "Keep x3"]


def test_roles(file, capsys):
    file.write_text(file.read_text().replace("@pipe.sink(ring)", '@pipe.sink(ring, at="disk")'))
    assert main(["run", str(file), "--at", "disk", "--check"]) == 0
    sys.modules.pop(file.stem)  # as a process of its own would not have it
    assert main(["run", str(file), "--at", "gpu", "--check"]) == 2
    assert "no stage has the role 'gpu': roles are 'disk'" in capsys.readouterr().err


def test_json(file, capsys):
    assert main(["run", str(file), "2", "--inline", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exact"] is True
    assert report["results"] == {"Keep": [["x 0", "x 1"]]}
    assert report["stages"]["read"]["packets_out"] == 2


def test_a_failure(file, capsys):
    assert main(["run", str(file), "9", "fail", "--inline"]) == 1
    out, err = capsys.readouterr()
    assert "stage 'Keep': ValueError: no threes" in err
    assert "not complete" in out


def test_graph_and_check(file, capsys):
    assert main(["run", str(file), "--graph"]) == 0
    assert '-- "numbers" -->' in capsys.readouterr().out
    sys.modules.pop(file.stem)
    assert main(["run", str(file), "--check"]) == 0
    assert "can run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "arguments", "said"),
    [
        ("absent.py", None, [], "no such file"),
        ("not-a-module.py", "", [], "name it like a module"),
        ("queue.py", "", [], "another module 'queue'"),
        ("empty_of_pipelines.py", "", [], "has no ssm.Pipeline"),
        (
            "two_pipelines.py",
            "import ssm\na, b = ssm.Pipeline('a'), ssm.Pipeline('b')",
            [],
            "several pipelines (a, b)",
        ),
        ("one_pipeline.py", "import ssm\na = ssm.Pipeline('a')", ["--name", "c"], "no pipeline 'c', but a"),
        ("no_source.py", "import ssm\na = ssm.Pipeline('a')", [], "has no source"),
    ],
)
def test_what_cannot_run(tmp_path, monkeypatch, capsys, name, text, arguments, said):
    monkeypatch.setattr(sys, "path", sys.path[:])
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["run", str(tmp_path / name), *arguments]) == 2
    assert said in capsys.readouterr().err
    if name != "queue.py":
        sys.modules.pop(name.removesuffix(".py"), None)


def _slow(packet):
    time.sleep(0.002)
    return packet


@pytest.fixture
def looked_at(name):
    """Run a pipeline, look at it with a function from outside as soon as something moves, and end it."""

    def go(look):
        pipe = ssm.Pipeline(name, start="fork")
        a, b = pipe.ring("a [red]", 16), pipe.ring("b", 16)
        pipe.source(a, name="read")(lambda: iter(lambda: b"x", None))
        pipe.stage(a, b, name="[bold] work", workers=(1, 8))(_slow)
        pipe.sink(b, name="end")(lambda packet: None)
        seen = []

        def tick(run):
            if not seen and run.report().stages["end"].packets_in > 20:
                seen.append(look(run))
                run.stop()

        with pipe.start() as run:
            assert run.wait(tick).exact
        return seen[0]

    return go


def drawn(what, width=110):
    out = io.StringIO()
    pytest.importorskip("rich.console").Console(file=out, width=width).print(what)
    return out.getvalue()


def test_top_shows_a_pipeline_from_outside(looked_at, name, capsys):
    there = []

    def look(run):
        watch = top.Watch(run.pool)
        watch.look()
        time.sleep(0.05)
        seen = watch.look()
        there.append(len(run.pids("[bold] work")))
        assert main(["top", name, "--json", "--count", "1"]) == 0  # by the name of the pipeline
        return seen

    seen = looked_at(look)
    told = json.loads(capsys.readouterr().out)
    assert [each["news"]["name"] for each in told["progress"]["stages"]] == ["read", "[bold] work", "end"]
    text = drawn(top.screen(seen, pipeline=stages.tables(seen.progress)))
    line = next(line for line in text.splitlines() if line.startswith("[bold] work"))
    assert re.search(r"[#.=]{20}", line)
    workers = int(line.split()[4])
    assert there[0] - 1 <= workers <= there[0]  # those that run, not those that it may have
    assert re.search(r"^a \[red\] +\d+ +16 ", text, re.MULTILINE)
    assert seen.progress.bottleneck in " ".join(text.split())
    assert "blocks" in text


def test_a_pool_without_a_pipeline_has_no_stages(name):
    with ssm.Pool.create(name, classes={512: 4}, ephemeral=True) as pool:
        look = top.Watch(pool).look()
        assert look.progress is None
        assert "stages" not in drawn(top.screen(look))


def test_lines_where_there_is_no_terminal(looked_at):
    def look(run):
        pace = Pace()
        pace.look(run.news(), run.pool.stats().rings)
        time.sleep(0.1)
        return list(stages.lines(pace.look(run.news(), run.pool.stats().rings), 1.5))

    said = looked_at(look)
    assert said[0] == "after 1.5 s"
    shares = [re.search(r"/s  busy +(\d+)%  starved +(\d+)%  blocked +(\d+)%", line) for line in said[1:4]]
    assert all(99 <= sum(map(int, each.groups())) <= 101 for each in shares)
    assert said[1].startswith("  read           x1  ")
    assert re.fullmatch(r"  ring 'a \[red\]': [\d,]+/s, \d+ of 16 ready, \d+ in hand", said[4])
    assert len(said) == 7


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [False, True])
def test_it_shows_how_it_goes(file, terminal):
    """Lines every so often; on a terminal, tables that are gone in the end."""
    if terminal:
        pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    asked = [sys.executable, "-m", "ssm", "run", str(file), "30000", "--interval", "0.01"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        asked, stdout=subprocess.DEVNULL, stderr=theirs if terminal else subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError), contextlib.closing(os.fdopen(ours, "rb", 0)) as screen:
            stream = screen if terminal else process.stderr
            while part := stream.read(65536):
                said += part
        assert process.wait(100) == 0
    text = said.decode()
    assert "Traceback" not in text
    assert ("\x1b[" in text) == terminal
    assert re.search("stages" if terminal else r"^after \d", text, re.MULTILINE)
    assert re.search(r"\bread\b", text)
    assert re.search(r"\bnumbers\b", text)
