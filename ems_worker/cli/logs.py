"""`ems logs`: what a run has printed."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker import errors
from ems_worker.cli import exits, outputs, shell
from ems_worker.cli.results import Run
from ems_worker.terminal.logs import Log

if TYPE_CHECKING:
    from ems_worker.adapters.orchestrator.output import Outputs, Stream

# Where the last lines of an output are looked for.
_TAIL_BYTES = 1024 * 1024
_RETRY_SECONDS = 1.0


@shell.guarded
def logs(
    run: Run,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Print standard error instead of standard output.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, metavar="LINES", help="Begin with the last lines.")
    ] = None,
    orchestrator: outputs.Orchestrator = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Print what a run has written to its standard output.

    The orchestrator is asked for it, which may not offer that. The one of `ems up` does.
    """
    reach = outputs.Reach(orchestrator, server, context)

    async def ask(output: "Outputs") -> exits.Exit:
        from ems_worker.adapters.orchestrator.output import Stream

        name = await reach.run_id(run)
        reader = _Reader(output, name, Stream.STDERR if stderr else Stream.STDOUT)
        try:
            if tail is not None:
                await reader.skip_to_tail(tail)
            await reader.print(follow=follow)
        except errors.NotFound as unknown:
            raise errors.NotFound(f"{unknown}: it has not been started, or was forgotten long ago") from unknown
        if not reader.printed:
            await _say_nothing(output, name, stderr=stderr)
        return exits.Exit.OK

    return reach.run(ask)


@dataclass(slots=True)
class _Reader:
    """Prints a stream of a run from an offset on."""

    output: "Outputs"
    run: str
    stream: "Stream"
    offset: int = 0
    printed: bool = False

    async def skip_to_tail(self, lines: int) -> None:
        """Moves to the beginning of the last lines."""
        end, end_at = b"", 0
        async with contextlib.aclosing(self.output.stream(self.run, self.stream, offset=-_TAIL_BYTES)) as parts:
            async for part in parts:
                # An orchestrator may send more than was asked for.
                end, end_at = (end + part.data)[-_TAIL_BYTES:], part.offset + len(part.data)
        kept = end.splitlines(keepends=True)[-lines:] if lines else []
        self.offset = end_at - sum(map(len, kept))

    async def print(self, *, follow: bool) -> None:
        """Prints what there is, and with `follow` what comes; an orchestrator that goes away is waited for."""
        import asyncio

        log = Log()
        try:
            while not await self._print(log, follow):  # noqa: ASYNC110 - nothing tells when an orchestrator is back
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            log.close()

    async def _print(self, log: Log, follow: bool) -> bool:
        """Whether that is all."""
        found = False
        parts = self.output.stream(self.run, self.stream, offset=self.offset, follow=follow)
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    found = True
                    log.write(part.data)
                    self.printed = self.printed or bool(part.data)
                    self.offset = max(self.offset, part.offset + len(part.data))
        except errors.BeyondEnd:
            if not self.offset:
                raise
            shell.say(f"{self.run} started again, with empty output")
            self.offset = 0
            return False
        except errors.OrchestratorUnavailable:
            if not (follow and (found or self.printed)):
                raise
            if found:
                shell.say("the connection to the orchestrator is lost; reconnecting")
            self.printed = True
            return False
        return True


async def _say_nothing(output: "Outputs", run: str, *, stderr: bool) -> None:
    """Says that a stream is empty, and whether the other one has something."""
    from ems_worker.adapters.orchestrator.output import Stream

    this, other = ("standard error", "standard output") if stderr else ("standard output", "standard error")
    size = 0
    async with contextlib.aclosing(output.stream(run, Stream.STDOUT if stderr else Stream.STDERR)) as parts:
        async for part in parts:
            size = part.size
            break
    hint = f"ems logs {run}{'' if stderr else ' --stderr'}"
    more = f"; {size:,} bytes are on {other}: {hint}" if size else ""
    shell.say(f"{run} has written nothing to {this}{more}")
