"""The plot of a report on stop rules."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation.plots import figure
from trainer.stopping.stop_reports import StopReport
from trainer.stopping.stops import Point


def completeness(report: StopReport, path: Path) -> None:
    """Completeness against the mean number of chunks on the mixed test set, for each rule, each budget, the oracle."""
    with figure(path, f"{report.name}: when to stop") as axes:
        chosen: dict[str, Point] = {str(rule): point for rule, point in report.mixed.chosen.items()}
        for name, curve in report.mixed.curves.items():
            points = sorted(curve, key=lambda point: (point.chunks, point.recall))
            plain = name in ("budget", "oracle")
            (line,) = axes.plot(
                [point.chunks for point in points],
                [point.recall for point in points],
                label={"budget": "fixed budget"}.get(name, name),
                linestyle="--" if plain else "-",
                marker="o" if plain else None,
                markersize=4,
            )
            if name in chosen:
                axes.plot(chosen[name].chunks, chosen[name].recall, marker="*", markersize=12, color=line.get_color())
        axes.legend(frameon=False)
        axes.set_xlabel("mean number of chunks")
        axes.set_ylabel("share of questions with all evidence")
