"""Names of experiments and runs. Both are pure functions of the accepted plan: a redelivery makes the same ones."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

EXPERIMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# A group names a study in a subject and in a path, as an experiment does.
TOKEN: Final = EXPERIMENT_ID
# Each number at its least width, so that one run has one name, and no wider than a run of ours can have (core.seeds):
# others choose the names in events, and the manifest's integers have 64 bits.
_SIMULATION_ID: Final = re.compile(
    r"(?P<experiment>[A-Za-z0-9][A-Za-z0-9_-]{0,63})"
    r"-p(?P<point>[0-9]{6}|[1-9][0-9]{6,9})-r(?P<replicate>[0-9]{3}|[1-9][0-9]{3,6})-a(?P<attempt>[1-9][0-9]{0,8})"
)
_LONGEST = 128


@dataclass(frozen=True, slots=True)
class SimulationId:
    """What a run's name says."""

    experiment_id: str
    point: int
    replicate: int
    attempt: int

    def __str__(self) -> str:
        return simulation_id(self.experiment_id, self.point, self.replicate, self.attempt)


def simulation_id(experiment_id: str, point: int, replicate: int, attempt: int) -> str:
    """The name of one attempt (from 1) at the job of a point and a replicate (each from 0)."""
    return f"{experiment_id}-p{point:06d}-r{replicate:03d}-a{attempt}"


def parse_simulation_id(text: str) -> SimulationId | None:
    """Reads the name from the right, unambiguous whatever the experiment is called; None if it is none of ours."""
    found = _SIMULATION_ID.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    return SimulationId(found["experiment"], int(found["point"]), int(found["replicate"]), int(found["attempt"]))


def in_lower_case(experiment_ids: Iterable[str]) -> dict[str, str]:
    """The ids by themselves in lower case, without those that are told apart by case alone."""
    found: dict[str, str] = {}
    twice = set()
    for name in experiment_ids:
        if found.setdefault(name.lower(), name) != name:
            twice.add(name.lower())
    return {lower: name for lower, name in found.items() if lower not in twice}


def in_other_case(text: str, experiments: Mapping[str, str]) -> SimulationId | None:
    """The run of these experiments whose name differs from the text in upper and lower case alone, if there is one.

    `experiments` is what `in_lower_case` gives.
    """
    found = parse_simulation_id(text.lower())
    name = experiments.get(found.experiment_id) if found is not None else None
    if found is None or name is None:
        return None
    meant = replace(found, experiment_id=name)
    return meant if str(meant) != text else None


def experiment_id(name: str, stream_created_ns: int, sequence: int) -> str:
    """An id for a plan that has none: its name made a token, and a digest of the message that brought it.

    The stream's creation time keeps a stream made anew, which counts from 1 again, from giving an old id a second time.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:48].strip("-")
    message = hashlib.sha256(f"{stream_created_ns}:{sequence}".encode()).hexdigest()
    return f"{slug or 'experiment'}-{message[:10]}"
