"""The tables of docs/performance.md, from the results of the last `make bench`. Pure: text in, text out."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from benchmarks import goals, throughput

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
_SECTION: Final = re.compile(r"(<!-- measured: ([a-z ]+) -->\n).*?(?=<!-- end -->)", re.S)
_OURS: Final = {
    throughput.UNARY: "**ems-worker**, `StartSimulation`",
    throughput.BATCHES: "**ems-worker**, `StartSimulations`",
}
_RAW: Final = {
    throughput.RAW_UNARY: "raw `StartSimulation` calls",
    throughput.RAW_BATCHES: "raw `StartSimulations` calls",
}
Results = Mapping[str, Any]


def text(page: str, results: Results) -> str:
    """The page with its measured sections replaced; as it is if nothing was measured yet."""
    if not results:
        return page
    return _SECTION.sub(lambda match: f"{match[1]}\n{SECTIONS[match[2]](results)}\n", page)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine(results: Results) -> str:
    machine, day = results["machine"], date.fromisoformat(results["date"])
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Measured on {day.day} {day:%B %Y} on {machine['cores']} cores of an {machine['processor']} with "
        f"{machine['memory_gb']} GB of memory (load {machine['load_before']:g} before the start), {machine['system']}, "
        f"Python {machine['python']}, nats-server {machine['nats_server'].removeprefix('v')}, {packages}. "
        f"The orchestrator is the no-op one in {results['orchestrator']}. Values are medians of "
        f"{results['sizes']['rounds']} interleaved rounds; parentheses contain the slowest and the fastest.\n"
    )


def _row(name: str, measured: Mapping[str, Any]) -> list[str]:
    rate, costs, peaks = measured["jobs_per_second"], measured["cpu_us_per_job"], measured["peak_mb"]
    shown = f"{rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f})"
    processes = [
        each for each in ("worker", "orchestrator", "scheduler", "nats-server", "redis-server") if each in costs
    ]
    processes += [each for each in ("client",) if each in costs]
    return [
        name,
        shown,
        f"{sum(cost['median'] for cost in costs.values()):,.0f} µs",
        ", ".join(f"{each} {costs[each]['median']:,.0f}" for each in processes),
        ", ".join(f"{each} {peaks[each]:,.0f}" for each in processes),
    ]


_HEADER: Final = ("", "jobs/s", "CPU a job, all processes", "of these, µs", "peak memory, MB")


def _throughput(results: Results) -> str:
    found = results["throughput"]
    return _table(_HEADER, [_row(title, found[kind]) for kind, title in (_RAW | _OURS).items()])


def _peers(results: Results) -> str:
    found = results["throughput"]
    peers = {name: name for name in found if name not in throughput.KINDS}
    shown = _table(_HEADER, [_row(title, found[kind]) for kind, title in (_OURS | peers).items()])
    for peer, reason in results["left_out"].items():
        shown += f"\n{peer} is left out: {reason}.\n"
    return shown


def _judged(judgements: Mapping[str, Mapping[str, Any]], listed: Sequence[goals.Goal]) -> str:
    rows = []
    for goal in listed:
        judgement = judgements[goal.number]
        value = "not measured" if judgement["value"] is None else f"{judgement['value']:,g} {goal.unit}".rstrip()
        verdict = "met" if judgement["met"] else "**not met**"
        note = f" ({judgement['note']})" if "note" in judgement else ""
        target = f"{goal.sign} {goal.target:g} {goal.unit}".rstrip()
        rows.append([f"{goal.text}{note}", value, target, "-" if judgement["value"] is None else verdict])
    return _table(("goal", "measured", "target", ""), rows)


def _goals(results: Results) -> str:
    return _judged(results["goals"], goals.GOALS)


def _comparisons(results: Results) -> str:
    return _judged(results["comparisons"], goals.COMPARISONS)


def _growth(results: Results) -> str:
    sizes = {int(name.partition(" ")[0]): each for name, each in results["medians"].items() if name.endswith(" jobs")}
    rows = [
        [
            f"{jobs:,}",
            f"{each['jobs_per_second']:,.0f}",
            f"{each['cpu_us_per_job']:,.0f} µs",
            f"{each['peak_mb']:,.0f} MB",
            f"{each['bytes_per_job']:,.0f}",
        ]
        for jobs, each in sorted(sizes.items())
    ]
    return _table(("jobs of the experiment", "jobs/s", "CPU of the worker a job", "peak memory", "bytes a job"), rows)


SECTIONS: Final[Mapping[str, Callable[[Results], str]]] = {
    "machine": _machine,
    "throughput": _throughput,
    "peers": _peers,
    "comparisons": _comparisons,
    "growth": _growth,
    "goals": _goals,
}
