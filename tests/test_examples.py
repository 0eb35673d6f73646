# SPDX-License-Identifier: Apache-2.0
"""Every numbered example runs by itself, as its first lines say, and says nothing on stderr."""

from __future__ import annotations

import ast
import hashlib
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lines import code_lines

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("[0-9][0-9]_*.py"))
CAPTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "http.pcap"


PATIENCE_S = 60.0


def run(example: Path, *args: object, python: str = sys.executable, **options: object) -> str:
    """Run it, again if another run of this suite has a pool of that name just now; return what it prints."""
    command = [python, "-X", "dev", "-W", "error", example, *map(str, args)]
    until = time.monotonic() + PATIENCE_S
    while True:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options
        )
        if "FileExistsError" not in done.stderr or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs(example):
    run(example)


def test_pipelines_have_the_size_that_the_readme_says():
    """And half of what they had by hand, at most."""
    table = re.findall(
        r"^\| (\w+\.py) \| (\d+) \| (\d+) \|", (EXAMPLES[0].parent / "README.md").read_text(), re.MULTILINE
    )
    assert len(table) == 4
    for name, before, now in table:
        assert code_lines((EXAMPLES[0].parent / name).read_text()) == int(now), name
        assert 2 * int(now) <= int(before), name


def test_lines_of_code():
    source = '"""Docs."""\n\nimport a  # b\n\n\ndef f():\n    """Docs\n    more."""\n    # c\n    return (1,\n\n  2)\n'
    assert code_lines(source) == 4  # the empty line inside the brackets is none


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_runs_twice(example):
    """The second run finds nothing of the first in its way."""
    for _ in range(2):
        run(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_begins_with_what_it_is(example):
    licence, opening = example.read_text().splitlines()[:2]
    assert licence == "# SPDX-License-Identifier: Apache-2.0"
    assert opening.startswith('"""')


@pytest.mark.parametrize("options", [(), ("--kill",)], ids=["", "kill"])
def test_packet_lab_counts_a_capture(options):
    if not CAPTURE.exists():
        pytest.skip("http.pcap is not in ../shared/data")
    out = run(example("packet_lab"), CAPTURE, *options)
    assert re.search(r"^ +18  65\.208\.228\.223:80 > 145\.254\.160\.237:3372$", out, re.MULTILINE)
    assert re.search(r"^      43  packets in 6 flows$", out, re.MULTILINE)
    assert re.search(rf"^ +{len(options)}  parsers killed$", out, re.MULTILINE)


def test_two_processes_is_the_readmes():
    """The same code: comments, the docstring and the pool's name aside."""
    (example,) = (path for path in EXAMPLES if path.stem.endswith("two_processes"))
    readme = (example.parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    program = ast.parse(example.read_text().replace('"two-processes"', '"lab"'))
    del program.body[0]  # the docstring
    assert ast.dump(program) in [ast.dump(ast.parse(block)) for block in blocks]
    assert run(example).splitlines() == [f"{number} b'hello'" for number in range(3)]


def example(stem: str) -> Path:
    (path,) = (path for path in EXAMPLES if path.stem.endswith(stem))
    return path


def skip_if_it_says_so(out: str) -> None:
    if out.startswith("skipped: "):
        pytest.skip(out.removeprefix("skipped: ").strip())


def test_video_detectors_see_every_frame(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(12):
            picture = av.VideoFrame.from_ndarray(np.full((240, 320, 3), number * 20, "u1"), format="rgb24")
            video.mux(stream.encode(picture))
        video.mux(stream.encode())
    out = run(example("video_detectors"), path)
    assert len(re.findall(r"^(?:brightness|edges|reddest) +12 frames", out, re.MULTILINE)) == 3


def test_audio_delays_are_all_counted():
    out = run(example("audio_deadlines"), 0.2)
    blocks = int(re.match(r"(\d+) blocks of 2.67 ms, peak 1.00", out)[1])
    assert blocks == 75
    counts = [int(count) for count in re.findall(r"us(?: and more)? +(\d+) ?#*$", out, re.MULTILINE)]
    assert sum(counts) == blocks


def test_tensors_arrive_as_with_the_data_loader():
    out = run(example("training_tensors"), 5)
    skip_if_it_says_so(out)
    losses = re.findall(r"last loss ([\d.]+)$", out, re.MULTILINE)
    assert len(losses) == 2
    assert losses[0] == losses[1]


def test_every_line_of_a_log_is_in_the_parquet(tmp_path):
    log, output = tmp_path / "log", tmp_path / "log.parquet"
    log.write_text("".join(f"line {number}\n\n" for number in range(500)))
    out = run(example("log_to_parquet"), log, output)
    skip_if_it_says_so(out)
    assert out.startswith("1,000 lines")
    assert output.exists()


def test_thumbnails_of_all_images_but_the_broken_one():
    out = run(example("thumbnails"))
    skip_if_it_says_so(out)
    assert re.match(r"40 images, [\d,]+ bytes of thumbnails, 1 put aside$", out.splitlines()[0])
    assert "cannot identify image" in out


def test_thumbnails_of_a_folder(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "green.png")
    run(example("thumbnails"), tmp_path, tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["sha256"] == hashlib.sha256((tmp_path / "green.png").read_bytes()).digest()
    small = image.open(io.BytesIO(row["thumbnail"]))
    assert small.size == (64, 43)
    assert max(abs(a - b) for a, b in zip(small.getpixel((5, 5)), (10, 200, 30), strict=True)) < 8


def test_frames_come_in_order():
    assert re.match(r"25 frames in order, ", run(example("ordered_frames"), 25))


def test_containers_both_are_pid_1():
    out = run(example("containers"))
    skip_if_it_says_so(out)
    assert "doomed: I am pid 1 and hold job 0" in out
    assert "worker: job 1, 2, 3" in out
    assert "1 process reaped, 1 block came back" in out


def test_each_process_has_an_rmid_of_the_kernels():
    out = run(example("rmid_bpf"), 3)
    skip_if_it_says_so(out)
    assert len(re.findall(r"switched to at least 20 times: True$", out, re.MULTILINE)) == 3
    assert "3 processes, 3 RMIDs" in out
    assert "after their end 0 of them still have one" in out


def test_a_saved_machine_gives_the_next_device_the_same_place():
    out = run(example("vmm_devices"))
    assert len(re.findall(r": True$", out, re.MULTILINE)) == 4
    assert "False" not in out
    assert "0x1180000000 (2097152 KiB)" in out  # the largest BAR, aligned to its size, at the top


def test_rmids_of_a_monitoring_directory(tmp_path):
    (tmp_path / "info" / "L3_MON").mkdir(parents=True)
    (tmp_path / "info" / "L3_MON" / "num_rmids").write_text("4\n")
    (tmp_path / "mon_groups").mkdir()
    out = run(example("resctrl_rmids"), tmp_path)
    assert "job 3 has RMID 3, 12288 bytes of cache" in out
    assert "another job at once: RMID 0, they rest" in out
    assert "after the rest: RMID 2, the one that ended first" in out
    assert list((tmp_path / "mon_groups").iterdir()) == []


def test_the_permit_of_a_killed_process_comes_back():
    out = run(example("device_permits"), 4)
    assert out.splitlines() == ["served: 4", "at most two at once: True", "both permits are back: True"]


def test_the_slot_of_a_killed_worker_comes_back():
    out = run(example("worker_slots"), 3)
    assert "slots: 0 1 2" in out
    slot = re.search(r"killed the one with slot (\d+): 1 process reaped", out)[1]
    assert f"its successor has slot {slot}" in out
    assert out.endswith("left at the end: []\n")
