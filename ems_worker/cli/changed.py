"""What a change does, in a sentence for people; a change is an `ems.change.v1`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ems_worker.cli import numbers, shell, tables
from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import experiment, tally, transitions
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.terminal import text

Document = dict[str, Any]

# What happens to jobs: while it happens, when it has happened, and what a dry run says.
_JOBS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "cancel": ("cancelling", "cancelled", "would cancel"),
        "retry": ("retrying", "retried", "would retry"),
        "exclude": ("excluding", "excluded", "would exclude"),
        "include": ("including", "included", "would include"),
    }
)
_OPEN = {state.value for state in transitions.OPEN}
_ORDER = [bucket.value for bucket in tally.Bucket]
_WITHDRAWING = ("withdrawing", "withdrew", "would withdraw")
_LIMITS = ("priority", "max_concurrent", "max_failed", "budget")


def show(document: Document, *, json: bool) -> None:
    """Prints a change, or each change of an `ems.changes.v1`."""
    if json:
        shell.out_json(document)
        return
    if "resumed" in document:
        would = document["dry_run"]
        if document["resumed"]:
            shell.out("the worker would start runs again" if would else "the worker starts runs again")
        else:
            shell.out(f"nothing {'would change' if would else 'changed'}: the worker is not held")
        return
    for change in document.get("changes", [document]):
        shell.out(text.line(sentence(change)))
    if document.get("changes") == []:
        shell.say("no experiments")


def sentence(change: Document) -> str:
    """The change in a line that begins with the experiment's id."""
    if change["refused"]:
        return f"{change['experiment_id']}: refused: {change['reason']}"
    if not change["changed"]:
        verdict = "nothing would change" if change["dry_run"] else "nothing changed"
        return f"{change['experiment_id']}: {verdict}: {change['reason']}"
    return f"{change['experiment_id']}: {effect(change)}"


def effect(change: Document) -> str:
    """What a change does, without the experiment's id."""
    verb = change["verb"]
    if verb in _JOBS:
        return _moved(change, _JOBS[verb])
    if verb == "extend":
        return _extended(change)
    would = "would be " if change["dry_run"] else ""
    if verb == "pause":
        now = ", and running ones pause if they can" if change["request"].get("now") else ""
        return f"{would}paused, no more jobs start{now}"
    if verb == "remove":
        return "would be removed, for ever" if change["dry_run"] else "removed"
    if verb == "resume":
        return _resumed(change, would)
    if verb == "set":
        return f"{would}set: {_limits(change['request'])}"
    ended = change["state"] in experiment.ENDED
    return f"{would}closed, {'and ' + change['state'] if ended else 'it ends as soon as its jobs have'}"


def _moved(change: Document, words: tuple[str, str, str]) -> str:
    """How many jobs a change moves, and from which states."""
    word = _word(change, *words)
    if change["counts"] is None:
        counted = "too many to count them in time" if change["dry_run"] else "which are still being counted"
        return f"{word} jobs, {counted}"
    more = f", round {change['round']}" if change["verb"] == "retry" else ""
    if change["request"].get("drain") and change["counts"].keys() & _OPEN:
        more = ", but open runs may end"
    return f"{word} {jobs(change['counts'])}{more}"


def jobs(counts: Mapping[str, Mapping[str, int]]) -> str:
    """The number of jobs that a change moves, and the states they were in: `5 jobs (4 failed, 1 lost)`."""
    by_state = {
        state: sum(counts[state].values()) for state in sorted(counts, key=_place) if any(counts[state].values())
    }
    total = sum(by_state.values())
    if not total:
        return "no jobs"
    states = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in by_state.items())
    return f"{numbers.counted(total, 'job')} ({states})"


def _place(state: str) -> int:
    """Where a state stands in a list: in the order in which jobs go through them."""
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


def _extended(change: Document) -> str:
    add, withdraw = _word(change, "adding", "added", "would add"), _word(change, *_WITHDRAWING)
    if change["counts"] is None:
        compared = "too many to compare them in time" if change["dry_run"] else "which are still being compared"
        return f"{add} points, {compared}"
    new = sum(change["counts"].get(changes.NEW, {}).values())
    added = [numbers.counted(number, noun) for number, noun in ((change["added"], "point"), (new, "job")) if number]
    parts = [f"{add} {' and '.join(added)}"] if added else []
    if change["withdrawn"]:
        parts.append(f"{withdraw} {numbers.counted(change['withdrawn'], 'point')}")
    if again := sum(after.get("pending", 0) for state, after in change["counts"].items() if state != changes.NEW):
        parts.append(f"{numbers.counted(again, 'job')} again")
    if change["unchanged"]:
        parts.append(f"{numbers.counted(change['unchanged'], 'point')} unchanged")
    nothing = "no points" if change["applied"] or change["dry_run"] else f"{add} points, none so far"
    return f"{', '.join(parts) or nothing} (round {change['round']})"


def _word(change: Document, under_way: str, done: str, would: str) -> str:
    """What is said of a change that is under way, that is complete, or of a dry run."""
    return would if change["dry_run"] else done if change["applied"] else under_way


def _resumed(change: Document, would: str) -> str:
    if change["state"] == ExperimentState.PAUSED:
        return "stays paused: its budget is used up; raise it with `ems set`"
    return f"{would}resumed, and {change['state']}"


def _limits(request: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {'as in the plan' if request[name] is None else tables.value(request[name])}"
        for name in _LIMITS
        if name in request
    )


def show_latest(details: Document) -> None:
    """Prints the changes of an experiment that are not complete, else the last one; `details` is of `ems.api.get`."""
    latest = [change for change in details.get("changes", []) if change["changed"]]
    under_way = [change for change in latest if not change["applied"]]
    for change in under_way or latest[:1]:
        words = effect({**change, **change["so_far"]} if change["counts"] is None else change)
        where = f" where {change['request']['where']}" if change["request"].get("where") else ""
        why = f" ({change['request']['reason']})" if change["request"].get("reason") else ""
        title = "in progress" if under_way else "last change"
        tables.paragraph(f"  {title}: {words}{where}{why}", 6)
