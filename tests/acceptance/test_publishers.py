"""Limits on publishers and a deleted manifest, with a real broker and a real worker."""

import json
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.support import stage, wait, whole

LIMIT = 20
NAMES = 60


def unready(worker: whole.Worker) -> dict[str, str]:
    """The problems that /readyz reports."""
    try:
        urllib.request.urlopen(f"http://{worker.http}/readyz", timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            problems: dict[str, str] = json.load(error)["troubles"]
            return problems
    return {}


def move_manifest(directory: Path) -> tuple[Path, Path]:
    """Moves the manifest; returns its old and its new path."""
    [file] = directory.rglob("manifest.db")
    return file, file.rename(file.with_name("aside"))


@pytest.mark.long
async def test_invented_publishers_do_not_evade_the_total_limit(tmp_path: Path) -> None:
    """Plans above the limit are rejected whatever publisher they name, and a known plan is still a duplicate."""
    async with stage.Stage(tmp_path, "--slots", "8", EMS_PLANS_PER_MINUTE_TOTAL=str(LIMIT)) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        plan = json.dumps(whole.plan("known", 1)).encode()
        async with theatre.client() as client:
            jetstream = client.jetstream()
            await jetstream.publish("ems.experiment.submit.known", plan)
            acks = [await jetstream.publish(f"ems.experiment.submit.made-up-{n}", b"{}") for n in range(NAMES)]
            last = await jetstream.publish("ems.experiment.submit.another", plan)

            async def decided() -> bool:
                info = await jetstream.streams_info()
                return any(stream.config.name == "EMS_STATUS" and stream.state.messages > NAMES + 1 for stream in info)

            await wait.until(decided, what="all decisions")
            codes: Counter[str] = Counter()
            for ack in acks:
                message = await jetstream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{ack.seq}")
                codes[json.loads(message.data or b"")["errors"][0]["code"]] += 1
            message = await jetstream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{last.seq}")
            assert json.loads(message.data or b"")["decision"] == "duplicate"
        assert codes["429"] == NAMES - (LIMIT - 1)
        await theatre.ended()
        await theatre.stop()


async def test_a_deleted_manifest_is_reported(tmp_path: Path) -> None:
    """While the manifest's file is missing, /readyz reports it as deleted."""
    async with stage.Stage(tmp_path, "--slots", "8") as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        file, aside = move_manifest(tmp_path)
        await wait.until(lambda: "deleted" in unready(theatre.worker).get("manifest", ""), what="the problem")
        aside.rename(file)
        await wait.until(lambda: unready(theatre.worker) == {}, what="the end of the problem")
        await theatre.stop()
