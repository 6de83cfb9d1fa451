"""Pages of commands: their files, commands and output, from top to bottom, on a platform of `ems up`."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from ems_worker import client
from tests.support import commands, servers, wait
from tests.support.local_platform import up

# A block of code, or a condition that the next block waits for.
_PARTS = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- until ([\w-]+): ([^\n]*) -->$", re.M | re.S)
_FILE = re.compile(r"# ([\w.]+)\n")
_PLATFORM = re.compile(r"`ems up --slots (\d+) --simulator '(.*)'`")
# How many commands a page has at least.
PAGES = {"steering": 30, "keeping": 15}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAGES)
async def test_its_commands_do_what_it_shows(swept: Path, name: str) -> None:
    """Each command prints what stands below it; `...` stands for anything."""
    page = (servers.ROOT / "docs" / f"{name}.md").read_text()
    found = _PLATFORM.search(page)
    assert found is not None
    platform = await up(swept, slots=int(found[1]), simulator=found[2], before=f"os.chdir({str(swept)!r})")
    address = platform.addresses["nats_url"]
    env = commands.environment(NATS_URL=address, COLUMNS="80")
    env["PATH"] = f"{commands.SCRIPTS}{os.pathsep}{env['PATH']}"
    ran, wrong = 0, []
    try:
        async with client.EmsClient(address) as ems:
            for language, text, experiment_id, condition in _PARTS.findall(page):
                if condition:
                    await until(ems, experiment_id, condition)
                elif language == "console":
                    for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, re.M):
                        printed = await output(command, swept, env)
                        ran += 1
                        if not re.fullmatch(pattern(shown), printed):
                            wrong.append(f"$ {command}\n{printed}is not\n{shown}")
                elif named := _FILE.match(text):
                    (swept / named[1]).write_text(text.replace("nats://127.0.0.1:4222", address))
    finally:
        await platform.program.stop(grace=30)
    assert not wrong, "\n".join(wrong)
    assert ran >= PAGES[name]


async def until(ems: client.EmsClient, experiment_id: str, condition: str) -> None:
    """Waits until a condition on the state and the counts of an experiment holds."""

    async def holds() -> bool:
        status = await ems.get(experiment_id)
        return bool(eval(condition, {"__builtins__": {}}, {"state": status["state"], **status["counts"]}))

    await wait.until(holds, timeout=60, what=f"{experiment_id}: {condition}")


async def output(command: str, directory: Path, env: dict[str, str]) -> str:
    """Both streams of a shell command. It succeeds, or prints an error."""
    process = await asyncio.create_subprocess_shell(
        command,
        cwd=directory,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    text = out.decode()
    assert (process.returncode == 0) == (not text.startswith("error:")), (command, text)
    return text


def pattern(shown: str) -> str:
    """An expression for output that is like this."""
    return re.escape(shown).replace(re.escape("...\n"), r"(?s:.*)\n").replace(re.escape("..."), ".*")
