"""Measures everything that the goals are about, in one run, with sizes that fit the time there is."""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import crowd, growth, latency, orchestrator, resting, throughput
from benchmarks.processes import Turn

_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. The goals are about the sizes of `FULL`."""

    rounds: int
    jobs: int
    latencies: int
    small: int
    small_turns: int
    large: int
    million: int | None
    parts: int
    parts_turns: int
    live: int
    refills: int
    idle_seconds: float
    manifest: int
    starts: int
    imports: int


FULL: Final = Sizes(5, 10_000, 30, 1_000, 5, 100_000, 1_000_000, 10_000, 3, 5_000, 20, 30, 1_000_000, 5, 9)
QUICK: Final = Sizes(3, 10_000, 10, 1_000, 2, 50_000, None, 10_000, 1, 2_500, 6, 6, 1_000_000, 1, 3)
TINY: Final = Sizes(1, 100, 2, 100, 1, 200, None, 100, 1, 20, 2, 1, 1_000, 1, 1)


@dataclass(slots=True)
class Measured:
    """What was measured: the values of the goals, what has to be said about them, and the medians behind them."""

    values: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    medians: dict[str, dict[str, float]] = field(default_factory=dict)

    def differs(self, number: str, size: int, full: int, what: str) -> None:
        """Says if a goal was measured at another size than it is about."""
        if size != full:
            self.notes[number] = f"measured with {size:,} {what} instead of {full:,}"


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """The medians of turns with their extremes, and what each process used."""
    names = turns[0].processes
    drains = [_MS * turn.drain_seconds for turn in turns if turn.drain_seconds is not None]
    return {
        "jobs": turns[0].jobs,
        "jobs_per_second": spread(turn.rate for turn in turns),
        "cpu_us_per_job": {name: spread(turn.cpu_us(name) for turn in turns) for name in names},
        "peak_mb": {name: max(turn.peak_mb(name) for turn in turns) for name in names},
        **({"drain_ms": spread(drains)} if drains else {}),
    }


def spread(numbers: Iterable[float]) -> dict[str, float]:
    """The median, the least and the greatest."""
    found = sorted(numbers)
    return {"median": statistics.median(found), "min": found[0], "max": found[-1]}


def throughputs(measured: Measured, turns: Mapping[str, Sequence[Turn]]) -> None:
    """Goals 1, 2 and 3c, from interleaved turns of each kind."""
    rate = {kind: statistics.median(turn.rate for turn in turns[kind]) for kind in throughput.KINDS}
    cpu = {
        kind: statistics.median(turn.cpu_us(throughput.MEASURED[kind]) for turn in turns[kind])
        for kind in throughput.KINDS
    }
    drain = {
        kind: statistics.median(_MS * (turn.drain_seconds or 0) for turn in turns[kind])
        for kind in (throughput.UNARY, throughput.BATCHES)
    }
    measured.values |= {
        "1a": rate[throughput.UNARY] / rate[throughput.RAW_UNARY],
        "1b": cpu[throughput.UNARY] / cpu[throughput.RAW_UNARY],
        "2a": cpu[throughput.BATCHES],
        "2b": rate[throughput.BATCHES] / rate[throughput.UNARY],
        "3c": max(drain.values()),
    }
    for kind in throughput.KINDS:
        measured.medians[kind] = {"jobs_per_second": rate[kind], "cpu_us_per_job": cpu[kind]}
    for kind, value in drain.items():
        measured.medians[kind]["drain_ms"] = value


async def rest(sizes: Sizes) -> Measured:
    """All goals but those of `throughputs`."""
    measured = Measured()
    for step in (_latencies, _growth, _parts, _crowd, _resting):
        began = time.perf_counter()
        await step(measured, sizes)
        say(f"{step.__name__.removeprefix('_')}: {time.perf_counter() - began:.0f} s")
    return measured


async def _latencies(measured: Measured, sizes: Sizes) -> None:
    found = await latency.measure(sizes.latencies)
    measured.values["3a"] = _MS * statistics.median(found.starts)
    measured.values["3b"] = _MS * statistics.median(found.ends)
    measured.medians["latency"] = {
        "start_ms": _MS * statistics.median(found.starts),
        "start_max_ms": _MS * max(found.starts),
        "end_ms": _MS * statistics.median(found.ends),
        "end_max_ms": _MS * max(found.ends),
    }


async def _growth(measured: Measured, sizes: Sizes) -> None:
    small = await growth.experiments(sizes.small, sizes.small_turns)
    large = await growth.experiments(sizes.large)
    found = {sizes.small: small, sizes.large: large}
    measured.values |= {
        "4a": large.cpu_us / small.cpu_us,
        "4b": large.peak_mb / small.peak_mb,
        "4b-mb": large.peak_mb,
        "4d": large.bytes_per_job,
    }
    if sizes.million is not None:
        found[sizes.million] = million = await growth.experiments(sizes.million)
        measured.values["4c"] = million.peak_mb
        measured.differs("4c", sizes.million, FULL.million or 0, "jobs")
    for number in ("4a", "4b", "4b-mb"):
        measured.differs(number, sizes.large, FULL.large, "jobs")
    for jobs, size in found.items():
        measured.medians[f"{jobs} jobs"] = {
            "jobs_per_second": statistics.median(turn.rate for turn in size.turns),
            "cpu_us_per_job": size.cpu_us,
            "peak_mb": size.peak_mb,
            "bytes_per_job": size.bytes_per_job,
        }


async def _parts(measured: Measured, sizes: Sizes) -> None:
    found = await growth.parts(sizes.parts, sizes.parts_turns)
    costs: Mapping[str, Callable[[Turn], float]] = {
        "cpu_us_per_job": lambda turn: turn.cpu_us("worker"),
        "seconds": lambda turn: turn.seconds,
    }
    one, ten = (
        {name: statistics.median(cost(turn) for turn in turns) for name, cost in costs.items()}
        for turns in (found.one, found.ten)
    )
    measured.medians |= {"one experiment": one, f"{growth.PARTS} experiments": ten}
    # The worse of both: neither the time nor the CPU time may be greater.
    measured.values["4e"] = max(ten[name] / one[name] for name in costs)
    measured.differs("4e", sizes.parts, FULL.parts, "jobs")


async def _crowd(measured: Measured, sizes: Sizes) -> None:
    alone = _MS * statistics.median(await crowd.refill_seconds(1, sizes.refills))
    among = _MS * statistics.median(await crowd.refill_seconds(sizes.live, sizes.refills))
    measured.values["4f"] = max(0.0, among - alone)
    measured.differs("4f", sizes.live, FULL.live, "experiments")
    measured.medians["end to next start"] = {"alone_ms": alone, "among_ms": among}


async def _resting(measured: Measured, sizes: Sizes) -> None:
    ready = await resting.ready_seconds(sizes.manifest, sizes.starts)
    measured.values |= {
        "5a": await resting.idle_percent(sizes.idle_seconds),
        "5b": statistics.median(ready),
        "5c": _MS * statistics.median(resting.import_seconds(sizes.imports)),
        "5d": _MS * statistics.median(resting.help_seconds(sizes.imports)),
    }
    measured.differs("5b", sizes.manifest, FULL.manifest, "jobs")


def about(sizes: Sizes) -> dict[str, Any]:
    """What was measured, for the record."""
    return {"sizes": dataclasses.asdict(sizes), "orchestrator": orchestrator.kind()}
