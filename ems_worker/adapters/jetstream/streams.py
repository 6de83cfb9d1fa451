"""The streams: how each must be configured, how a missing one is created, and how an existing one differs."""

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
EVENT_SUBJECTS = tuple(subject + suffix for subject in subjects.RUN_EVENTS for suffix in ("", ".>"))


@dataclass(frozen=True, slots=True)
class Spec:
    """A stream of ours. `initial` has settings that a new stream gets, and that may differ in an existing one."""

    name: str
    subjects: tuple[str, ...]
    discard: str = "old"
    initial: Mapping[str, Any] = field(default_factory=dict)

    @property
    def required(self) -> dict[str, Any]:
        """The settings that an existing stream must have."""
        return {"subjects": list(self.subjects), "storage": "file", "retention": "limits", "discard": self.discard}


SPECS = (
    Spec(PLANS, PLAN_SUBJECTS, discard="new", initial=_MONTH),
    Spec(EVENTS, EVENT_SUBJECTS, initial=_MONTH),
    Spec(
        STATUS,
        (f"{subjects.STATUS}.*", f"{subjects.DECISION}.*"),
        initial={"max_msgs_per_subject": 1, "allow_direct": True, "allow_msg_ttl": True},
    ),
    Spec(
        RESULTS,
        tuple(f"{name}.*" for name in (subjects.RESULT, subjects.POINT, subjects.SETTLED, subjects.CHANGE)),
        initial=_MONTH,
    ),
    Spec(DEAD_LETTERS, (subjects.DEAD_PLANS, subjects.DEAD_EVENTS), initial=_MONTH),
)


def differences(spec: Spec, config: Mapping[str, Any]) -> list[str]:
    """How an existing stream of ours contradicts what the worker relies on, one line for each difference."""
    lines = []
    for key, required in spec.required.items():
        actual = config.get(key) or ([] if key == "subjects" else "")
        if key == "subjects":
            missing = sorted(set(required) - set(actual))
            extra = sorted(set(actual) - set(required))
            if missing:
                lines.append(f"subjects lack {', '.join(missing)}")
            if extra:
                lines.append(f"subjects have {', '.join(extra)}, which don't belong there")
        elif actual != required:
            lines.append(f"{key} is {actual}, must be {required}")
    return lines


def remedy(spec: Spec) -> str:
    """What an operator does about an existing stream that differs."""
    return (
        f"change it (nats stream edit {spec.name} --subjects {','.join(spec.subjects)} --discard {spec.discard}; "
        "storage and retention can't be edited: back it up, delete it and start the worker, which creates it)"
    )


def identity(info: Mapping[str, Any]) -> StreamIdentity:
    """A stream's identity, from the server's information about it."""
    state = info["state"]
    return StreamIdentity(
        name=info["config"]["name"],
        created_ns=api.nanoseconds(info["created"]),
        first_seq=int(state["first_seq"]),
        last_seq=int(state["last_seq"]),
    )


async def ensure(link: connection.Connection, *, create: bool) -> dict[str, StreamIdentity]:
    """The streams, by the names of SPECS. Missing streams are created if `create` allows it.

    Raises BrokerMisconfigured with all problems at once.
    """
    identities: dict[str, StreamIdentity] = {}
    problems: list[str] = []
    for spec in SPECS:
        try:
            identities[spec.name] = identity(await _ensure_stream(link, spec, create=create))
        except errors.BrokerMisconfigured as problem:
            problems.append(str(problem))
    if problems:
        raise errors.BrokerMisconfigured("\n".join(problems))
    return identities


async def look(link: connection.Connection, name: str) -> StreamIdentity | None:
    """The current identity of the stream with that name; None if it doesn't exist."""
    info = await api.find(link, f"STREAM.INFO.{name}")
    return identity(info) if info is not None else None


async def _ensure_stream(link: connection.Connection, spec: Spec, *, create: bool) -> dict[str, Any]:
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
        return await api.call(link, f"STREAM.CREATE.{spec.name}", {"name": spec.name, **spec.required, **spec.initial})
    except api.JetStreamError as error:
        if error.err_code != api.SUBJECTS_OVERLAP:
            raise
        holders = await _holders(link, spec.subjects)
        names = ", ".join(sorted({name for names in holders.values() for name in names})) or "another stream"
        raise errors.BrokerMisconfigured(
            f"stream {spec.name} can't be created: {names} already has some of its subjects "
            f"({', '.join(spec.subjects)}). Remedy: remove them from {names} (nats stream edit)"
        ) from error


async def _existing_events(link: connection.Connection, spec: Spec) -> dict[str, Any] | None:
    """The stream, whatever its name, that has the subjects of run events; None if no stream has any of them."""
    holders = await _holders(link, spec.subjects)
    names = sorted({name for names in holders.values() for name in names})
    if not names:
        return None
    if len(names) > 1:
        spread = "; ".join(f"{subject} in {', '.join(streams) or 'none'}" for subject, streams in holders.items())
        raise errors.BrokerMisconfigured(
            f"the run events are spread over several streams ({spread}). Remedy: one stream must have them all"
        )
    info = await api.call(link, f"STREAM.INFO.{names[0]}")
    # JetStream lists a stream under a subject when they overlap, even if the stream has only a part of it.
    lacking = [subject for subject in spec.subjects if not any(covers(s, subject) for s in info["config"]["subjects"])]
    if lacking:
        raise errors.BrokerMisconfigured(
            f"stream {names[0]} has some subjects of run events, but not {', '.join(lacking)}. "
            f"Remedy: add them (nats stream edit {names[0]} --subjects ...)"
        )
    return info


async def _holders(link: connection.Connection, subjects: Sequence[str]) -> dict[str, list[str]]:
    """By subject, the names of the streams that have subjects overlapping it."""
    return {
        subject: (await api.call(link, "STREAM.NAMES", {"subject": subject})).get("streams") or []
        for subject in subjects
    }


def covers(pattern: str, subject: str) -> bool:
    """Whether `pattern` matches everything that matches `subject`, which may have wildcards itself."""
    patterns, tokens = pattern.split("."), subject.split(".")
    for index, part in enumerate(patterns):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or tokens[index] == ">":
            return False
        if part != "*" and part != tokens[index]:
            return False
    return len(patterns) == len(tokens)
