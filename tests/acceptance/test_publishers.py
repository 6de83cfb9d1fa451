"""What a flood of plans costs the others, with a real broker and a real worker."""

import json
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from tests.support import stage, wait, whole

LIMIT = 20
NAMES = 60


def unready(worker: whole.Worker) -> dict[str, str]:
    """What /readyz says is wrong."""
    try:
        urllib.request.urlopen(f"http://{worker.http}/readyz", timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            found: dict[str, str] = json.load(error)["troubles"]
            return found
    return {}


def put_aside(directory: Path) -> tuple[Path, Path]:
    """The manifest, moved away: where it was, and where it is."""
    [file] = directory.rglob("manifest.db")
    return file, file.rename(file.with_name("aside"))


async def test_names_that_are_made_up_do_not_get_past_the_limit(tmp_path: Path) -> None:
    """All that are over it are told so; a plan that is known gets its decision all the same."""
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
                return any(one.config.name == "EMS_STATUS" and one.state.messages > NAMES + 1 for one in info)

            await wait.until(decided, what="all decisions")
            found: Counter[str] = Counter()
            for ack in acks:
                message = await jetstream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{ack.seq}")
                found[json.loads(message.data or b"")["errors"][0]["code"]] += 1
            message = await jetstream.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{last.seq}")
            assert json.loads(message.data or b"")["decision"] == "duplicate"
        assert found["429"] == NAMES - (LIMIT - 1)
        await theatre.ended()
        await theatre.stop()


async def test_a_manifest_that_is_deleted_is_said(tmp_path: Path) -> None:
    """By the probe of a worker that runs, and no longer once it is back."""
    async with stage.Stage(tmp_path, "--slots", "8") as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        file, aside = put_aside(tmp_path)
        await wait.until(lambda: "deleted" in unready(theatre.worker).get("manifest", ""), what="the trouble")
        aside.rename(file)
        await wait.until(lambda: unready(theatre.worker) == {}, what="its end")
        await theatre.stop()
