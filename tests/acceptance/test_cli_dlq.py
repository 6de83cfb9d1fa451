"""`ems dlq` as a process: lists, replays and drops the messages that the worker could not process."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import nats
import pytest

from ems_worker.cli import exits
from tests.support import commands, wait

UNREADABLE = b"\xff\xfe\x00 not a plan"


@pytest.fixture
def empty(deployment: commands.Deployment) -> Iterator[commands.Deployment]:
    """A deployment without dead letters."""
    asyncio.run(_purge(deployment))
    yield deployment
    asyncio.run(_purge(deployment))


async def _purge(deployment: commands.Deployment) -> None:
    """Empties the stream once the worker has decided all messages: a replayed one may become a dead letter again."""
    client = await nats.connect(deployment.nats.url)
    stream = client.jetstream()

    async def decided() -> bool:
        consumers = (("EMS_PLANS", "ems-worker-plans"), ("SIM_EVENTS", "ems-worker-events"))
        infos = [await stream.consumer_info(*consumer) for consumer in consumers]
        return all(info.num_pending == 0 and info.num_ack_pending == 0 for info in infos)

    try:
        await wait.until(decided, what="the worker to decide all messages")
        await stream.purge_stream("EMS_DLQ")
    finally:
        await client.close()


def letters(deployment: commands.Deployment, *flags: str) -> list[dict[str, Any]]:
    ended = commands.run("ems", "dlq", "ls", "--json", *flags, env=deployment.env)
    assert ended.code == exits.Exit.OK, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def send(deployment: commands.Deployment, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
    """Publishes a message, waits until it is a dead letter, and returns its sequence number in its stream."""

    async def call() -> int:
        client = await nats.connect(deployment.nats.url)
        try:
            stream = client.jetstream()
            before = (await stream.stream_info("EMS_DLQ")).state.last_seq
            ack = await stream.publish(subject, data, headers=dict(headers or {}))

            async def there() -> bool:
                return (await stream.stream_info("EMS_DLQ")).state.last_seq > before

            await wait.until(there, what="the dead letter")
            return ack.seq
        finally:
            await client.close()

    return asyncio.run(call())


def stored(deployment: commands.Deployment, seq: int) -> tuple[bytes, dict[str, str]]:
    async def call() -> tuple[bytes, dict[str, str]]:
        client = await nats.connect(deployment.nats.url)
        try:
            message = await client.jetstream().get_msg("EMS_PLANS", seq)
            return message.data or b"", dict(message.headers or {})
        finally:
            await client.close()

    return asyncio.run(call())


def test_unreadable_messages_are_listed_with_their_reasons(empty: commands.Deployment) -> None:
    """Plans and events are listed oldest first, and `show` prints their content unchanged on stdout."""
    first = send(empty, "ems.experiment.submit.evolution", UNREADABLE)
    send(empty, "sim.run_completed", b"not an event")
    plan, event = letters(empty)
    assert (plan["kind"], plan["subject"], plan["stream"]) == ("plan", "ems.experiment.submit.evolution", "EMS_PLANS")
    assert (plan["original_seq"], plan["size"]) == (first, len(UNREADABLE))
    assert "UTF-8" in plan["reason"]
    assert event["kind"] == "event"
    assert letters(empty, "--kind", "event") == [event]
    assert letters(empty, "-n", "1") == [plan]
    header, row, _ = commands.run("ems", "dlq", "ls", env=empty.env).out.splitlines()
    assert header.split() == ["seq", "kind", "at", "subject", "bytes", "reason"]
    assert row.split()[:2] == [str(plan["seq"]), "plan"]
    shown = commands.run("ems", "dlq", "show", str(event["seq"]), env=empty.env)
    assert shown.out == "not an event"
    assert f"reason: {event['reason']}" in shown.err
    document = json.loads(commands.run("ems", "dlq", "show", "--json", str(event["seq"]), env=empty.env).out)
    assert document == {**event, "data": "not an event"}


def test_replay_sends_the_original_message(empty: commands.Deployment) -> None:
    """A replayed plan is a new submission, and if it is still unreadable a new dead letter."""
    send(empty, "ems.experiment.submit.evolution", UNREADABLE, {"Content-Type": "x/y", "Nats-Msg-Id": "once"})
    [before] = letters(empty)
    ended = commands.run("ems", "dlq", "replay", str(before["seq"]), env=empty.env)
    assert ended.code == exits.Exit.OK, ended.err
    seq = int(ended.out.split()[-1])
    assert ended.out == f"{before['seq']}: sent again as EMS_PLANS {seq}\n"
    data, headers = stored(empty, seq)
    assert (data, headers["Content-Type"]) == (UNREADABLE, "x/y")
    assert headers["Nats-Msg-Id"] != "once"

    async def replayed() -> dict[str, Any] | None:
        listed = letters(empty)
        return listed[0] if listed else None

    after = asyncio.run(wait.until(replayed, what="the second dead letter"))
    assert after is not None
    assert after["seq"] > before["seq"]
    assert after["original_seq"] == seq


def test_a_large_message_is_replayed_from_its_stream(empty: commands.Deployment) -> None:
    """The dead letter of a large message refers to the original, which is sent again."""
    large = b"\xff" * (1024 * 1024 - 300)
    send(empty, "ems.experiment.submit", large)
    [letter] = letters(empty)
    shown = commands.run("ems", "dlq", "show", str(letter["seq"]), env=empty.env)
    assert f"message {letter['original_seq']} of stream EMS_PLANS" in shown.err
    assert shown.out == ""
    ended = commands.run("ems", "dlq", "replay", "--all", env=empty.env)
    assert stored(empty, int(ended.out.split()[-1]))[0] == large


def test_drop_deletes_permanently(empty: commands.Deployment) -> None:
    """A dropped letter can't be shown, replayed or dropped again, and `drop` without a number drops nothing."""
    for _ in range(2):
        send(empty, "sim.run_completed", b"not an event")
    letter, _ = letters(empty)
    assert commands.run("ems", "dlq", "drop", str(letter["seq"]), env=empty.env).out == f"{letter['seq']}: dropped\n"
    gone = commands.run("ems", "dlq", "drop", str(letter["seq"]), env=empty.env)
    assert (gone.code, gone.err) == (exits.Exit.FAILED, f"error: there is no dead letter {letter['seq']}\n")
    assert commands.run("ems", "dlq", "show", str(letter["seq"]), env=empty.env).code == exits.Exit.FAILED
    assert commands.run("ems", "dlq", "replay", str(letter["seq"]), env=empty.env).code == exits.Exit.FAILED
    assert commands.run("ems", "dlq", "drop", env=empty.env).code == exits.Exit.USAGE
    assert commands.run("ems", "dlq", "drop", "--all", env=empty.env).code == exits.Exit.OK
    assert commands.run("ems", "dlq", "ls", env=empty.env).err == "no dead letters\n"


