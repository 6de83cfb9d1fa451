"""Random stories: plans, every verb, kills, restarts and restores, against the shipped worker from the outside.

`python -m tests.support.stories --seed 7 --stories 20` plays the stories 7 to 26 and prints a line for each. The seed
determines what is done; the timing of the processes does not repeat exactly. `story_rules` says what must hold.
"""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support import stage, story_rules, wait
from tests.support.story_desk import Desk

FAILURES = ("*-p000003-r*-a1:infrastructure", "*-p00000[57]-r000-a*:simulation", "*-p000006-r*-a*:infeasible")
# Runs that never end by themselves: a time limit or a STOP ends them.
ENDLESS = "*-p000002-r*-a1"
# After the last fault: half a minute until the broker redelivers what a dead worker had fetched, and then the work.
BOUND_SECONDS = 75.0
CRASHES = (
    *("steering.recorded", "steering.judged", "steering.applied", "steering.publishing", "steering.published"),
    *("dispatch.claimed", "dispatch.answered", "dispatch.settled", "track.read", "track.recorded", "expand.chunk"),
    *("limits.marked", "limits.stopped", "ledger.concluding", "ledger.concluded", "report.results", "report.cursor"),
    *("extend.identified", "extend.begun", "extend.matched", "extend.withdrawn", "extend.returned"),
    *("report.points", "settle.stragglers", "settle.published", "settle.recorded"),
    *("report.composed", "report.status", "accept.recorded", "accept.decided", "suspend.paused", "suspend.resumed"),
)


class Story:
    """One story: what `rng` draws is done on a stage, by an outside program at its desk."""

    def __init__(self, theatre: stage.Stage, rng: random.Random, *, held: bool) -> None:
        """`held`: each worker starts on hold."""
        self._stage = theatre
        self._rng = rng
        self.desk = Desk(theatre, rng, held=held)
        self._backup: Path | None = None
        self._armed = False
        # How often the worker died at a named point.
        self.crashes = 0

    async def play(self, scenes: int) -> None:
        """Publishes a plan or two, then does so many random things."""
        await self.desk.publish()
        if self._rng.random() < 0.5:
            await self.desk.publish()
        actions: list[tuple[int, str, Callable[[], Awaitable[None]]]] = [
            (45, "ask", self.desk.ask),
            (4, "publish", self.desk.publish),
            (4, "resume_all", self.desk.resume_all),
            (4, "kill_worker", self._kill_worker),
            (3, "crash_worker", self._crash_worker),
            (2, "kill_broker", self._kill_broker),
            (2, "kill_oracle", self._kill_oracle),
            (1, "back_up", self._back_up),
            (2, "restore", self._restore),
        ]
        weights = [weight for weight, _, _ in actions]
        for _ in range(scenes):
            [(_, name, action)] = self._rng.choices(actions, weights)
            self.desk.log(name)
            await self._go_on_after_a_crash()
            await action()
            await wait.let_pass(self._rng.choice((0.0, 0.02, 0.1, 0.3)))

    async def rest(self) -> None:
        """Lets everything come to its end, and shuts the worker down in order."""
        self.desk.log("rest")
        await self._go_on_after_a_crash()
        if self._armed:
            await self._kill_worker()
        await self._stage.worker.ready()
        await self.desk.resume_all()
        await self.desk.all_ended(BOUND_SECONDS)
        await self._stage.stop()

    async def _start(self, crash_at: str | None = None) -> None:
        """Starts the worker, which gets again at once what the one before had fetched."""
        self._armed = crash_at is not None
        await self._stage.give_back_if_possible()
        self.desk.worker_starts()
        self._stage.worker.arm(crash_at)
        self._stage.worker.start()

    async def _go_on_after_a_crash(self) -> None:
        """Starts a worker that died at its crash point again, after a while."""
        if self._armed and not self._stage.worker.running:
            await self._stage.worker.died()
            self.desk.log("crashed")
            self.crashes += 1
            await self._start()

    async def _kill_worker(self) -> None:
        await self._stage.worker.kill()
        await self._start()
        await self._ready_perhaps()

    async def _crash_worker(self) -> None:
        """Starts a worker that dies the first, second or third time that it gets to a point."""
        point = f"{self._rng.choice(CRASHES)}:{self._rng.choice((1, 1, 2, 3))}"
        self.desk.log(f"armed {point}")
        await self._stage.worker.kill()
        await self._start(point)
        await self._ready_perhaps()

    async def _ready_perhaps(self) -> None:
        """Mostly waits until the worker is ready, or has died at its point."""
        if self._rng.random() < 0.8:

            async def settled() -> bool:
                return not self._stage.worker.running or (await self._stage.worker.ask("/readyz"))[0] == 200

            await wait.until(settled, timeout=30, what="the worker to be ready")

    async def _kill_broker(self) -> None:
        await self._stage.broker.kill()
        await wait.let_pass(self._rng.choice((0.0, 0.3)))
        await self._stage.broker.start()

    async def _kill_oracle(self) -> None:
        await self._stage.oracle.restart(crash=True)

    async def _back_up(self) -> None:
        """Takes a backup while the worker runs."""
        target = self._stage.directory / f"backup-{time.monotonic_ns()}.db"
        if await self._stage.command("backup", str(target)) == 0:
            self._backup = target

    async def _restore(self) -> None:
        """Goes back to the last backup, if there is one: everything since then has to come back from the streams."""
        if self._backup is None:
            await self._back_up()
            await self.desk.ask()
            await self.desk.publish()
        if self._backup is None:
            return
        await self._stage.worker.kill()
        code = await self._stage.command("restore", str(self._backup))
        assert code == 0, f"restore ended with {code}"
        self.desk.restored()
        await self._start()
        await self._ready_perhaps()


