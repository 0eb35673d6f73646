# SPDX-License-Identifier: Apache-2.0
"""`ssm run`: pipelines out of files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from xml.etree import ElementTree

import pytest

import ssm
from ssm.cli import main
from ssm.commands import run as command

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
    assert "this host has the role 'gpu', and there is 'Keep' at 'disk'" in capsys.readouterr().err


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


def test_the_picture(name):
    rich = pytest.importorskip("rich.console")
    pipe = ssm.Pipeline(name)
    ring = pipe.ring("a [red]")
    pipe.source(ring, name="read")(lambda: [b"1", b"2"])
    pipe.sink(ring, name="[bold] sink")(lambda packet: None)
    out = io.StringIO()
    rich.Console(file=out, width=100).print(command.picture(pipe.run(inline=True)))
    lines = out.getvalue().splitlines()
    assert lines[1].split()[:3] == ["read", "0", "2"]
    assert lines[2].startswith("[bold] sink")
    assert "ring a [red]" in lines[3]
    assert "0 of 256" in lines[3]
