"""Checks of the events: their content and ids, and that none is lost while the broker is away."""

import asyncio
import collections
from collections.abc import Iterable

from ems_worker.conformance import check, kit, messages

_RUNS_AROUND_AN_OUTAGE = 5
_MAX_PROBLEMS = 5


async def subjects(session: kit.Session) -> None:
    """Events are on the contract's subjects, with the subject and .v1 as their type key."""
    await session.settled()
    _require_none(session, messages.Aspect.SUBJECT)


async def envelopes(session: kit.Session) -> None:
    """An event is a JSON object, or a GenericEventRequest with all fields that the contract requires."""
    await session.settled()
    _require_none(session, messages.Aspect.ENVELOPE)


async def payloads(session: kit.Session) -> None:
    """The payload of an event is complete: times, metrics, the kind of an error."""
    await session.settled()
    _require_none(session, messages.Aspect.PAYLOAD)


async def message_ids(session: kit.Session) -> None:
    """Every event has a unique message id and event_id, which stay the same however often it is published."""
    await session.settled()
    by_event = collections.defaultdict(set)
    by_id = collections.defaultdict(set)
    for event in _all(session):
        description = _description(session, event)
        check.require(event.message.message_id, f"{description} has no Nats-Msg-Id")
        by_event[description].add((event.message.message_id, event.event_id))
        by_id[event.message.message_id].add(description)
    for description, ids in by_event.items():
        names = ", ".join(sorted(" / ".join(filter(None, pair)) for pair in ids))
        check.require(len(ids) == 1, f"{description} was published under several ids: {names}")
    for name, events in by_id.items():
        check.require(len(events) == 1, f"several events have the message id {name}: {' and '.join(sorted(events))}")


async def started_once(session: kit.Session) -> None:
    """A repeated publish repeats the event, byte for byte: a difference would be a second start."""
    await session.settled()
    contents = collections.defaultdict(set)
    for event in _all(session):
        if not _again(session, event):
            contents[_description(session, event)].add(event.message.data)
    for description, different in contents.items():
        check.require(
            len(different) == 1, f"{description} was published with {len(different)} different contents: two starts?"
        )


async def broker_outage(session: kit.Session) -> None:
    """Runs are accepted while the broker is away, and those that end meanwhile are published once it is back."""
    if session.options.restart_broker is None:
        raise check.Skipped("give --broker-restart-command, which stops the broker and starts it again")
    names = [await session.begin(session.command()) for _ in range(_RUNS_AROUND_AN_OUTAGE)]
    before = session.bus.losses
    outage = asyncio.ensure_future(session.options.restart_broker())
    await session.bus.until(lambda: session.bus.losses > before or outage.done(), session.options.timeout)
    if not outage.done():
        names += [await session.begin(session.command()) for _ in range(_RUNS_AROUND_AN_OUTAGE)]
    await outage
    await session.reachable()
    await session.ends_of(names)
    if session.bus.losses == before:
        raise check.Skipped("the broker did not go away at --broker-restart-command")


def _description(session: kit.Session, event: messages.Event) -> str:
    """Names the event; events with the same description are repetitions of each other."""
    distinct = event.message.message_id if event.kind == messages.METRICS or _again(session, event) else ""
    return " ".join(filter(None, (event.kind, "of", event.simulation_id, distinct)))


def _again(session: kit.Session, event: messages.Event) -> bool:
    """Whether the event may be a second start: of a run that was open when the orchestrator was shut down in order."""
    return event.kind == messages.STARTED and event.simulation_id in session.open_at_restart


def _all(session: kit.Session) -> Iterable[messages.Event]:
    return [*session.bus.stored, *session.bus.published]


def _require_none(session: kit.Session, aspect: messages.Aspect) -> None:
    problems = dict.fromkeys(
        f"{event.message.subject} of {event.simulation_id or 'an unnamed run'}: {problem}"
        for event in _all(session)
        for about, problem in event.problems
        if about is aspect
    )
    more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
    check.require(not problems, "; ".join(list(problems)[:_MAX_PROBLEMS]) + more)
