"""The streams: what each has to be, how it is made where it is missing, and what is wrong with one that is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection
from ems_worker.core.documents import subjects
from ems_worker.core.wire import StreamIdentity

_DAY_NS = 24 * 3600 * 1_000_000_000
_MONTH = {"max_age": 30 * _DAY_NS}

PLANS = subjects.PLANS_STREAM
EVENTS = subjects.EVENTS_STREAM
STATUS = subjects.STATUS_STREAM
RESULTS = subjects.RESULTS_STREAM
DEAD_LETTERS = subjects.DEAD_LETTER_STREAM

PLAN_SUBJECTS = (subjects.SUBMIT, f"{subjects.SUBMIT}.*")
EVENT_SUBJECTS = tuple(subject + end for subject in subjects.RUN_EVENTS for end in ("", ".>"))


@dataclass(frozen=True, slots=True)
class Spec:
    """A stream of ours. `others` is what a new one gets besides; an existing one may have it otherwise."""

    name: str
    subjects: tuple[str, ...]
    discard: str = "old"
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fixed(self) -> dict[str, Any]:
        """What an existing stream has to agree with."""
        return {"subjects": list(self.subjects), "storage": "file", "retention": "limits", "discard": self.discard}


SPECS = (
    Spec(PLANS, PLAN_SUBJECTS, discard="new", others=_MONTH),
    Spec(EVENTS, EVENT_SUBJECTS, others=_MONTH),
    Spec(
        STATUS,
        (f"{subjects.STATUS}.*", f"{subjects.DECISION}.*"),
        others={"max_msgs_per_subject": 1, "allow_direct": True, "allow_msg_ttl": True},
    ),
    Spec(
        RESULTS,
        (f"{subjects.RESULT}.*", f"{subjects.POINT}.*", f"{subjects.SETTLED}.*"),
        others=_MONTH,
    ),
    Spec(DEAD_LETTERS, (subjects.DEAD_PLANS, subjects.DEAD_EVENTS), others=_MONTH),
)


def differences(spec: Spec, config: Mapping[str, Any]) -> list[str]:
    """How an existing stream of ours contradicts what the worker relies on, a line each; empty: it doesn't."""
    lines = []
    for key, wanted in spec.fixed.items():
        found = config.get(key) or ([] if key == "subjects" else "")
        if key == "subjects":
            missing = sorted(set(wanted) - set(found))
            extra = sorted(set(found) - set(wanted))
            if missing:
                lines.append(f"subjects lack {', '.join(missing)}")
            if extra:
                lines.append(f"subjects have {', '.join(extra)}, which don't belong there")
        elif found != wanted:
            lines.append(f"{key} is {found}, has to be {wanted}")
    return lines


def remedy(spec: Spec) -> str:
    """What an operator does about an existing stream that differs."""
    return (
        f"change it (nats stream edit {spec.name} --subjects {','.join(spec.subjects)} --discard {spec.discard}; "
        "storage and retention can't be edited: back it up, delete it and start the worker, which creates it)"
    )


def identity(info: Mapping[str, Any]) -> StreamIdentity:
    """Who a stream is, from what the server says of it."""
    state = info["state"]
    return StreamIdentity(
        name=info["config"]["name"],
        created_ns=api.nanoseconds(info["created"]),
        first_seq=int(state["first_seq"]),
        last_seq=int(state["last_seq"]),
    )


async def ensure(link: connection.Connection, *, create: bool) -> dict[str, StreamIdentity]:
    """The streams, by the names of SPECS; missing ones are made where `create` allows it.

    Raises BrokerMisconfigured with everything that contradicts at once.
    """
    found: dict[str, StreamIdentity] = {}
    problems: list[str] = []
    for spec in SPECS:
        try:
            found[spec.name] = identity(await _ensure_one(link, spec, create=create))
        except errors.BrokerMisconfigured as problem:
            problems.append(str(problem))
    if problems:
        raise errors.BrokerMisconfigured("\n".join(problems))
    return found


async def look(link: connection.Connection, name: str) -> StreamIdentity | None:
    """Who the stream of that name is now; None: there is none."""
    info = await api.find(link, f"STREAM.INFO.{name}")
    return identity(info) if info is not None else None


async def _ensure_one(link: connection.Connection, spec: Spec, *, create: bool) -> dict[str, Any]:
    if spec.name == EVENTS and (info := await _existing_events(link, spec)) is not None:
        return info
    info = await api.find(link, f"STREAM.INFO.{spec.name}")
    if info is not None:
        if lines := differences(spec, info["config"]):
            raise errors.BrokerMisconfigured(f"stream {spec.name}: {'; '.join(lines)}. Remedy: {remedy(spec)}")
        return info
    if not create:
        raise errors.BrokerMisconfigured(
            f"stream {spec.name} is missing and creating streams is forbidden. Remedy: allow it "
            "(EMS_CREATE_STREAMS=true), or have an administrator create it: ems-worker provision"
        )
    return await _create(link, spec)


async def _create(link: connection.Connection, spec: Spec) -> dict[str, Any]:
    try:
        return await api.call(link, f"STREAM.CREATE.{spec.name}", {"name": spec.name, **spec.fixed, **spec.others})
    except api.Refused as refused:
        if refused.err_code != api.SUBJECTS_OVERLAP:
            raise
        holders = await _holders(link, spec.subjects)
        names = ", ".join(sorted({name for names in holders.values() for name in names})) or "another stream"
        raise errors.BrokerMisconfigured(
            f"stream {spec.name} can't be created: {names} already has some of its subjects "
            f"({', '.join(spec.subjects)}). Remedy: take them out of {names} (nats stream edit)"
        ) from refused


async def _existing_events(link: connection.Connection, spec: Spec) -> dict[str, Any] | None:
    """The stream, under whatever name, that has the subjects of run events; None: no stream has any of them."""
    holders = await _holders(link, spec.subjects)
    names = sorted({name for names in holders.values() for name in names})
    if not names:
        return None
    if len(names) > 1:
        spread = "; ".join(f"{subject} in {', '.join(there) or 'none'}" for subject, there in holders.items())
        raise errors.BrokerMisconfigured(
            f"the run events are spread over several streams ({spread}). Remedy: one stream has to have them all"
        )
    info = await api.call(link, f"STREAM.INFO.{names[0]}")
    # That a stream is found by a subject says that they overlap, not that it has all of it.
    lacking = [subject for subject in spec.subjects if not any(covers(s, subject) for s in info["config"]["subjects"])]
    if lacking:
        raise errors.BrokerMisconfigured(
            f"stream {names[0]} has some subjects of run events, but not {', '.join(lacking)}. "
            f"Remedy: add them (nats stream edit {names[0]} --subjects ...)"
        )
    return info


async def _holders(link: connection.Connection, subjects: Sequence[str]) -> dict[str, list[str]]:
    """The names of the streams whose subjects overlap each of these."""
    return {
        subject: (await api.call(link, "STREAM.NAMES", {"subject": subject})).get("streams") or []
        for subject in subjects
    }


def covers(pattern: str, subject: str) -> bool:
    """Whether everything that matches `subject` (which may have wildcards itself) matches `pattern`."""
    steps, wanted = pattern.split("."), subject.split(".")
    for index, step in enumerate(steps):
        if step == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">":
            return False
        if step != "*" and step != wanted[index]:
            return False
    return len(steps) == len(wanted)