def forge(deployment: commands.Deployment, kind: str, subject: str, origin: tuple[str, int], *flags: str) -> None:
    """Publishes a dead letter that no worker wrote. `origin` is the stream and sequence that it claims."""
    stream, seq = origin

    async def call() -> None:
        client = await nats.connect(deployment.nats.url)
        try:
            headers = {"Ems-Subject": subject, "Ems-Stream": stream, "Ems-Sequence": str(seq), "Ems-Reason": "none"}
            headers |= dict.fromkeys(flags, "true") | {"Ems-Sha256": hashlib.sha256(b"").hexdigest()}
            await client.jetstream().publish(f"ems.dlq.{kind}", b"", headers=headers)
        finally:
            await client.close()

    asyncio.run(call())


def streams(deployment: commands.Deployment) -> set[str]:
    async def call() -> set[str]:
        client = await nats.connect(deployment.nats.url)
        try:
            return {str(info.config.name) for info in await client.jetstream().streams_info()}
        finally:
            await client.close()

    return asyncio.run(call())


def test_forged_letters_are_not_replayed(empty: commands.Deployment) -> None:
    """A forged letter is refused with its subject or stream and exit code 1, and the next letter is still replayed."""
    before = streams(empty)
    forge(empty, "event", "$JS.API.STREAM.DELETE.EMS_RESULTS", ("SIM_EVENTS", 1))
    forge(empty, "plan", "ems.experiment.submit", ("EMS_STATUS", 1), "Ems-By-Reference")
    decided = send(empty, "ems.experiment.submit.evolution", UNREADABLE)
    forge(empty, "event", "sim.run_completed", ("EMS_PLANS", decided), "Ems-By-Reference")
    first, second, good, last = (letter["seq"] for letter in letters(empty))
    ended = commands.run("ems", "dlq", "replay", "--all", env=empty.env)
    assert ended.code == exits.Exit.FAILED
    assert ended.out.startswith(f"{good}: sent again as EMS_PLANS")
    refused = ended.err.splitlines()
    assert len(refused) == 3
    assert f"dead letter {first} " in refused[0]
    assert "'$JS.API.STREAM.DELETE.EMS_RESULTS'" in refused[0]
    assert f"dead letter {second} " in refused[1]
    assert "EMS_STATUS" in refused[1]
    assert f"dead letter {last} " in refused[2]
    assert "'ems.experiment.submit.evolution'" in refused[2]
    assert streams(empty) == before


def test_replay_sends_only_headers_that_describe_the_content(empty: commands.Deployment) -> None:
    """Headers that could delete messages or direct a reply are not sent again."""
    sent = {"Content-Type": "x/y", "Ems-Reply-To": "_INBOX.stranger", "X-Other": "1"}
    send(empty, "ems.experiment.submit.evolution", UNREADABLE, sent)
    [letter] = letters(empty)
    ended = commands.run("ems", "dlq", "replay", str(letter["seq"]), env=empty.env)
    _, headers = stored(empty, int(ended.out.split()[-1]))
    assert set(headers) == {"Content-Type", "Nats-Msg-Id"}


def test_an_empty_letter_without_its_original_is_not_replayed(empty: commands.Deployment) -> None:
    """An empty message may have named its content in a header, which the letter doesn't have."""
    forge(empty, "plan", "ems.experiment.submit", ("EMS_PLANS", 999_999))
    [letter] = letters(empty)
    ended = commands.run("ems", "dlq", "replay", str(letter["seq"]), env=empty.env)
    assert (ended.code, ended.out) == (exits.Exit.FAILED, "")
    assert f"dead letter {letter['seq']} is empty" in ended.err
    assert letters(empty) == [letter]
