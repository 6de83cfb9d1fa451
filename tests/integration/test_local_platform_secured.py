"""`ems up --secured`: each part has only the rights of its role, and the commands of the user work as usual."""

from pathlib import Path

import pytest

from tests.support import commands, processes
from tests.support.local_platform import plan, up


@pytest.mark.long
async def test_the_rights_of_the_roles_suffice_for_commands_and_plans(swept: Path) -> None:
    """A plan completes, all commands succeed, and the broker logs no violation of permissions."""
    platform = await up(swept, secured=True)
    url = platform.addresses["nats_url"]
    assert url.startswith("tls://127.0.0.1:")
    env = commands.environment(EMS_SERVER=url)
    (swept / "plan.json").write_bytes(plan(num_replicates_per_run=2))
    published = commands.run("ems-publish", str(swept / "plan.json"), "--wait", "--publisher", "reef", env=env)
    assert published.code == 0, published.err
    for arguments in (("ls",), ("show", "small"), ("export", "small"), ("dlq", "ls")):
        done = commands.run("ems", *arguments, env=env)
        assert done.code == 0, (arguments, done.err)
    log = (swept / "data" / "nats" / "nats-server.log").read_text()
    assert "iolation" not in log, [line for line in log.splitlines() if "iolation" in line]
    await platform.program.stop(grace=30)
    assert platform.program.exit_code == 0, platform.program.last_words()
    assert processes.mentioning(str(swept)) == {}
