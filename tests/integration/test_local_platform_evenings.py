"""Ctrl-C of `ems up` costs a running job no attempt, and says what will start again."""

import functools
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from ems_worker import client
from tests.support import processes, wait
from tests.support.local_platform import plan, up


async def test_three_evenings_cost_no_attempt(swept: Path) -> None:
    """A run that Ctrl-C ends three times completes as its first attempt, after a restart of the worker as well."""
    script = (
        f"""echo start >> {swept}/starts; until [ -e {swept}/go ]; do sleep 0.1; done; echo '{{"metrics": {{}}}}'"""
    )
    (swept / "simulator.sh").write_text(script)
    simulator = f"sh {swept}/simulator.sh"

    def started(times: int) -> bool:
        path = swept / "starts"
        return path.exists() and len(path.read_text().split()) == times

    for evening in range(3):
        platform = await up(swept, simulator=simulator, slots=1)
        if evening == 0:
            async with client.EmsClient(platform.addresses["nats_url"]) as ems:
                await ems.publish(plan())
        await wait.until(functools.partial(started, evening + 1), timeout=30, what="the run to start")
        platform.program.signal(signal.SIGINT)
        assert await platform.program.wait(timeout=40) == 0, platform.program.last_words()
        said = platform.program.log.read_text()
        assert said.count("interrupted 1 run, which the next start will start again") == evening + 1
        assert said.count("starting 1 run again that the last stop interrupted") == evening
        assert processes.mentioning(str(swept)) == {}
    platform = await up(swept, simulator=simulator, slots=1)
    (swept / "go").touch()
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        assert (await ems.wait("small"))["state"] == "completed"
    with closing(sqlite3.connect(platform.addresses["manifest"])) as manifest:
        rows = manifest.execute("SELECT point, attempt, state FROM v_jobs ORDER BY point").fetchall()
    assert rows == [(0, 1, "completed"), (1, 1, "completed")]
    await platform.program.stop(grace=30)
