"""The NATS service as its clients see it: JSON in, JSON out, pages by cursor, errors with a code and a message."""

import json
from typing import Any

import pytest
from nats.aio.client import Client

from tests.support import manifests, schema_checks
from tests.support.asking import ask, run_all, send
from tests.support.desk import Desk, plan


async def test_validate_decides_without_recording(desk: Desk, client: Client) -> None:
    """The decision is that of intake and has every problem, but nothing is recorded."""
    good = await ask(client, "validate", **plan())
    assert (good["decision"], good["jobs"], good["submission"]) == ("accepted", 2, None)
    bad = await ask(client, "validate", **plan(points=2000))
    assert [problem["code"] for problem in bad["errors"]] == ["too_many_jobs"]
    unreadable = await send(client, "validate", b"\xff")
    assert unreadable["errors"][0]["code"] == "unreadable"
    assert await desk.manifest.experiment("reef") is None


async def test_experiments_are_listed_newest_first_page_by_page(desk: Desk, client: Client) -> None:
    """Each experiment is listed once. The list can be filtered by group or state."""
    for name in ("first", "second", "third"):
        await run_all(desk, name, points=1)
    await desk.begin(plan("last", group="study"))
    seen, cursor = [], None
    while True:
        page = await ask(client, "list", limit=2, cursor=cursor)
        seen += [experiment["experiment_id"] for experiment in page["experiments"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == ["last", "third", "second", "first"]
    grouped = await ask(client, "list", group="study")
    assert [experiment["experiment_id"] for experiment in grouped["experiments"]] == ["last"]
    for which in ({"like": "la"}, {"like": "last"}, {"name": "AS", "since_at": "2020-01-01T01:00:00+01:00"}):
        found = await ask(client, "list", **which)
        assert [experiment["experiment_id"] for experiment in found["experiments"]] == ["last"], which
    assert (await ask(client, "list", since_at="2999-01-01T00:00:00Z"))["experiments"] == []
    running = await ask(client, "list", state="running")
    assert [experiment["experiment_id"] for experiment in running["experiments"]] == ["last"]


async def test_get_returns_running_and_ended_experiments(desk: Desk, client: Client) -> None:
    """Both have the same document, with the facts of the plan."""
    live = await desk.begin(plan(points=2, description="hot"))
    first, second = await desk.launch(live)
    await desk.hear("completed", first, metrics={"population": 3})
    now = await ask(client, "get", experiment_id="reef")
    assert (now["state"], now["counts"]["completed"], now["counts"]["submitted"]) == ("running", 1, 1)
    assert (now["description"], now["points"], now["parameters"]) == ("hot", 2, {"food": "food"})
    await desk.hear("completed", second, metrics={"population": 5})
    await desk.report("reef")
    assert desk.ledger.experiments() == []
    over = await ask(client, "get", experiment_id="reef")
    assert (over["state"], over["counts"]["completed"], over["best"]["point"]) == ("completed", 2, 1)
    assert over["schema"] == now["schema"] == "ems.status.v1"


async def test_get_returns_labels_and_units(desk: Desk, client: Client) -> None:
    """Of the parameters and metrics that have one, also after an extension."""
    food = {"values": [1], "label": "food of a day", "unit": "kg"}
    metrics = [{"name": "population", "label": "fish"}, {"name": "heat", "unit": "K"}, "age"]
    given = plan(parameter_space={"food": food}, metrics_to_track=metrics)
    await desk.begin(given)
    expected = {
        "parameters": {"food": {"label": "food of a day", "unit": "kg"}},
        "metrics": {"population": {"label": "fish"}, "heat": {"unit": "K"}},
    }
    before = await ask(client, "get", experiment_id="reef")
    schema_checks.check(before)
    assert before["headings"] == expected
    await desk.steer("extend", "reef", add={"food": [2]})
    after = await ask(client, "get", experiment_id="reef")
    assert (after["plan_version"], after["headings"]) == (2, expected)


async def test_get_returns_the_limits_in_force_and_the_latest_changes(desk: Desk, client: Client) -> None:
    """Limits are those of the plan, with those that `set` put in place of some. The last change is the first."""
    await desk.begin(plan(limits={"max_failed": "12.5%", "priority": 2}))
    before = await ask(client, "get", experiment_id="reef")
    schema_checks.check(before)
    assert (before["plan_version"], before["overrides"], before["changes"]) == (1, {}, [])
    assert before["limits"] == {
        "max_concurrent": None,
        "run_timeout_seconds": None,
        "max_attempts": 3,
        "retry_on": ["infrastructure", "lost", "timeout"],
        "max_failed": "12.5%",
        "fail_fast": False,
        "priority": 2,
    }
    await desk.steer("set", max_failed=7, max_concurrent=3, request_id="r-1")
    await desk.steer("pause", reason="lunch", request_id="r-2")
    paused = await ask(client, "get", experiment_id="reef")
    schema_checks.check(paused)
    assert (paused["state"], paused["pauses"], paused["reason"]) == ("paused", ["person"], "paused by a person")
    limits = paused["limits"]
    assert (limits["max_failed"], limits["max_concurrent"], limits["priority"]) == (7, 3, 2)
    assert paused["overrides"] == {"max_failed": 7, "max_concurrent": 3}
    assert [change["request_id"] for change in paused["changes"]] == ["r-2", "r-1"]
    assert (paused["changes"][0]["reason"], paused["changes"][0]["applied"]) == ("lunch", True)
    await desk.steer("cancel", request_id="r-3")
    await desk.reporter.flush()
    over = await ask(client, "get", experiment_id="reef")
    schema_checks.check(over)
    assert (over["state"], over["limits"], over["settled"], over["pauses"]) == ("cancelled", None, True, [])
    assert over["changes"][0]["so_far"]["counts"] == {"pending": {"cancelled": 2}}


async def test_get_returns_a_limited_number_of_changes(desk: Desk, client: Client) -> None:
    """A long plan in one of them is replaced by its digest."""
    await desk.begin(plan())
    for _ in range(8):
        await desk.steer("pause", reason="x" * 100)
        await desk.steer("resume")
    now = await ask(client, "get", experiment_id="reef")
    assert len(now["changes"]) == 10
    assert now["changes"][0]["verb"] == "resume"


async def test_points_are_listed_in_pages(desk: Desk, client: Client) -> None:
    """Each point has its aggregates."""
    await run_all(desk, points=3, replicates=2)
    first = await ask(client, "points", experiment_id="reef", limit=2)
    assert [point["metrics"]["population"]["n"] for point in first["points"]] == [2, 2]
    rest = await ask(client, "points", experiment_id="reef", limit=2, cursor=first["cursor"])
    assert ([point["point"] for point in rest["points"]], rest["cursor"]) == ([2], None)


async def test_results_continue_after_a_sequence_number(desk: Desk, client: Client) -> None:
    """The replies contain the published results."""
    await run_all(desk, points=5)
    first = await ask(client, "results", experiment_id="reef", limit=3)
    assert (len(first["results"]), first["after_seq"], first["more"]) == (3, 3, True)
    rest = await ask(client, "results", experiment_id="reef", after_seq=3)
    assert rest["more"] is False
    assert first["results"] + rest["results"] == desk.broker.of("result")
    none = await ask(client, "results", experiment_id="reef", after_seq=5)
    assert (none["results"], none["after_seq"]) == ([], 5)


async def test_a_configuration_has_the_same_bytes_as_in_the_start_command(desk: Desk, client: Client) -> None:
    """A long configuration is returned in parts, also after the experiment was unloaded."""
    base = {"food": 1, "series": [index / 7 for index in range(40_000)]}
    live = await desk.begin(plan(points=1, base_config=base))
    [name] = await desk.launch(live)
    [[command]] = desk.orchestrator.calls
    for _ in range(2):
        text, offset = "", 0
        while True:
            part = await ask(client, "config", simulation_id=name, offset=offset)
            text += part["config"]
            assert part["config_sha"] == part["computed_sha"] == command.config_sha
            if (offset := part["next_offset"]) is None:
                break
        assert text.encode() == command.config
        await desk.hear("completed", name)
        await desk.report("reef")
    assert desk.ledger.experiments() == []


@pytest.mark.parametrize(
    ("verb", "request_", "code", "message"),
    [
        ("get", {"experiment_id": "unknown"}, "404", "there is no experiment unknown"),
        ("jobs", {"experiment_id": "unknown"}, "404", "there is no experiment"),
        ("points", {"experiment_id": "unknown"}, "404", "there is no experiment"),
        ("results", {"experiment_id": "unknown"}, "404", "there is no experiment"),
        ("config", {"simulation_id": "nonsense"}, "404", "there is no run nonsense"),
        ("config", {"simulation_id": "reef-p000099-r000-a1"}, "404", "there is no run"),
        ("config", {"simulation_id": "reef-p000000-r000-a9"}, "404", "there is no run"),
        ("get", {}, "400", "experiment_id: is missing"),
        ("get", {"experiment_id": "reef", "more": 1}, "400", "more: there is no such key"),
        ("jobs", {"experiment_id": "reef", "limit": 101}, "400", "limit: "),
        ("jobs", {"experiment_id": "reef", "limit": 0}, "400", "limit: "),
        ("jobs", {"experiment_id": "reef", "state": "happy"}, "400", "state: "),
        ("jobs", {"experiment_id": "reef", "cursor": "1.2"}, "400", "cursor"),
        ("list", {"cursor": "x"}, "400", "cursor"),
        ("list", {"cursor": "9" * 30}, "400", "cursor"),
        ("list", {"state": "asleep"}, "400", "state: "),
        ("list", {"since_at": "2026-01-01"}, "400", "since_at: "),
        ("jobs", {"experiment_id": "reef", "replicate": 1}, "400", "replicate: name the point too"),
        ("points", {"experiment_id": "reef", "cursor": "-1"}, "400", "cursor"),
    ],
)
async def test_an_error_has_a_code_and_a_message(
    desk: Desk, client: Client, verb: str, request_: dict[str, Any], code: str, message: str
) -> None:
    """The code is like that of HTTP, and the message names the problem."""
    await desk.begin(plan())
    answer = await ask(client, verb, **request_)
    assert answer.get("code") == code, answer
    assert message in answer["message"]


async def test_a_request_that_is_no_json_object_is_refused(client: Client) -> None:
    """Neither invalid JSON nor another JSON value is a request."""
    for data in (b"{", b"[]", b"\xff"):
        assert (await send(client, "get", data))["code"] == "400"


async def test_integers_of_any_size_are_handled(desk: Desk, client: Client) -> None:
    """A sequence number of more than 64 bits is refused, and an offset beyond a configuration returns no text."""
    await run_all(desk, points=1)
    answer = await ask(client, "results", experiment_id="reef", after_seq=2**70)
    assert answer["code"] == "400"
    assert "after_seq: " in answer["message"]
    page = await ask(client, "config", simulation_id="reef-p000000-r000-a1", offset=2**70)
    assert (page["config"], page["next_offset"]) == ("", None)


async def test_an_experiment_has_a_status_from_the_moment_it_is_recorded(desk: Desk, client: Client) -> None:
    """It gets into memory only a moment later."""
    await manifests.accepted(desk.manifest, manifests.spec())
    [listed] = (await ask(client, "list"))["experiments"]
    shown = await ask(client, "get", experiment_id="reef")
    for status in (listed, shown):
        assert (status["experiment_id"], status["state"], status["reason"]) == ("reef", "accepted", None)
        assert status["counts"]["pending"] == status["total"] == manifests.spec().jobs


async def test_a_plan_is_returned_as_it_was_sent(desk: Desk, client: Client) -> None:
    """Byte for byte, each version, and the base configuration that was accepted with it."""
    text = json.dumps(plan(points=2), indent=1).encode() + b"\n\n"
    await desk.submit(text)
    schema_checks.check(answer := await ask(client, "plan", experiment_id="reef"))
    assert (answer["text"].encode(), answer["version"], answer["next_offset"]) == (text, 1, None)
    base = await ask(client, "plan", experiment_id="reef", part="base")
    assert json.loads(base["text"]) == {"food": 1, "heat": 1.5, "name": "base"}
    rest = await ask(client, "plan", experiment_id="reef", offset=10)
    assert rest["text"].encode() == text[10:]
    assert (await ask(client, "plan", experiment_id="reef", version=2))["code"] == "404"
    assert (await ask(client, "plan", experiment_id="other"))["code"] == "404"


async def test_a_long_plan_comes_in_parts(desk: Desk, client: Client) -> None:
    """Each part fits into a message, and says where the next one begins."""
    base = {"food": 1, "name": "ö" * 300_000}
    text = json.dumps(plan(base_config=base), ensure_ascii=False)
    await desk.submit(text.encode())
    first = await ask(client, "plan", experiment_id="reef")
    last = await ask(client, "plan", experiment_id="reef", offset=first["next_offset"])
    assert first["text"] + last["text"] == text
    assert last["next_offset"] is None
