"""The client's changes with a real nats-server: what it requests, repeats and waits for."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import client, errors
from ems_worker.client import steering
from ems_worker.core.lifecycle.steering import Verb
from tests.support import broker, servers, stub_worker, wait

API = yaml.safe_load((servers.ROOT / "docs" / "asyncapi.yaml").read_text())
Call = Callable[[client.EmsClient], Coroutine[Any, Any, client.Document]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as started:
        yield started


@pytest.fixture
async def other(server: servers.NatsServer) -> AsyncIterator[Client]:
    """The connection of the worker's side."""
    async with stub_worker.connection(server.url) as connection:
        yield connection


@pytest.fixture
async def ems(server: servers.NatsServer) -> AsyncIterator[client.EmsClient]:
    async with client.EmsClient(server.url, request_timeout=5) as connected:
        yield connected


def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"request_id": request["request_id"], "changed": True, "applied": False, "request": request}


COMMON: Any = {"reason": "why", "dry_run": True, "expect_revision": 4, "request_id": "r-1"}


@pytest.mark.parametrize(
    ("verb", "call", "own"),
    [
        ("pause", lambda ems: ems.pause("reef", now=True, **COMMON), {"now": True}),
        ("resume", lambda ems: ems.resume("reef", **COMMON), {}),
        (
            "cancel",
            lambda ems: ems.cancel("reef", drain=True, where="a > 1", **COMMON),
            {"drain": True, "where": "a > 1"},
        ),
        ("retry", lambda ems: ems.retry("reef", where="a > 1", **COMMON), {"where": "a > 1"}),
        (
            "extend",
            lambda ems: ems.extend("reef", plan=b"a: 1", withdraw=True, **COMMON),
            {"plan": "a: 1", "withdraw": True},
        ),
        ("extend", lambda ems: ems.extend("reef", plan={"a": 1}, **COMMON), {"plan": {"a": 1}}),
        (
            "extend",
            lambda ems: ems.extend("reef", replicates=3, samples=8, add={"a": (1, 2)}, **COMMON),
            {"replicates": 3, "samples": 8, "add": {"a": [1, 2]}},
        ),
        (
            "set",
            lambda ems: ems.set("reef", priority=5, max_concurrent=None, max_failed="5%", **COMMON),
            {"priority": 5, "max_concurrent": None, "max_failed": "5%"},
        ),
        ("close", lambda ems: ems.close("reef", **COMMON), {}),
        ("exclude", lambda ems: ems.exclude("reef", where="a > 1", **COMMON), {"where": "a > 1"}),
        ("include", lambda ems: ems.include("reef", where="a > 1", **COMMON), {"where": "a > 1"}),
    ],
)
async def test_a_request_has_the_keys_that_were_given(
    ems: client.EmsClient, other: Client, verb: str, call: Call, own: dict[str, Any]
) -> None:
    """Nothing else is in it, but a limit that is None, and every key is in the published description."""
    await stub_worker.serve(other, verb, echo)
    request = (await call(ems))["request"]
    assert request == {**COMMON, "experiment_id": "reef", **own}
    assert request.keys() <= API["components"]["schemas"][f"{verb}Request"]["properties"].keys()


async def test_every_verb_has_a_method_and_takes_a_group(ems: client.EmsClient, other: Client) -> None:
    """Each request has an id of its own, and the client's own options stay here."""
    methods = {"extend": {"replicates": 2}, "set": {"priority": 1}}
    seen = set()
    for verb in Verb:
        await stub_worker.serve(other, verb, echo)
        method = getattr(ems, verb)
        request = (await method(group="heat", wait=False, timeout=3, dry_run=False, **methods.get(verb, {})))["request"]
        assert request.keys() == {"request_id", "group", *methods.get(verb, {})}
        seen.add(request["request_id"])
    assert len(seen) == len(Verb)


async def test_all_is_neither_an_experiment_nor_a_group(ems: client.EmsClient, other: Client) -> None:
    """A held worker is released by this alone."""
    await stub_worker.serve(other, "resume", echo)
    assert (await ems.resume(all=True, request_id="r-1"))["request"] == {"request_id": "r-1", "all": True}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ems: ems.cancel(), "name an experiment or a group"),
        (lambda ems: ems.cancel("reef", group="heat"), "name an experiment or a group"),
        (lambda ems: ems.resume("reef", all=True), "name an experiment or a group"),
        (lambda ems: ems.set("reef"), "name a limit: max_concurrent, max_failed, priority"),
        (lambda ems: ems.extend("reef", plan=b"\x1f\x8b"), "the plan is not UTF-8 text"),
        (lambda ems: ems.extend("reef", plan="x" * 2_000_000), "the request is larger than the 1,048,576 bytes"),
        (lambda ems: ems.cancel("reef.>"), "no experiment 'reef.>'"),
    ],
)
async def test_a_request_that_makes_no_sense_is_not_sent(ems: client.EmsClient, call: Call, message: str) -> None:
    """The error names what is missing, and there is no worker that it could have come from."""
    with pytest.raises((errors.RequestRefused, errors.NotFound), match=message):
        await call(ems)


