"""Any events on the bus, in any order and any number of times: each job ends as its runs did."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ems_worker.adapters import event_codec
from ems_worker.core import ids
from ems_worker.local.orchestrator import events, model
from tests.support import invariants, oracle, stage, wait, whole

# The results of runs. The orchestrator ends none of them: the test publishes the events in its place.
FAILURES = oracle.Failures.parse(["*-p00000[1-4]-r000-a1:infrastructure", "*-p000005-r001-a*:simulation"])
POINTS, REPLICATES = 10, 2
# Bytes that are no valid event. Each has a subject of its own, by the last token.
GARBAGE = [b"", b"\xff\xfe\x00", b"{", b"[]", b'{"metrics": {}}', b'{"simulation_id": 5}', b"\x0a\x03abc", b"null"]


def plan(experiment_id: str, **more: Any) -> dict[str, Any]:
    return whole.plan(experiment_id, POINTS, REPLICATES, limits={"max_attempts": 2, "max_failed": 1}, **more)


def names(experiment_id: str) -> Iterator[str]:
    """The simulation ids of all runs, which follow from the plan."""
    for point in range(POINTS):
        for replicate in range(REPLICATES):
            first = ids.simulation_id(experiment_id, point, replicate, 1)
            yield first
            if FAILURES.outcome(first).error_kind is model.ErrorKind.INFRASTRUCTURE:
                yield ids.simulation_id(experiment_id, point, replicate, 2)


def messages_of(name: str, rng: random.Random) -> list[tuple[str, bytes]]:
    """The events of a run in random order, some of them twice, in both encodings."""
    outcome = FAILURES.outcome(name)
    began = 1_760_000_000_000_000_000
    run = model.LocalRun(name, outcome.state, "", "", False, began, began + 1, outcome, oracle.MODEL_VERSION)
    said = [(events.STARTED, orjson.dumps({"simulation_id": name})), _bytes(events.started(run))]
    said += [_bytes(events.ended(run)), _bytes(events.ended(run))]
    if name.startswith("late-"):
        # The score of these runs comes only from the analysis layer.
        said = [message for message in said if message[0] == events.STARTED]
        metrics = oracle.metrics(name)
        if outcome.error_kind is None:
            said += 2 * [_json(events.COMPLETED, name, metrics={"population": metrics["population"]})]
            said += 2 * [_json("sim.run_metrics", name, metrics={"score": metrics["score"]})]
        else:
            said += 2 * [_json(events.FAILED, name, error_kind=outcome.error_kind.value)]
    return rng.sample(said, k=len(said))


def _bytes(event: model.Event) -> tuple[str, bytes]:
    return event.subject, event.body


def _json(subject: str, name: str, **more: Any) -> tuple[str, bytes]:
    return subject, orjson.dumps({"simulation_id": name, **more})


async def test_each_job_ends_as_its_runs_did_after_events_in_any_order(tmp_path: Path) -> None:
    """Events are duplicated, shuffled, before their plan, of unknown runs, malformed, and contradicting."""
    seed = int(os.environ.get("EMS_CHAOS_SEED") or random.randrange(2**32))
    print(f"EMS_CHAOS_SEED={seed}")
    rng = random.Random(seed)
    async with stage.Stage(tmp_path, "--slots", "8", "--hold", "*") as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        runs = [name for experiment in ("plain", "late") for name in names(experiment)]
        said = [message for name in runs for message in messages_of(name, rng)]
        said += [_json(rng.choice((events.STARTED, events.COMPLETED)), f"other-{n}") for n in range(30)]
        said += [_json(events.COMPLETED, "plain-p000099-r000-a1"), _json(events.STARTED, "plain-p000000-r000-a9")]
        garbage = [(f"{events.COMPLETED}.{n}", data) for n, data in enumerate(GARBAGE)]
        rng.shuffle(said)
        early = len(said) // 3
        async with theatre.client() as client:

            async def publish(messages: list[tuple[str, bytes]]) -> None:
                for subject, data in messages:
                    # The test stands in for the orchestrator, and so writes to its log.
                    if subject in (events.COMPLETED, events.FAILED):
                        name, _ = event_codec.decode(subject, data)
                        if name in runs:
                            with theatre.oracle.starts.open("a") as log:
                                log.write(f"ended {name}\n")
                    await client.jetstream().publish(subject, data)

            await publish(said[:early])
            await theatre.publish(plan("plain"))
            tracked = ["population", {"name": "score", "from": "event", "timeout_seconds": 60}]
            await theatre.publish(plan("late", metrics_to_track=tracked))
            await publish(said[early : 2 * early] + garbage)
            # The worker dies, and another one is started.
            await theatre.worker.kill()
            await theatre.give_back()
            theatre.worker.start()
            await publish(said[2 * early :])
            await theatre.ended()
            contradictions = []
            for name in runs[::3]:
                if FAILURES.outcome(name).error_kind is None:
                    contradictions.append(_json(events.FAILED, name, error_kind="simulation"))
                else:
                    contradictions.append(_json(events.COMPLETED, name, metrics={"population": 1}))
            await publish(contradictions)
            dead = len(GARBAGE) + len(contradictions)

            async def dead_lettered() -> bool:
                return (await client.jetstream().stream_info("EMS_DLQ")).state.messages >= dead

            await wait.until(dead_lettered, what=f"{dead} dead letters")
        await theatre.stop()
        await theatre.check(invariants.Expected(FAILURES, dead=dead))
