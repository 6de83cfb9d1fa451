"""`ems up --secured`: each part has the rights of its role alone, and its user's commands work as they do without."""

from pathlib import Path

import pytest

from tests.support import commands, processes
from tests.support.local_platform import plan, up


@pytest.mark.long
async def test_commands_and_a_plan_need_no_more_than_the_roles_have(swept: Path) -> None:
    """A plan that goes by way of the object store runs to its end; the broker has refused nobody anything."""
    here = await up(swept, secured=True)
    url = here.addresses["nats_url"]
    assert url.startswith("tls://127.0.0.1:")
    env = commands.environment(EMS_SERVER=url)
    (swept / "plan.json").write_bytes(plan(num_replicates_per_run=2))
    published = commands.run("ems-publish", str(swept / "plan.json"), "--wait", "--publisher", "reef", env=env)
    assert published.code == 0, published.err
    for words in (("ls",), ("show", "small"), ("export", "small"), ("dlq", "ls")):
        done = commands.run("ems", *words, env=env)
        assert done.code == 0, (words, done.err)
    log = (swept / "data" / "nats" / "nats-server.log").read_text()
    assert "iolation" not in log, [line for line in log.splitlines() if "iolation" in line]
    await here.program.stop(grace=30)
    assert here.program.exit_code == 0, here.program.last_words()
    assert processes.mentioning(str(swept)) == {}
