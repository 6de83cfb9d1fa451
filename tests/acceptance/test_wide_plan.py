"""A plan whose documents are larger than a message is published, and doesn't delay other experiments."""

import gzip
import json
import signal
from pathlib import Path

import pytest

from tests.support import schema_checks, stage, whole

# Each value is below 4 KB and the start command below 4 MiB, but the result is above the 1 MiB of a message.
PARAMS = {f"p{i}": "x" * 3900 for i in range(300)}
PLAN = {
    "experiment_id": "wide",
    "base_config": dict.fromkeys(PARAMS, "a"),
    "runs": [{"params_override": PARAMS}],
    "metrics_to_track": [{"name": "population", "goal": "maximize"}],
}


@pytest.mark.long
async def test_documents_larger_than_a_message_are_shortened(tmp_path: Path) -> None:
    """Result, point and status name what was shortened, and another experiment's documents are complete."""
    async with stage.Stage(tmp_path) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        async with theatre.client() as client:
            ack = await client.jetstream().publish("ems.experiment.submit", gzip.compress(json.dumps(PLAN).encode()))
            theatre.acked[ack.seq] = PLAN
        await theatre.publish(whole.plan("narrow", 2))
        await theatre.ended()
        server = theatre.broker.url
        status = await whole.ended(server, "wide")
        [result] = await whole.stored(server, "ems.experiment.result.wide")
        [point] = await whole.stored(server, "ems.experiment.point.wide")
        for document, name in ((status, "best.params"), (result, "params"), (point, "params")):
            schema_checks.check(document)
            assert document["shortened"] == [name]
        assert (status["state"], status["best"]["params"]) == ("completed", point["params"])
        assert result["params"] == point["params"]
        assert result["params"]["p299"]["bytes"] == 3902
        assert "shortened" not in await whole.ended(server, "narrow")
        assert not [line for line in theatre.worker.lines() if line["event"] == "report.delayed"]
        theatre.worker.signal(signal.SIGTERM)
        assert await theatre.worker.wait(15) == 0