async def test_a_request_without_an_answer_is_repeated_with_its_id(server: servers.NatsServer, other: Client) -> None:
    """Three times in all; the worker carries it out once, as the id is the same."""
    seen: list[str] = []

    async def slow(message: Msg) -> None:
        seen.append(json.loads(message.data)["request_id"])
        if len(seen) % 3 == 0 and answers:
            await message.respond(json.dumps({"applied": True}).encode())

    await other.subscribe("ems.api.close", cb=slow)
    await broker.subscribed(other)
    async with client.EmsClient(server.url, request_timeout=0.6) as ems:
        answers = True
        assert await ems.close("reef") == {"applied": True}
        answers = False
        with pytest.raises(errors.NoAnswer, match=r"did not answer"):
            await ems.close("reef")
    assert len(seen) == 6
    assert len(set(seen)) == 2


async def test_a_worker_that_ends_over_a_request_may_have_got_it(server: servers.NatsServer, other: Client) -> None:
    """Nobody answers when the request is repeated, and yet it may be recorded: its id is worth repeating."""

    async def end(_: Msg) -> None:
        await served.unsubscribe()

    served = await other.subscribe("ems.api.close", cb=end)
    await broker.subscribed(other)
    async with client.EmsClient(server.url, request_timeout=0.9) as ems:
        with pytest.raises(errors.NoAnswer, match=r"it may have got the request before"):
            await ems.close("reef")
        with pytest.raises(errors.WorkerUnavailable):
            await ems.close("reef")


@pytest.mark.parametrize("whom", [{"experiment_id": "reef"}, {"group": "heat"}])
async def test_waiting_ends_when_the_worker_says_that_the_change_is_complete(
    ems: client.EmsClient, other: Client, whom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages only make the client ask: neither those of other requests nor a forged one end it."""
    monkeypatch.setattr(steering, "_LOOK_SECONDS", 60)
    asked: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request["request_id"])
        change = {**echo(request), "applied": len(asked) == 3}
        return {"changes": [change, {"changed": False, "applied": False}]} if "group" in request else change

    await stub_worker.serve(other, "cancel", answer)
    waiting = asyncio.create_task(ems.cancel(request_id="r-1", wait=True, **whom))
    for number in (1, 2):
        await wait.until(lambda number=number: len(asked) == number)  # type: ignore[misc]  # mypy can't infer it
        for data in (b'{"request_id": "other", "applied": true}', b"[]", b'{"request_id": "r-1"}', b"no json"):
            await other.publish("ems.experiment.change.reef", data)
        await broker.subscribed(other)
        assert len(asked) == number
        await other.publish("ems.experiment.change.reef", b'{"request_id": "r-1", "applied": true}')
    document = await waiting
    assert asked == ["r-1"] * 3
    assert document.get("changes", [document])[0]["applied"]


async def test_waiting_asks_again_after_a_while(
    ems: client.EmsClient, other: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message may have come while the connection was lost."""
    monkeypatch.setattr(steering, "_LOOK_SECONDS", 0.05)
    answers = iter([False, False, True])
    await stub_worker.serve(other, "cancel", lambda request: {**echo(request), "applied": next(answers)})
    assert (await ems.cancel("reef", wait=True))["applied"]


async def test_waiting_has_an_end(ems: client.EmsClient, other: Client) -> None:
    """After the timeout the change goes on; a dry run and a change without effect are complete at once."""
    await stub_worker.serve(other, "cancel", echo)
    await stub_worker.serve(other, "pause", lambda request: {**echo(request), "changed": False})
    with pytest.raises(errors.NoAnswer, match=r"cancel was not complete within 0\.1 s; it continues"):
        await ems.cancel("reef", wait=True, timeout=0.1)
    assert (await ems.cancel("reef", wait=True, dry_run=True))["request"]["dry_run"]
    assert not (await ems.pause("reef", wait=True))["changed"]


async def test_a_change_that_turns_out_to_be_refused_is_an_error(ems: client.EmsClient, other: Client) -> None:
    """A long plan is examined after the reply. Of a group, each member's document says whether it is refused."""
    late = {"changed": False, "refused": True, "reason": "the plan differs in base_config"}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        refused = {**echo(request), **late}
        return {"changes": [refused]} if "group" in request else refused

    await stub_worker.serve(other, "extend", answer)
    with pytest.raises(errors.RequestRefused, match="differs in base_config"):
        await ems.extend("reef", replicates=3, wait=True)
    assert (await ems.extend(group="reefs", replicates=3))["changes"][0]["refused"]
