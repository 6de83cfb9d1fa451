"""The page of states (docs/state-machine.md), made from the tables in `ems_worker/core`."""

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
    """What the source says beside each member."""
    return {kind[name].value: remark for name, remark in _MEMBER.findall(inspect.getsource(kind))}


def members(kind: type[StrEnum], first: str) -> list[str]:
    said = remarks(kind)
    return [f"| {first} | meaning |", "| --- | --- |", *(f"| `{one.value}` | {said[one.value]} |" for one in kind), ""]


def diagram(edges: Mapping[tuple[str, str], list[str]], start: str, ended: list[str]) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    lines += [f"    {state} --> [*]" for state in ended]
    return [*lines, "```", ""]


def run_edges() -> dict[tuple[str, str], list[str]]:
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, event), transition in run.TRANSITIONS.items():
        if transition.to is not None:
            edges.setdefault((state.value, transition.to.value), []).append(event.value)
    return edges


def experiment_edges() -> dict[tuple[str, str], list[str]]:
    edges: dict[tuple[str, str], list[str]] = {}
    # The table's own order differs from run to run: part of it is made from a set.
    for state, event in itertools.product(ExperimentState, ExperimentEvent):
        if (to := experiment.TRANSITIONS[state, event]) is not None:
            edges.setdefault((state.value, to.value), []).append(event.value)
    return edges


def run_table() -> list[str]:
    lines = [f"| state | {' | '.join(RunEvent)} |", f"| --- |{' --- |' * len(RunEvent)}"]
    for state in RunState:
        cells = []
        for event in RunEvent:
            transition = run.TRANSITIONS[state, event]
            cells.append(f"**{transition.to}**" if transition.to is not None else str(transition.verdict))
        lines.append(f"| `{state}` | {' | '.join(cells)} |")
    return [*lines, ""]


def experiment_table() -> list[str]:
    lines = [f"| state | {' | '.join(ExperimentEvent)} |", f"| --- |{' --- |' * len(ExperimentEvent)}"]
    for state in ExperimentState:
        cells = [experiment.TRANSITIONS[state, event] for event in ExperimentEvent]
        lines.append(f"| `{state}` | {' | '.join('–' if to is None else f'**{to}**' for to in cells)} |")  # noqa: RUF001
    return [*lines, ""]


def text() -> str:
    """The whole page."""
    codes = [f"| {code} | {meaning} |" for code, meaning in OUTCOMES.items()]
    verdicts = [one for one in members(Verdict, "verdict") if one]
    lines = [
        "# States",
        "",
        "This page is generated from the tables in `ems_worker/core` by `make docs`; a test holds it against them.",
        "",
        "## A run",
        "",
        "One attempt at a job. Its rank never falls, and terminal states stay, but for `lost`, whose end may still "
        "be heard of.",
        "",
        *diagram(run_edges(), RunState.PENDING, [state for state in RunState if state in run.TERMINAL]),
        *members(RunState, "state"),
        *members(RunEvent, "event"),
        "What each event does in each state: the state it leads to, else the verdict on it.",
        "",
        *run_table(),
        *verdicts,
        "",
        "A confirmed STOP (`fail` of kind `stopped`) means what it was sent for: at the time limit the run failed, "
        "kind `timeout`; as unwanted it was cancelled.",
        "",
        "## A job",
        "",
        "A job is completed with its first completed attempt; other open attempts are stopped then. Else it is in "
        "the state of its last attempt. A failed or lost attempt gets a next one while tries are left, its kind is "
        "in `retry_on`, and the orchestrator didn't say `retryable: false`.",
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
