"""`resources` and `simulator`: what a run needs, sent to the orchestrator as labels of the run."""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from ems_worker.core.language import checks, foreign, quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

# Labels that begin like this have a meaning of ours.
PREFIX: Final = "ems."
MAX_GPUS: Final = 1024
_MAX_CPUS: Final = 65_536
_MAX_MEMORY: Final = 2**50
MEMORY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([kMGT]i?)?B")
_FORM: Final = "an amount of memory such as 500MB or 4GiB"
_POWERS: Final = {"k": 1, "M": 2, "G": 3, "T": 4}
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME_FORM: Final = "the name of a simulator: letters, digits and _.-, at most 64"


def labels(data: Mapping[str, object], problems: Problems) -> dict[str, str]:
    """The labels that all runs of a plan carry to the orchestrator."""
    found: dict[str, str] = {}
    if "simulator" in data:
        name = problems.text(data["simulator"], ("simulator",), NAME, _NAME_FORM)
        found |= {} if name is None else {f"{PREFIX}simulator": name}
    if "resources" not in data:
        return found
    location = ("resources",)
    fields = checks.Fields.read(
        data["resources"],
        location,
        problems,
        required=(),
        optional=("cpus", "memory", "gpus"),
        remedies=foreign.RESOURCES,
    )
    if fields is None:
        return found
    amounts = {
        "cpus": _cpus(fields),
        "memory": _memory(fields.mapping["memory"], fields.at("memory"), problems) if fields.has("memory") else None,
        "gpus": fields.integer("gpus", 0, MAX_GPUS),
    }
    resources = {f"{PREFIX}resources.{key}": str(value) for key, value in amounts.items() if value is not None}
    return found | resources


def _cpus(fields: checks.Fields) -> float | None:
    number = fields.number("cpus")
    if number is None or 0 < number <= _MAX_CPUS:
        return number
    message = f"{quotes.brief(number)} is not greater than 0 and at most {_MAX_CPUS}"
    fields.problems.add("out_of_range", fields.at("cpus"), message)
    return None


def _memory(value: object, location: Location, problems: Problems) -> int | None:
    """An amount of memory in bytes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        problems.add(
            "wrong_type", location, f"{quotes.brief(value)} has no unit: write {quotes.brief(value)}MB, or MiB"
        )
        return None
    text = problems.text(value, location, MEMORY, _FORM)
    matched = None if text is None else MEMORY.fullmatch(text)
    if matched is None:
        return None
    unit = matched[2] or ""
    amount = int(Fraction(matched[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS.get(unit[:1], 0))
    if 0 < amount <= _MAX_MEMORY:
        return amount
    problems.add("out_of_range", location, f"{quotes.brief(value)} is not more than nothing and at most 1024TiB")
    return None
