"""Ours, the raw calls and the peers, and all goals: `make bench`. Writes benchmarks/results/full.json, plots, the page.

Every round measures each kind and each peer once. A peer that can't be installed or run is left out, and the results
say why.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import environments, goals, measure, page, results, throughput
from benchmarks.measure import Sizes
from benchmarks.peers import running
from benchmarks.processes import Turn
from ems_worker import errors

_PEER_PART: Final = 2
_PLOTS: Final = Path(__file__).with_name("plots.py")
_FIGURES: Final = page.PAGE.parent / "performance"


class Rounds:
    """The turns of interleaved rounds, and the reasons why peers are left out."""

    def __init__(self) -> None:
        self.turns: dict[str, list[Turn]] = {}
        self.left_out: dict[str, str] = {}

    async def add(self, jobs: int, peers: Sequence[str]) -> None:
        """Measures everything once more; peers with fewer tasks, because most need more time for one."""
        for kind in throughput.KINDS:
            taken = await throughput.turn(kind, jobs)
            self.turns.setdefault(kind, []).append(taken)
            measure.say(throughput.shown(kind, taken.rate, taken.cpu_us(throughput.MEASURED[kind])))
        for peer in peers:
            if peer in self.left_out:
                continue
            try:
                taken = await running.turn(peer, max(1, jobs // _PEER_PART))
            except environments.Unavailable as reason:
                self.left_out[peer] = str(reason)
            except (AssertionError, TimeoutError, errors.EmsError) as failed:
                self.left_out[peer] = f"it failed: {str(failed) or type(failed).__name__}"
            else:
                self.turns.setdefault(peer, []).append(taken)
                measure.say(throughput.shown(peer, taken.rate, taken.cpu_us("worker")))
                continue
            self.turns.pop(peer, None)
            measure.say(f"{peer} is left out: {self.left_out[peer]}")


async def measured(sizes: Sizes, peers: Sequence[str]) -> dict[str, Any]:
    """Everything, as it is written."""
    began = time.perf_counter()
    machine = results.machine()
    rounds = Rounds()
    for _ in range(sizes.rounds):
        await rounds.add(sizes.jobs, peers)
    measure.say(f"rounds: {time.perf_counter() - began:.0f} s")
    found = await measure.rest(sizes)
    measure.throughputs(found, rounds.turns)
    compared = comparisons(rounds.turns)
    return {
        "goals": goals.judged(found.values, found.notes),
        "comparisons": goals.judged(compared, rounds.left_out, goals.COMPARISONS),
        "throughput": {name: measure.summary(turns) for name, turns in rounds.turns.items()},
        "left_out": rounds.left_out,
        "machine": machine,
        **measure.about(sizes),
        "seconds": time.perf_counter() - began,
        "medians": found.medians,
    }


def comparisons(turns: Mapping[str, Sequence[Turn]]) -> dict[str, float | None]:
    """Our rates as multiples of those of the peers that were measured."""
    rate = {name: statistics.median(turn.rate for turn in taken) for name, taken in turns.items()}
    found: dict[str, float | None] = {
        goal.number: rate[throughput.UNARY] / rate[goal.number] for goal in goals.COMPARISONS if goal.number in rate
    }
    if "FastStream" in rate:
        found["FastStream-batches"] = rate[throughput.BATCHES] / rate["FastStream"]
    return found


def draw(found: Path, folder: Path) -> None:
    """Draws the plots, in an environment of their own."""
    python = environments.python("plots", _PLOTS.with_suffix(".txt"))
    subprocess.run([str(python), str(_PLOTS), str(found), str(folder)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=results.FULL)
    parser.add_argument("--tiny", action="store_true", help="measure next to nothing, to see that it works")
    parser.add_argument("--peers", nargs="*", choices=list(running.PEERS), default=list(running.PEERS))
    parser.add_argument(
        "--page", action="store_true", help="only draw the plots and write the page, from the last results"
    )
    options = parser.parse_args()
    if not options.page:
        found = asyncio.run(measured(measure.TINY if options.tiny else measure.FULL, options.peers))
        results.write(options.output, found)
        print(goals.table(found["goals"]))
        print(goals.table(found["comparisons"], goals.COMPARISONS))
        print(f"in {found['seconds'] / 60:.0f} min, against an orchestrator in {found['orchestrator']}")
    if options.output == results.FULL:
        try:
            draw(results.FULL, _FIGURES)
        except environments.Unavailable as reason:
            measure.say(f"no plots: {reason}")
        page.PAGE.write_text(page.text(page.PAGE.read_text(), results.read(results.FULL)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
