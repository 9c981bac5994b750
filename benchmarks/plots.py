"""Plots of the committed results.

python -m benchmarks.plots
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
WAYS = {
    "service": "one state",
    "sixteen_states_together": "16 states together",
    "sixteen_states_one_by_one": "16 states one by one",
    "rerotate_every_chunk": "one state, re-rotating every chunk",
    "read_codes": "reading the same bytes",
}


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def figure(title: str) -> tuple[Figure, Axes]:
    found = Figure(figsize=(7, 3.6), dpi=130, layout="constrained")
    axes = found.subplots()
    axes.set_title(title)
    axes.grid(visible=True, axis="both", alpha=0.3)
    return found, axes


def plot_scan() -> None:
    """Milliseconds of a step, by way and by what is searched."""
    result = read("scan")
    groups = [
        (f"{int(chunks):,} chunks in\n{found['documents']:,} document{'s' * (found['documents'] > 1)}", found)
        for kind in ("one_document", "many_documents")
        for chunks, found in result[kind].items()
    ]
    drawn, axes = figure("One step")
    width = 0.8 / len(WAYS)
    for number, (way, label) in enumerate(WAYS.items()):
        places = [at + (number - len(WAYS) / 2 + 0.5) * width for at in range(len(groups))]
        axes.bar(places, [found[way]["median_ms"] for _, found in groups], width, label=label)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], fontsize=8)
    axes.legend(fontsize=7)
    drawn.savefig(RESULTS / "scan.png")


def plot_crowd() -> None:
    """Latency by clients at once."""
    drawn, axes = figure("/retrieve, four steps")
    for chunks, found in read("crowd")["chunks"].items():
        rows = {int(clients): row for clients, row in found["clients"].items() if clients.isdigit()}
        (line,) = axes.plot(list(rows), [row["p50_ms"] for row in rows.values()], "o-", label=f"{int(chunks):,} chunks")
        for share, style in (("p95_ms", "--"), ("p99_ms", ":")):
            axes.plot(list(rows), [row[share] for row in rows.values()], style, color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    axes.set_xlabel("clients at once")
    axes.set_ylabel("ms: median, p95 (dashed), p99 (dotted)")
    axes.legend(fontsize=8)
    drawn.savefig(RESULTS / "crowd.png")


def plot_indexing() -> None:
    """Tokens a second of indexing and of what it is compared with."""
    speeds = read("indexing")["tokens_per_second"]
    drawn, axes = figure("Indexing")
    axes.barh([name.replace("_", " ") for name in speeds], list(speeds.values()))
    axes.set_xlabel("tokens a second")
    drawn.savefig(RESULTS / "indexing.png")


def main() -> None:
    plot_scan()
    plot_crowd()
    plot_indexing()


if __name__ == "__main__":
    main()
