"""The plan that reproduces an experiment or a run, and the comparison of their results."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import plans, shell
from ems_worker.core import canonical
from ems_worker.core.language import aliases
from ems_worker.core.points import render, space
from ems_worker.terminal import text

if TYPE_CHECKING:
    from ems_worker import client

Document = Mapping[str, Any]

LABEL, TAG = "reproduces", "reproduction"
# What only says how the first experiment was run.
_NOT_AGAIN = ("hold", "keep_open", "settle")
# What gives a plan its points.
_POINTS = ("parameter_space", "design", "constraints", "runs", "num_replicates_per_run", "seeds")
# Errors that a deterministic simulator makes again.
_REPEATABLE = ("simulation", "infeasible")
# Differences that are kept for printing.
_MAX_SHOWN = 10


def plan(sent: str, base: str, details: Document, name: str) -> bytes:
    """The plan of the experiment under another id."""
    data = _data(sent, base)
    return _encoded({**data, **_link(data, details, name)})


def plan_of_run(sent: str, base: str, details: Document, *, name: str, run: Document) -> bytes:
    """A plan of one job: that of the run. Raises errors.RequestRefused if it would be another configuration."""
    data = _data(sent, base)
    values = {details["parameters"][key]: value for key, value in run["params"].items()}
    limits = {key: value for key, value in (data.get("limits") or {}).items() if key not in ("canary", "budget")}
    small: dict[str, Any] = {key: value for key, value in data.items() if key not in _POINTS}
    if limits:
        small["limits"] = limits
    if values:
        small["runs"] = [{"run_id_suffix": "again", "params_override": values, "labels": dict(run["labels"])}]
    small |= {"seeds": {"policy": "list", "values": [run["seed"]]}, **_link(data, details, name)}
    encoded = _encoded(small)
    if run["config_sha"] is None or _config_sha(encoded, run) != run["config_sha"]:
        raise errors.RequestRefused(
            f"{run['simulation_id']} can't be run again by itself with the same configuration: reproduce "
            f"{run['experiment_id']}, the whole experiment"
        )
    return encoded


def _data(sent: str, base: str) -> dict[str, Any]:
    data = aliases.expanded(yaml_reader.read_plan(sent.encode()).data)
    for key in (*canonical.BASE_PATH_KEYS, *_NOT_AGAIN):
        data.pop(key, None)
    try:
        return {**data, canonical.BASE_KEY: json.loads(base)}
    except ValueError as error:
        raise errors.RequestRefused("the worker sent a base configuration that is not JSON") from error


def _link(data: Document, details: Document, name: str) -> dict[str, Any]:
    return {
        "experiment_id": name,
        "experiment_name": details["experiment_name"],
        "labels": {**(data.get("labels") or {}), LABEL: details["experiment_id"]},
        "tags": list(dict.fromkeys([*details["tags"], TAG])),
    }


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _config_sha(encoded: bytes, run: Document) -> str | None:
    """The identity of the only job of a plan; None if the plan can't be used."""
    try:
        checked = plans.check(plans.PlanFile("<plan>", encoded, Path()))
    except errors.PlanRejected:
        return None
    points = list(islice(space.points(checked.plan), 2))
    if len(points) != 1:
        return None
    return render.Template(checked.plan).config_sha(points[0].params, run["seed"])


@dataclass(slots=True)
class Comparison:
    """How many results are the same, how many differ, and how many jobs can't be compared, with some examples."""

    same: int = 0
    different: int = 0
    missing: int = 0
    examples: list[str] = field(default_factory=list)
    versions: set[tuple[str | None, str | None]] = field(default_factory=set)

    @property
    def agree(self) -> bool:
        """Whether every job has a result that is the same."""
        return self.same > 0 and not self.different and not self.missing

    def add(self, before: Document | None, after: Document | None) -> None:
        """Compares the results of one job."""
        if before is None or after is None or not (_is_result(before) or _is_result(after)):
            self.missing += 1
            return
        self.versions.add((before["model_version"], after["model_version"]))
        changed = _differences(before, after)
        if not changed:
            self.same += 1
            return
        self.different += 1
        if len(self.examples) < _MAX_SHOWN:
            self.examples.append(f"{after['simulation_id']}: {', '.join(changed)}")


