"""Generates docs/state-machine.md from the tables in `ems_worker/core/lifecycle`."""

import inspect
import itertools
import re
from collections.abc import Mapping
from enum import StrEnum

from docs import verbs
from ems_worker.core.lifecycle import experiment, transitions
from ems_worker.core.lifecycle.experiment import ExperimentEvent, ExperimentState, PauseOwner
from ems_worker.core.lifecycle.outcome import OUTCOMES, Outcome
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.settling import Cause
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState

_MEMBER = re.compile(r"^\s+([A-Z_]+) = \"[a-z_]+\"  # (.+)$", re.M)


_PAGE = """\
# States

An experiment consists of jobs, and a run is one attempt at a job. This page lists their states and what moves them from
one state to the next. `make docs` generates it from the tables in `ems_worker/core/lifecycle`; a test checks that it is
current.

## A run

A run only moves forward, and terminal states are final. The exception is `lost`: the end of a lost run may still be
reported.

{run_diagram}
{run_states}
{run_events}
The next table shows what each event does in each state: the next state in bold, or else the effect of the event.

{run_transitions}
{run_effects}
A `fail` of the kind `stopped` confirms a STOP. Its meaning depends on the reason for the STOP. At the time limit, the
run failed with the kind `timeout`. For every other reason it was cancelled.

## A job

A job is completed by the first attempt that completes; its other open attempts are then stopped. While that attempt
lacks metrics that are still to come, the job is `awaiting_metrics`; it fails if they don't arrive in time. A job
without a completed attempt has the state of its last attempt.

A failed or lost attempt is followed by another one if the job has attempts left, the kind of failure is in `retry_on`,
the orchestrator didn't report `retryable: false`, and the result is still wanted.

## An experiment

{experiment_diagram}
{experiment_states}
{experiment_events}
The next table shows the state that each event leads to. A dash marks an event that has no effect in that state.

{experiment_transitions}
An experiment is `paused` while somebody pauses it. A pause has one or several owners:

{pause_owners}
A round ends when every job has ended, no change is being carried out on jobs, and nothing keeps the experiment open. It
is `cancelled` if the whole experiment was cancelled in it. Else it is `failed` if more jobs failed than `max_failed`
allows, if failing fast dropped jobs, or if no job completed and `max_failed` is below 100 %. Else it is `completed`.
Excluded jobs count on neither side. Nor do jobs that were called off, by a person, a settled round or a race, unless
they complete all the same.

## Steering

{verbs}
The next table shows what each verb does to an experiment: how it stands afterwards, if that changes, and whether jobs
are judged one by one. A dash marks a request that changes nothing; it is answered with `changed: false`. Jobs of points
that are yet to be expanded are judged once they are; until then the change isn't applied. A new round begins only if
the verb concerns at least one job. An experiment that was cancelled as a whole is stopping, or draining with `drain`,
until its last job has ended; nothing of it starts then.

{steering}
`where` is refused with every verb but `cancel`, `retry`, `exclude` and `include`.

The next table shows what the judging verbs do to a job. A retry without `where` takes jobs that failed, were lost, lack
metrics or were dropped by failing fast. With `where` it takes every ended job that matches and isn't completed, but
infeasible ones only if the expression uses `error_kind`, and those that were called off only if it uses `state`.

{steered_jobs}
A run that is to be stopped has the reason on its row:

{stop_reasons}
A job that was never started when it was cancelled is only counted, and publishes no result. An open run whose STOP is
confirmed is `cancelled`, and without a confirmation `lost`; neither leads to another attempt. A run that ends by itself
before its STOP arrives keeps its end. A job that is cancelled while it waits for metrics fails, because its run has
completed and the metrics are missing; if they arrive later, it is completed.

A round settles as soon as its quorum of jobs has ended and the grace is over, or else with its last job:

{settling_causes}
Jobs that are added or retried before that belong to the round. Afterwards they begin the next one, also if the
experiment hasn't ended: its plan keeps it open, or stragglers go on. Its quorum is one of the jobs that are open then,
not of those that had ended.

## Answers to a start command

The first table maps the gRPC status of the orchestrator's answer to an outcome. The second one explains the outcomes.

| gRPC status | outcome |
| --- | --- |
{status_codes}
{outcomes}"""


def remarks(kind: type[StrEnum]) -> Mapping[str, str]:
    """The comment beside each member in the source."""
    return {kind[name].value: remark for name, remark in _MEMBER.findall(inspect.getsource(kind))}


def members(kind: type[StrEnum], name: str, meaning: str = "meaning") -> list[str]:
    """A table of the members with their comments; `name` and `meaning` are its headings."""
    remark_of = remarks(kind)
    rows = [f"| `{member.value}` | {remark_of[member.value]} |" for member in kind]
    return [f"| {name} | {meaning} |", "| --- | --- |", *rows, ""]


def diagram(edges: Mapping[tuple[str, str], list[str]], start: str, ended: list[str]) -> list[str]:
    """A Mermaid diagram of the edges, each with the events that take it."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    lines += [f"    {state} --> [*]" for state in ended]
    return [*lines, "```", ""]


def run_edges() -> dict[tuple[str, str], list[str]]:
    """The events that move a run, by (state, next state)."""
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, event), transition in transitions.TRANSITIONS.items():
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
            transition = transitions.TRANSITIONS[state, event]
            cells.append(f"**{transition.to}**" if transition.to is not None else str(transition.effect))
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
    outcomes = [f"| {code} | {outcome} |" for code, outcome in OUTCOMES.items()]
    outcomes += [f"| anything else | {Outcome.UNKNOWN} |", ""]
    moved_by = "what moves it on, and what a crash means"
    parts = {
        "run_diagram": diagram(
            run_edges(), RunState.PENDING, [state for state in RunState if state in transitions.TERMINAL]
        ),
        "run_states": members(RunState, "state", moved_by),
        "run_events": members(RunEvent, "event"),
        "run_transitions": run_table(),
        "run_effects": members(Effect, "effect"),
        "experiment_diagram": diagram(
            experiment_edges(),
            ExperimentState.ACCEPTED,
            [state for state in ExperimentState if state in experiment.ENDED],
        ),
        "experiment_states": members(ExperimentState, "state", moved_by),
        "experiment_events": members(ExperimentEvent, "event"),
        "experiment_transitions": experiment_table(),
        "pause_owners": members(PauseOwner, "owner"),
        "verbs": members(Verb, "verb"),
        "steering": verbs.experiments(),
        "steered_jobs": verbs.of_jobs(),
        "stop_reasons": members(StopReason, "reason"),
        "settling_causes": members(Cause, "cause"),
        "status_codes": outcomes,
        "outcomes": members(Outcome, "outcome"),
    }
    return _PAGE.format_map({name: "\n".join(lines) for name, lines in parts.items()})
