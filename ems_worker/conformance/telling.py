"""Checks of the events: what they say, under which ids, and that none is lost with the broker."""

import asyncio
import collections
from collections.abc import Iterable

from ems_worker.conformance import check, kit, messages

_RUNS_AROUND_AN_OUTAGE = 5
_MOST_WORDS = 5


async def subjects(subject: kit.Kit) -> None:
    """Events are on the contract's subjects, with the subject and .v1 as their type key."""
    await subject.settled()
    _require_none(subject, messages.Aspect.SUBJECT)


async def envelopes(subject: kit.Kit) -> None:
    """An event is a JSON object, or a GenericEventRequest with all that the contract wants in it."""
    await subject.settled()
    _require_none(subject, messages.Aspect.ENVELOPE)


async def payloads(subject: kit.Kit) -> None:
    """What an event says of its run is complete: times, metrics, the kind of an error."""
    await subject.settled()
    _require_none(subject, messages.Aspect.PAYLOAD)


async def message_ids(subject: kit.Kit) -> None:
    """Every event has one message id and one event_id, however often it is published, and shares them with no other."""
    await subject.settled()
    by_event = collections.defaultdict(set)
    by_id = collections.defaultdict(set)
    for one in _all(subject):
        event = f"{one.kind} of {one.simulation_id}"
        check.require(one.message.message_id, f"{event} has no Nats-Msg-Id")
        by_event[event].add((one.message.message_id, one.event_id))
        by_id[one.message.message_id].add(event)
    for event, ids in by_event.items():
        names = ", ".join(sorted(" / ".join(filter(None, pair)) for pair in ids))
        check.require(len(ids) == 1, f"{event} was published under several ids: {names}")
    for name, events in by_id.items():
        check.require(len(events) == 1, f"the message id {name} stands for {' and for '.join(sorted(events))}")


async def started_once(subject: kit.Kit) -> None:
    """A repeated publish repeats the event, byte for byte: a difference would be a second start."""
    await subject.settled()
    contents = collections.defaultdict(set)
    for one in _all(subject):
        contents[f"{one.kind} of {one.simulation_id}"].add(one.message.data)
    for event, different in contents.items():
        check.require(len(different) == 1, f"{event} was published with {len(different)} contents: two starts?")


async def broker_outage(subject: kit.Kit) -> None:
    """Runs are taken on while the broker is away, and what ended meanwhile is told once it is back."""
    if subject.options.restart_broker is None:
        raise check.Skipped("give --broker-restart-command, which stops the broker and starts it again")
    names = [await subject.begin(subject.command()) for _ in range(_RUNS_AROUND_AN_OUTAGE)]
    outage = asyncio.ensure_future(subject.options.restart_broker())
    away = await subject.bus.until(lambda: not subject.bus.connected or outage.done(), subject.options.timeout)
    if away and not subject.bus.connected:
        names += [await subject.begin(subject.command()) for _ in range(_RUNS_AROUND_AN_OUTAGE)]
    await outage
    await subject.reachable()
    await subject.ends_of(names)
    if len(names) == _RUNS_AROUND_AN_OUTAGE:
        raise check.Skipped("the broker did not go away by --broker-restart-command")


def _all(subject: kit.Kit) -> Iterable[messages.Event]:
    return [*subject.bus.stored, *subject.bus.heard]


def _require_none(subject: kit.Kit, aspect: messages.Aspect) -> None:
    wrong = dict.fromkeys(
        f"{one.message.subject} of {one.simulation_id or 'an unnamed run'}: {words}"
        for one in _all(subject)
        for about, words in one.wrong
        if about is aspect
    )
    more = f"; and {len(wrong) - _MOST_WORDS} more" if len(wrong) > _MOST_WORDS else ""
    check.require(not wrong, "; ".join(list(wrong)[:_MOST_WORDS]) + more)