def _oracle_flags(rng: random.Random) -> list[str]:
    flags = ["--slots", str(rng.choice((3, 8, 20))), "--delay", str(rng.choice((0.0, 0.05, 0.2, 0.5)))]
    flags += [flag for pattern in FAILURES for flag in ("--fail", pattern)]
    if rng.random() < 0.4:
        flags += ["--hold", ENDLESS]
    if rng.random() < 0.2:
        flags += ["--answer-after", "0.3"]
    if rng.random() < 0.7:
        flags += ["--started"]
    # An orchestrator that can stop nothing, or one that can pause.
    return flags + rng.choice((["--no-batch"], ["--pausing"], ["--pausing"], [], []))


async def play(seed: int, directory: Path) -> str:
    """Plays one story and judges it; returns a line about it. Raises AssertionError."""
    rng = random.Random(seed)
    began = time.monotonic()
    held = rng.random() < 0.1
    settings: dict[str, Any] = {"EMS_STOP_CONFIRM_SECONDS": "2", "EMS_RPC_DEADLINE_SECONDS": "3"} | (
        {"EMS_HOLD": "true"} if held else {}
    )
    async with stage.Stage(directory, *_oracle_flags(rng), **settings) as theatre:
        story = Story(theatre, rng, held=held)
        try:
            story.desk.worker_starts()
            theatre.worker.start()
            await theatre.worker.ready()
            await story.play(rng.randrange(12, 32))
            await story.rest()
            await story_rules.check(theatre, story.desk)
        except BaseException:
            (directory / "story.log").write_text("\n".join(story.desk.lines) + "\n")
            raise
        (directory / "story.log").write_text("\n".join(story.desk.lines) + "\n")
        desk = story.desk
    seconds = f"slowest answer {desk.slowest:.1f} s, {time.monotonic() - began:.0f} s in all"
    deaths = f"{story.crashes} deaths at points, {desk.restores} restores"
    return f"{len(desk.plans)} experiments, {len(desk.asked)} requests, {deaths}, {seconds}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--stories", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to keep the files of stories that fail")
    options = parser.parse_args()
    # Ends the servers of a story, also where SIGINT is ignored, as in the background of a shell.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    failed = 0
    for seed in range(options.seed, options.seed + options.stories):
        directory = Path(tempfile.mkdtemp(prefix=f"story-{seed}-"))
        try:
            print(f"story {seed}: {asyncio.run(play(seed, directory))}", flush=True)
        except Exception as error:  # noqa: BLE001 - the next story goes on, whatever ended this one
            failed += 1
            print(f"story {seed} FAILED: {directory if options.keep is None else options.keep / str(seed)}", flush=True)
            shown = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            print("\n".join(f"    {line}" for line in shown.splitlines()[:25]), flush=True)
            if options.keep is not None:
                shutil.copytree(directory, options.keep / str(seed), dirs_exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{options.stories - failed} of {options.stories} stories ended well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
