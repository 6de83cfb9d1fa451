"""`ems dlq` as a process: what the worker could not use is seen, sent again and dropped."""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import nats
import pytest

from ems_worker.cli import exits
from tests.support import commands, wait

NONSENSE = b"\xff\xfe\x00 no plan"


@pytest.fixture
def empty(deployment: commands.Deployment) -> Iterator[commands.Deployment]:
    """A deployment without dead letters."""
    asyncio.run(_purge(deployment))
    yield deployment
    asyncio.run(_purge(deployment))


async def _purge(deployment: commands.Deployment) -> None:
    client = await nats.connect(deployment.nats.url)
    try:
        await client.jetstream().purge_stream("EMS_DLQ")
    finally:
        await client.close()


def letters(deployment: commands.Deployment, *flags: str) -> list[dict[str, Any]]:
    ended = commands.run("ems", "dlq", "ls", "--json", *flags, env=deployment.env)
    assert ended.code == exits.Exit.OK, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def send(deployment: commands.Deployment, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
    """Publishes it and waits until the worker has put it aside; its sequence number in its stream."""

    async def work() -> int:
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

    return asyncio.run(work())


def stored(deployment: commands.Deployment, seq: int) -> tuple[bytes, dict[str, str]]:
    async def work() -> tuple[bytes, dict[str, str]]:
        client = await nats.connect(deployment.nats.url)
        try:
            message = await client.jetstream().get_msg("EMS_PLANS", seq)
            return message.data or b"", dict(message.headers or {})
        finally:
            await client.close()

    return asyncio.run(work())


def test_what_cannot_be_read_is_listed_with_its_reason(empty: commands.Deployment) -> None:
    """Plans and events, the oldest first; the content goes to stdout as it came."""
    first = send(empty, "ems.experiment.submit.evolution", NONSENSE)
    send(empty, "sim.run_completed", b"neither")
    plan, event = letters(empty)
    assert (plan["kind"], plan["subject"], plan["stream"]) == ("plan", "ems.experiment.submit.evolution", "EMS_PLANS")
    assert (plan["original_seq"], plan["size"]) == (first, len(NONSENSE))
    assert "UTF-8" in plan["reason"]
    assert event["kind"] == "event"
    assert letters(empty, "--kind", "event") == [event]
    assert letters(empty, "-n", "1") == [plan]
    header, row, _ = commands.run("ems", "dlq", "ls", env=empty.env).out.splitlines()
    assert header.split() == ["seq", "kind", "at", "subject", "bytes", "reason"]
    assert row.split()[:2] == [str(plan["seq"]), "plan"]
    shown = commands.run("ems", "dlq", "show", str(event["seq"]), env=empty.env)
    assert shown.out == "neither"
    assert f"reason: {event['reason']}" in shown.err
    document = json.loads(commands.run("ems", "dlq", "show", "--json", str(event["seq"]), env=empty.env).out)
    assert document == {**event, "data": "neither"}


def test_replay_sends_it_again_as_it_was_sent_first(empty: commands.Deployment) -> None:
    """With its headers, as a new submission; what is still no plan is put aside anew, under another number."""
    send(empty, "ems.experiment.submit.evolution", NONSENSE, {"Content-Type": "x/y", "Nats-Msg-Id": "once"})
    [before] = letters(empty)
    ended = commands.run("ems", "dlq", "replay", str(before["seq"]), env=empty.env)
    assert ended.code == exits.Exit.OK, ended.err
    seq = int(ended.out.split()[-1])
    assert ended.out == f"{before['seq']}: sent again as EMS_PLANS {seq}\n"
    data, headers = stored(empty, seq)
    assert (data, headers["Content-Type"]) == (NONSENSE, "x/y")
    assert headers["Nats-Msg-Id"] != "once"

    async def anew() -> dict[str, Any] | None:
        found = letters(empty)
        return found[0] if found else None

    after = asyncio.run(wait.until(anew, what="the second dead letter"))
    assert after is not None
    assert after["seq"] > before["seq"]
    assert after["original_seq"] == seq


def test_what_was_too_large_to_keep_is_taken_from_its_stream(empty: commands.Deployment) -> None:
    """The letter only says where it is."""
    large = b"\xff" * (1024 * 1024 - 300)
    send(empty, "ems.experiment.submit", large)
    [letter] = letters(empty)
    shown = commands.run("ems", "dlq", "show", str(letter["seq"]), env=empty.env)
    assert f"message {letter['original_seq']} of stream EMS_PLANS" in shown.err
    assert shown.out == ""
    ended = commands.run("ems", "dlq", "replay", "--all", env=empty.env)
    assert stored(empty, int(ended.out.split()[-1]))[0] == large


def test_drop_is_for_good(empty: commands.Deployment) -> None:
    """One, or all; a number that isn't there, or none at all, is told."""
    for _ in range(2):
        send(empty, "sim.run_completed", b"neither")
    one, _ = letters(empty)
    assert commands.run("ems", "dlq", "drop", str(one["seq"]), env=empty.env).out == f"{one['seq']}: dropped\n"
    gone = commands.run("ems", "dlq", "drop", str(one["seq"]), env=empty.env)
    assert (gone.code, gone.err) == (exits.Exit.FAILED, f"error: there is no dead letter {one['seq']}\n")
    assert commands.run("ems", "dlq", "show", str(one["seq"]), env=empty.env).code == exits.Exit.FAILED
    assert commands.run("ems", "dlq", "replay", str(one["seq"]), env=empty.env).code == exits.Exit.FAILED
    assert commands.run("ems", "dlq", "drop", env=empty.env).code == exits.Exit.USAGE
    assert commands.run("ems", "dlq", "drop", "--all", env=empty.env).code == exits.Exit.OK
    assert commands.run("ems", "dlq", "ls", env=empty.env).err == "no dead letters\n"


def forge(deployment: commands.Deployment, kind: str, subject: str, stream: str, seq: int, *flags: str) -> None:
    """Publishes a dead letter that no worker has written."""

    async def work() -> None:
        client = await nats.connect(deployment.nats.url)
        try:
            headers = {"Ems-Subject": subject, "Ems-Stream": stream, "Ems-Sequence": str(seq), "Ems-Reason": "none"}
            headers |= dict.fromkeys(flags, "true") | {"Ems-Sha256": hashlib.sha256(b"").hexdigest()}
            await client.jetstream().publish(f"ems.dlq.{kind}", b"", headers=headers)
        finally:
            await client.close()

    asyncio.run(work())


def streams(deployment: commands.Deployment) -> set[str]:
    async def work() -> set[str]:
        client = await nats.connect(deployment.nats.url)
        try:
            return {str(one.config.name) for one in await client.jetstream().streams_info()}
        finally:
            await client.close()

    return asyncio.run(work())


def test_a_forged_letter_commands_nothing(empty: commands.Deployment) -> None:
    """Its subject is refused by name, with exit code 1, while the letters after it are sent again."""
    before = streams(empty)
    forge(empty, "event", "$JS.API.STREAM.DELETE.EMS_RESULTS", "SIM_EVENTS", 1)
    forge(empty, "plan", "ems.experiment.submit", "EMS_STATUS", 1, "Ems-By-Reference")
    decided = send(empty, "ems.experiment.submit.evolution", NONSENSE)
    forge(empty, "event", "sim.run_completed", "EMS_PLANS", decided, "Ems-By-Reference")
    first, second, good, last = (one["seq"] for one in letters(empty))
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


def test_replay_takes_along_no_header_that_commands(empty: commands.Deployment) -> None:
    """A rollup would delete plans, and a reply would go to whom the letter names."""
    sent = {"Content-Type": "x/y", "Ems-Reply-To": "_INBOX.somebody", "X-Other": "1"}
    send(empty, "ems.experiment.submit.evolution", NONSENSE, sent)
    [letter] = letters(empty)
    ended = commands.run("ems", "dlq", "replay", str(letter["seq"]), env=empty.env)
    _, headers = stored(empty, int(ended.out.split()[-1]))
    assert set(headers) == {"Content-Type", "Nats-Msg-Id"}
