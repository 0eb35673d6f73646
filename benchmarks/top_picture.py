# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/top.svg: the screen of `ssm top` while a camera and two parsers work and one of them is killed.

python -m benchmarks.top_picture
"""

from __future__ import annotations

import io
import multiprocessing
import re
import time
from pathlib import Path

import ssm
from ssm.commands.screen import screen
from ssm.commands.top import Watch

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "top.svg"
COLUMNS = 80
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich's own, from the network
LOOK_S = 1.0


def camera(pool: ssm.Pool) -> None:
    frames = pool.ring("frames", 256)
    while True:
        for _ in range(20):
            frames.put(pool.alloc(1500, timeout=None))
        time.sleep(0.001)


def parser(pool: ssm.Pool, keep: int) -> None:
    frames, flows = pool.ring("frames", 256), pool.ring("flows", 64, overflow="drop")
    kept = [frames.get() for _ in range(keep)]
    for packet in frames:
        flows.put(packet)
        time.sleep(0.0002 * len(kept) / keep)


def table(pool: ssm.Pool) -> None:
    for packet in pool.ring("flows", 64, overflow="drop"):
        packet.free()


def main() -> None:
    from rich.console import Console

    context = multiprocessing.get_context("fork")
    with ssm.Pool.create("lab", classes={2048: 512, 65536: 16}, ephemeral=True, label="lab.py") as pool:
        crew = [
            context.Process(target=parser, args=(pool, 3), name="parser 1", daemon=True),
            context.Process(target=parser, args=(pool, 5), name="parser 2", daemon=True),
            context.Process(target=table, args=(pool,), name="flow table", daemon=True),
            context.Process(target=camera, args=(pool,), name="camera", daemon=True),
        ]
        for process in crew:
            process.start()
        with ssm.Pool.attach("lab", readonly=True) as seen:
            watch = Watch(seen)
            watch.look()
            time.sleep(LOOK_S)
            crew[1].kill()
            crew[1].join()
            look = watch.look()
        for process in crew:
            process.kill()
            process.join()
        console = Console(record=True, width=COLUMNS, file=io.StringIO())
        console.print(screen(look, ends="? helps, q quits"))
        PICTURE.write_text(FONT.sub("", console.export_svg(title="ssm top lab")), encoding="utf-8")
        print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
