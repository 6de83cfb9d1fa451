"""A message that kills the worker becomes a dead letter, and healthy messages beside it don't."""

from pathlib import Path

import pytest

from ems_worker.adapters.jetstream import consumers
from ems_worker.service.base import poison
from tests.support import invariants, stage, whole

HEALTHY = 20


async def fetched_in_vain(theatre: stage.Stage, stream: str, consumer: str, times: int) -> None:
    """Fetches all messages this many times without acknowledging them, like workers that die."""
    async with theatre.client() as client:
        reader = await client.jetstream().pull_subscribe_bind(consumer, stream)
        for _ in range(times):
            waiting = (await reader.consumer_info()).num_pending or 0
            messages = await reader.fetch(max(waiting, HEALTHY), timeout=5)
            for message in messages:
                await message.nak()
            await client.flush()
        await reader.unsubscribe()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["event", "plan"])
async def test_only_the_message_that_kills_the_worker_becomes_a_dead_letter(tmp_path: Path, kind: str) -> None:
    """It does so after three deaths of the worker. Healthy messages with as many deliveries are processed."""
    points = {"event": "track.read@.poison", "plan": "accept.read@.poison"}
    expected = invariants.Expected(dead=1)
    async with stage.Stage(tmp_path, "--slots", "8", EMS_PLANS_PER_MINUTE="", EMS_PLANS_PER_MINUTE_TOTAL="") as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.stop()
        async with theatre.client() as client:
            jetstream = client.jetstream()
            for number in range(HEALTHY):
                if number == HEALTHY // 2:
                    if kind == "event":
                        await jetstream.publish("sim.run_completed.poison", b'{"simulation_id": "any"}')
                    else:
                        await jetstream.publish("ems.experiment.submit.poison", b"{}")
                if kind == "event":
                    await jetstream.publish("sim.run_started", b'{"simulation_id": "other-%d"}' % number)
                else:
                    await theatre.publish(whole.plan(f"healthy-{number}", 1))
        names = {"event": ("SIM_EVENTS", consumers.EVENTS), "plan": ("EMS_PLANS", consumers.PLANS)}
        await fetched_in_vain(theatre, *names[kind], poison.SUSPECTED_DELIVERIES - 1)
        theatre.worker.arm(points[kind])
        for _ in range(poison.MAX_DEATHS):
            theatre.worker.start()
            await theatre.worker.died()
            theatre.check_now(expected)
            await theatre.give_back()
        # The crash point is still armed: the message isn't read any more.
        theatre.worker.start()
        await theatre.publish(whole.plan("after", 4))
        await theatre.ended()
        await theatre.stop()
        evidence = await theatre.check(expected)
        [letter] = evidence.dead
        assert letter.subject == f"ems.dlq.{kind}"
        assert "died 3 times" in str(letter.headers)
