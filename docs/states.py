"""Generates docs/state-machine.md from the tables in `ems_worker/core`."""

import inspect
import itertools
import re
from collections.abc import Mapping
from enum import StrEnum

from ems_worker.core import experiment, run
from ems_worker.core.experiment import ExperimentEvent, ExperimentState
from ems_worker.core.outcome import OUTCOMES, Outcome
from ems_worker.core.run import RunEvent, RunState, Verdict

_MEMBER = re.compile(r"^\s+([A-Z_]+) = \"[a-z_]+\"  # (.+)$", re.M)


def remarks(kind: type[StrEnum]) -> Mapping[str, str]:
    """The comment beside each member in the source."""
    return {kind[name].value: remark for name, remark in _MEMBER.findall(inspect.getsource(kind))}


def members(kind: type[StrEnum], first: str) -> list[str]:
    """A table of the members with their comments; `first` is the heading of the first column."""
    meanings = remarks(kind)
    rows = (f"| `{member.value}` | {meanings[member.value]} |" for member in kind)
    return [f"| {first} | meaning |", "| --- | --- |", *rows, ""]


def diagram(edges: Mapping[tuple[str, str], list[str]], start: str, ended: list[str]) -> list[str]:
    """A Mermaid diagram of the edges, each with the events that take it."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    lines += [f"    {state} --> [*]" for state in ended]
    return [*lines, "```", ""]


def run_edges() -> dict[tuple[str, str], list[str]]:
    """The events that move a run, by (state, next state)."""
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, event), transition in run.TRANSITIONS.items():
        if transition.to is not None:
            edges.setdefault((state.value, transition.to.value), []).append(event.value)
    return edges


def experiment_edges() -> dict[tuple[str, str], list[str]]:
    """The events that move an experiment, by (state, next state)."""
    edges: dict[tuple[str, str], list[str]] = {}
    # The order of the table itself differs between processes, because part of it is built from a set.
    for state, event in itertools.product(ExperimentState, ExperimentEvent):
        if (to := experiment.TRANSITIONS[state, event]) is not None:
            edges.setdefault((state.value, to.value), []).append(event.value)
    return edges


def run_table() -> list[str]:
    """The effect of each event in each state of a run."""
    lines = [f"| state | {' | '.join(RunEvent)} |", f"| --- |{' --- |' * len(RunEvent)}"]
    for state in RunState:
        cells = []
        for event in RunEvent:
            transition = run.TRANSITIONS[state, event]
            cells.append(f"**{transition.to}**" if transition.to is not None else str(transition.verdict))
        lines.append(f"| `{state}` | {' | '.join(cells)} |")
    return [*lines, ""]


def experiment_table() -> list[str]:
    """The next state after each event in each state of an experiment."""
    lines = [f"| state | {' | '.join(ExperimentEvent)} |", f"| --- |{' --- |' * len(ExperimentEvent)}"]
    for state in ExperimentState:
        cells = [experiment.TRANSITIONS[state, event] for event in ExperimentEvent]
        lines.append(f"| `{state}` | {' | '.join('–' if to is None else f'**{to}**' for to in cells)} |")  # noqa: RUF001
    return [*lines, ""]


def text() -> str:
    """The whole page."""
    codes = [f"| {code} | {meaning} |" for code, meaning in OUTCOMES.items()]
    verdicts = [line for line in members(Verdict, "verdict") if line]
    lines = [
        "# States",
        "",
        "This page is generated from the tables in `ems_worker/core` by `make docs`; a test checks that it is current.",
        "",
        "## A run",
        "",
        "A run is one attempt at a job. The rank of its state never decreases. Terminal states are final, except\n"
        "`lost`: the end of a lost run may still be reported.",
        "",
        *diagram(run_edges(), RunState.PENDING, [state for state in RunState if state in run.TERMINAL]),
        *members(RunState, "state"),
        *members(RunEvent, "event"),
        "The effect of each event in each state: the next state in bold, or else the verdict on the event.",
        "",
        *run_table(),
        *verdicts,
        "",
        "The meaning of a confirmed STOP (`fail` of kind `stopped`) depends on why STOP was sent. If the run exceeded\n"
        "its time limit, it failed with kind `timeout`; if it was no longer wanted, it was cancelled.",
        "",
        "## A job",
        "",
        "A job is completed when an attempt completes; other open attempts are then stopped. Otherwise it has the\n"
        "state of its last attempt. A failed or lost attempt is followed by another one if attempts are left, its\n"
        "kind is in `retry_on`, and the orchestrator didn't report `retryable: false`.",
        "",
        "## An experiment",
        "",
        *diagram(experiment_edges(), ExperimentState.ACCEPTED, [s for s in ExperimentState if s in experiment.ENDED]),
        *members(ExperimentState, "state"),
        *members(ExperimentEvent, "event"),
        *experiment_table(),
        "## Answers to a start command",
        "",
        "| gRPC status | meaning |",
        "| --- | --- |",
        *codes,
        f"| anything else | {Outcome.UNKNOWN} |",
        "",
        *members(Outcome, "meaning"),
    ]
    return "\n".join(lines).rstrip() + "\n"
