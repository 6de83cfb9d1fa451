"""Draws the plots of docs/performance.md: `plots.py RESULTS FOLDER`, in an environment of its own (plots.txt)."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, SOFT, GRID, PAPER = "#1f2a37", "#64748b", "#e2e8f0", "#ffffff"
OURS, PEER = "#0f766e", "#c2843d"
# The parts of a bar from the left: what they are, their colour, and the processes that they consist of.
PARTS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("worker", "#0f766e", ("worker",)),
    ("orchestrator, scheduler", "#7dc4b8", ("orchestrator", "scheduler")),
    ("broker", "#d9a86c", ("nats-server", "redis-server")),
    ("the program that submits", "#b6c2cf", ("client",)),
)
NAMES: Mapping[str, str] = {
    "raw unary": "raw calls, unary",
    "raw batches": "raw calls, batches",
    "unary": "ems-worker, unary",
    "batches": "ems-worker, batches",
}
Results = Mapping[str, Any]


def style() -> None:
    """One look for all; the same input gives the same file."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "ems",
            "svg.fonttype": "path",
            "font.family": "DejaVu Sans",
            "font.size": 10.5,
            "text.color": INK,
            "axes.labelcolor": SOFT,
            "axes.edgecolor": GRID,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.grid": True,
            "axes.grid.axis": "x",
            "axes.axisbelow": True,
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 27,
            "grid.color": GRID,
            "xtick.color": SOFT,
            "ytick.color": INK,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "figure.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "legend.frameon": False,
        }
    )


def subtitle(axes: Axes, text: str) -> None:
    axes.text(0, 1.02, text, transform=axes.transAxes, color=SOFT, va="bottom", fontsize=10)


def thousands(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def rates(results: Results) -> Figure:
    """Jobs a second: ours and the peers."""
    found = results["throughput"]
    listed = [name for name in found if name not in ("raw unary", "raw batches")]
    listed.sort(key=lambda name: found[name]["jobs_per_second"]["median"])
    figure, axes = plt.subplots(figsize=(8.6, 0.62 * len(listed) + 1.5))
    for at, name in enumerate(listed):
        rate = found[name]["jobs_per_second"]
        axes.barh(at, rate["median"], height=0.62, color=OURS if name in NAMES else PEER)
        axes.plot([rate["min"], rate["max"]], [at, at], color=INK, linewidth=1.1, solid_capstyle="butt")
        axes.text(rate["max"], at, f"  {rate['median']:,.0f}", va="center", fontweight="bold")
    axes.set_yticks(range(len(listed)), [NAMES.get(name, name) for name in listed])
    axes.set_xlim(0, 1.12 * max(found[name]["jobs_per_second"]["max"] for name in listed))
    axes.set_title("Jobs a second")
    subtitle(
        axes, "from submission to the last result; bars are medians, lines reach from the slowest round to the fastest"
    )
    thousands(axes)
    return figure


def costs(results: Results) -> Figure:
    """The CPU time of a job, by process."""
    found = results["throughput"]
    listed = sorted(found, key=lambda name: -sum(cost["median"] for cost in found[name]["cpu_us_per_job"].values()))
    figure, axes = plt.subplots(figsize=(8.6, 0.56 * len(listed) + 1.9))
    for at, name in enumerate(listed):
        left, costs_of = 0.0, found[name]["cpu_us_per_job"]
        for _, color, processes in PARTS:
            cost = sum(costs_of[process]["median"] for process in processes if process in costs_of)
            axes.barh(at, cost, left=left, height=0.62, color=color, edgecolor=PAPER, linewidth=0.8)
            left += cost
        axes.text(left, at, f"  {left:,.0f} µs", va="center", fontweight="bold")
    axes.set_yticks(range(len(listed)), [NAMES.get(name, name) for name in listed])
    axes.set_xlim(0, 1.14 * axes.get_xlim()[1])
    axes.set_title("CPU time a job")
    subtitle(axes, "all processes together; medians")
    handles = [Rectangle((0, 0), 1, 1, color=color) for _, color, _ in PARTS]
    axes.legend(handles, [part for part, _, _ in PARTS], loc="upper right", fontsize=9.5)
    thousands(axes)
    return figure


def growth(results: Results) -> Figure:
    """CPU time and memory by the size of an experiment."""
    sizes = {int(name.split()[0]): each for name, each in results["medians"].items() if name.endswith(" jobs")}
    jobs = sorted(sizes)
    figure, both = plt.subplots(1, 2, figsize=(8.6, 3.3))
    _line(both[0], jobs, [sizes[each]["cpu_us_per_job"] for each in jobs], "CPU of the worker a job", "µs")
    _line(both[1], jobs, [sizes[each]["peak_mb"] for each in jobs], "Peak memory of the worker", "MB")
    figure.subplots_adjust(wspace=0.28)
    return figure


def _line(axes: Axes, jobs: Sequence[int], values: Sequence[float], title: str, unit: str) -> None:
    places = range(len(jobs))
    axes.plot(
        places, values, color=OURS, linewidth=2.2, marker="o", markersize=7, markerfacecolor=PAPER, markeredgewidth=2
    )
    for at, value in zip(places, values, strict=True):
        axes.annotate(f"{value:,.0f}", (at, value), (0, 10), textcoords="offset points", ha="center", fontweight="bold")
    axes.set_xticks(places, [f"{each:,}" for each in jobs])
    axes.set_xlim(-0.4, len(jobs) - 0.6)
    axes.set_ylim(0, 1.35 * max(values))
    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    axes.set_title(title, fontsize=11.5)
    subtitle(axes, f"{unit}, by the jobs of the experiment")


def main() -> int:
    results = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    style()
    for draw in (rates, costs, growth):
        figure = draw(results)
        # Without a date, equal results give equal files.
        figure.savefig(folder / f"{draw.__name__}.svg", bbox_inches="tight", pad_inches=0.2, metadata={"Date": None})
        plt.close(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
