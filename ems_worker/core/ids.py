"""Ids of experiments and runs: pure functions of the accepted plan, so that a redelivery gets the same ids."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

EXPERIMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# A group is part of subjects and paths, like an experiment's id.
TOKEN: Final = EXPERIMENT_ID
# Each number has its minimum width, so that a run has one id only, and at most the digits that a run can have
# (core.seeds): other systems write the ids in events, and integers in the manifest have 64 bits.
_SIMULATION_ID: Final = re.compile(
    r"(?P<experiment>[A-Za-z0-9][A-Za-z0-9_-]{0,63})"
    r"-p(?P<point>[0-9]{6}|[1-9][0-9]{6,9})-r(?P<replicate>[0-9]{3}|[1-9][0-9]{3,6})-a(?P<attempt>[1-9][0-9]{0,8})"
)
_MAX_LENGTH: Final = 128


class SimulationId(NamedTuple):
    """The parts of a simulation id."""

    experiment_id: str
    point: int
    replicate: int
    attempt: int

    def __str__(self) -> str:
        return simulation_id(self.experiment_id, self.point, self.replicate, self.attempt)


def simulation_id(experiment_id: str, point: int, replicate: int, attempt: int) -> str:
    """The id of an attempt (from 1) at the job of a point and a replicate (each from 0)."""
    return f"{experiment_id}-p{point:06d}-r{replicate:03d}-a{attempt}"


def parse_simulation_id(text: str) -> SimulationId | None:
    """Parses a simulation id from the right, which is unambiguous; None if the text is not one."""
    match = _SIMULATION_ID.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    experiment, point, replicate, attempt = match.groups()
    return SimulationId(experiment, int(point), int(replicate), int(attempt))


def in_lower_case(experiment_ids: Iterable[str]) -> dict[str, str]:
    """The ids by their lower-case form, without those that differ only in case."""
    by_lower: dict[str, str] = {}
    ambiguous = set()
    for name in experiment_ids:
        if by_lower.setdefault(name.lower(), name) != name:
            ambiguous.add(name.lower())
    return {lower: name for lower, name in by_lower.items() if lower not in ambiguous}


def in_other_case(text: str, experiments: Mapping[str, str]) -> SimulationId | None:
    """The id of a run of these experiments that differs from the text only in case; None if there is none.

    `experiments` is a result of `in_lower_case`.
    """
    parsed = parse_simulation_id(text.lower())
    name = experiments.get(parsed.experiment_id) if parsed is not None else None
    if parsed is None or name is None:
        return None
    meant = parsed._replace(experiment_id=name)
    return meant if str(meant) != text else None


def experiment_id(name: str, stream_created_ns: int, sequence: int) -> str:
    """An id for a plan without one: its name as a token, and a digest of the message that contained it.

    A recreated stream counts from 1 again; its creation time keeps it from giving out an earlier id again.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:48].strip("-")
    message = hashlib.sha256(f"{stream_created_ns}:{sequence}".encode()).hexdigest()
    return f"{slug or 'experiment'}-{message[:10]}"
