# SPDX-License-Identifier: Apache-2.0
"""Draws pictures of the newest results.

    python -m benchmarks.pictures [--docs]

From the results of this machine into build/results/images; with `--docs` from the recorded ones into docs/images.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.bench import HERE, MEASURED, RESULTS
from benchmarks.performance import in_words, newest

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHERS = "#1f6f8b", "#b8c4cc"
# Picture -> its questions, side by side.
PEERS = {
    "peers-rate": ("64 B", "1,500 B", "1,048,576 B"),
    "peers-round-trip": ("round trip, polling", "round trip, sleeping", "in one process"),
}


def bars(axes: Any, document: dict[str, Any], question: str) -> None:
    """One bar per peer, the best on top, lengths on a logarithmic scale."""
    found = [r for r in document["results"] if r["question"] == question]
    is_rate = bool(found) and found[0]["unit"] == "messages/s"
    found.sort(key=lambda r: r["median"], reverse=not is_rate)
    drawn = axes.barh(
        [r["peer"] for r in found],
        [r["median"] for r in found],
        color=[OURS if r["peer"].startswith("ssm") else OTHERS for r in found],
    )
    labels = [f"{r['median']:,.0f}/s" if is_rate else in_words(r["median"], "us") for r in found]
    axes.bar_label(drawn, labels, padding=4, fontsize=8)
    axes.set_xscale("log")
    axes.set_title(f"{question}: {'messages per second' if is_rate else 'time'}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.45)


def draw_peers(plot: Any, document: dict[str, Any], images: Path) -> None:
    for name, questions in PEERS.items():
        figure, columns = plot.subplots(1, len(questions), figsize=(5 * len(questions), 4))
        for axes, question in zip(columns, questions, strict=True):
            bars(axes, document, question)
        save(plot, figure, images / f"{name}.svg", document)


def draw_growth(plot: Any, document: dict[str, Any], images: Path) -> None:
    things = list(dict.fromkeys(r["of"] for r in document["results"] if r["unit"] == "ns"))
    figure, columns = plot.subplots(
        1, max(len(things), 1), figsize=(4.2 * max(len(things), 1), 3.6), squeeze=False
    )
    for axes, thing in zip(columns[0], things, strict=False):
        found = [r for r in document["results"] if r["of"] == thing and r["unit"] == "ns"]
        for what in dict.fromkeys(r["what"] for r in found):
            points = [(r["at"], r["median"]) for r in found if r["what"] == what]
            axes.plot(*zip(*points, strict=True), marker="o", label=what)
        axes.set_xscale("log", base=2 if thing != "blocks" else 10)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(thing)
        axes.set_ylabel("ns")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
    save(plot, figure, images / "growth.svg", document)


def save(plot: Any, figure: Any, output: Path, document: dict[str, Any]) -> None:
    about = document["machine"]
    figure.text(
        0.01,
        0.01,
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {about['python']}",
        fontsize=7,
    )
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Date": None})
    plot.close(figure)
    print(f"drew {os.path.relpath(output)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--docs", action="store_true", help="of benchmarks/results, into docs/images")
    docs = parser.parse_args(argv).docs
    results, images = (RESULTS, HERE.parent / "docs" / "images") if docs else (MEASURED, MEASURED / "images")
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ssm"  # the same results, the same file
    from matplotlib import pyplot

    if peers := newest(results / "peers"):
        draw_peers(pyplot, peers, images)
    if growth := newest(results / "growth"):
        draw_growth(pyplot, growth, images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