def _is_result(job: Document) -> bool:
    """Whether a simulator ended the job in a way that it should repeat."""
    return job["state"] == "completed" or (job["error"] or {}).get("kind") in _REPEATABLE


def _differences(before: Document, after: Document) -> list[str]:
    first_end, second_end = ((each["error"] or {}).get("kind") or each["state"] for each in (before, after))
    if (before["state"], first_end) != (after["state"], second_end):
        return [f"{first_end} then, {second_end} now"]
    first, second = before["metrics"] or {}, after["metrics"] or {}
    return [
        f"{name} {_value(first.get(name))} then, {_value(second.get(name))} now"
        for name in dict.fromkeys((*first, *second))
        if first.get(name) != second.get(name)
    ]


def _value(number: float | None) -> str:
    return "none" if number is None else repr(number)


async def compare(ems: "client.EmsClient", source: str, name: str, run: Document | None) -> Comparison:
    """Compares job by job, by the identity of their configurations and seeds. Jobs mostly come in the same order."""
    compared = Comparison()
    early: dict[str, list[Document]] = {}
    async with contextlib.aclosing(ems.jobs(name)) as again:
        if run is not None:
            async for job in again:
                compared.add(run, job)
            return compared
        async with contextlib.aclosing(ems.jobs(source)) as first:
            left: dict[str, list[Document]] = {}
            async for before, after in _pairs(first, again):
                if before is not None and after is not None and _identity(before) == _identity(after):
                    compared.add(before, after)
                    continue
                for each, own, other in ((before, early, left), (after, left, early)):
                    if each is None:
                        continue
                    key = _identity(each)
                    if waiting := other.get(key):
                        found = waiting.pop()
                        compared.add(*((each, found) if own is early else (found, each)))
                    else:
                        own.setdefault(key, []).append(each)
    compared.missing += sum(map(len, (*early.values(), *left.values())))
    return compared


async def _pairs(
    first: AsyncIterator[Document], second: AsyncIterator[Document]
) -> AsyncIterator[tuple[Document | None, Document | None]]:
    while True:
        before, after = await anext(first, None), await anext(second, None)
        if before is None and after is None:
            return
        yield before, after


def _identity(job: Document) -> str:
    """The configuration and seed; of a job that was never submitted its place."""
    return str(job["config_sha"] or f"{job['point']}.{job['replicate']}")


def show(what: str, name: str, compared: Comparison) -> None:
    """Says whether the results agree."""
    total = compared.same + compared.different + compared.missing
    if compared.agree:
        all_of = "the result agrees with that" if total == 1 else f"all {total:,} results agree with those"
        shell.out(f"{name}: {all_of} of {what}")
    else:
        parts = [f"{compared.same:,} of {total:,} results agree with those of {what}"]
        parts += [f"{compared.different:,} differ"] if compared.different else []
        parts += [f"{compared.missing:,} can't be compared, because a job has no result"] if compared.missing else []
        shell.out(f"{name}: {', '.join(parts)}")
    for example in compared.examples:
        shell.out(text.line(f"  {example}"))
    if compared.different > len(compared.examples):
        shell.out(f"  and {compared.different - len(compared.examples):,} more")
    for before, after in sorted(compared.versions, key=str):
        if before != after:
            shell.out(text.line(f"  the model version was {before or 'unknown'}, and is {after or 'unknown'} now"))


def document(what: str, name: str, compared: Comparison) -> Document:
    """The comparison for programs."""
    return {
        "reproduces": what,
        "experiment_id": name,
        "agree": compared.agree,
        "same": compared.same,
        "different": compared.different,
        "missing": compared.missing,
        "examples": list(compared.examples),
    }
