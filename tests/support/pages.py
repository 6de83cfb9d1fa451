"""Carries out a page of the documentation: its files are written, its commands run, and what they print is compared."""

import asyncio
import os
import re
from pathlib import Path

from ems_worker import client
from tests.support import commands, servers, wait

# A block of code, or a condition that the next block waits for.
_PARTS = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- until ([\w-]+): ([^\n]*) -->$", re.M | re.S)
# The first line of a block that is a file has the file's name.
_FILE = re.compile(r"# ([\w.-]+)\n")
# What `ems up` says.
_STARTED = re.compile(r"^NATS +(\S+)$", re.M)
_DEFAULT_ADDRESS = "nats://127.0.0.1:4222"


def text(name: str) -> str:
    """The content of a page, such as `docs/steering.md`."""
    return (servers.ROOT / name).read_text()


async def carry_out(page: str, directory: Path, address: str | None) -> int:
    """Runs the commands of a page in a directory, against the broker at an address; returns their number.

    Each command must print what stands below it, in which `...` stands for anything. Files that the page shows are
    written first. Without an address it is that of the platform that the page itself starts.
    """
    env = commands.environment(COLUMNS="80")
    env["PATH"] = f"{commands.SCRIPTS}{os.pathsep}{env['PATH']}"
    ran, wrong = 0, []
    for language, block, experiment_id, condition in _PARTS.findall(page):
        if address is not None:
            env["NATS_URL"] = address
        if condition:
            assert address is not None
            await _until(address, experiment_id, condition)
        elif language == "console":
            for command, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.M):
                printed = await _output(command, directory, env)
                ran += 1
                if not re.fullmatch(_pattern(shown), printed):
                    wrong.append(f"$ {command}\n{printed}is not\n{shown}")
                if (started := _STARTED.search(printed)) is not None:
                    env["NATS_URL"] = address = started[1]
        elif named := _FILE.match(block):
            (directory / named[1]).write_text(block.replace(_DEFAULT_ADDRESS, address or _DEFAULT_ADDRESS))
    assert not wrong, "\n".join(wrong)
    return ran


async def _until(address: str, experiment_id: str, condition: str) -> None:
    """Waits until a condition on the state and the counts of an experiment holds."""

    async with client.EmsClient(address) as ems:

        async def holds() -> bool:
            status = await ems.get(experiment_id)
            return bool(eval(condition, {"__builtins__": {}}, {"state": status["state"], **status["counts"]}))

        await wait.until(holds, timeout=60, what=f"{experiment_id}: {condition}")


async def _output(command: str, directory: Path, env: dict[str, str]) -> str:
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
    printed = out.decode()
    assert (process.returncode == 0) == (not printed.startswith("error:")), (command, printed)
    return printed


def _pattern(shown: str) -> str:
    """An expression for output that is like this."""
    return re.escape(shown).replace(re.escape("...\n"), r"(?s:.*)\n").replace(re.escape("..."), ".*")
