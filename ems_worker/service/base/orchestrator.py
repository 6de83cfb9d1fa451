"""The interface of the orchestrator's adapter, as the services need it; `ports` has the others."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from ems_worker.core.lifecycle.outcome import Call
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.wire import Capacity, Control, Controlled, Start


class Orchestrator(Protocol):
    """The Orchestration Layer. Every call has a deadline, and no answer of the orchestrator raises an error."""

    async def start(
        self, starts: Sequence[Start], on_call: Callable[[Call], None], wanted: Callable[[str], bool]
    ) -> None:
        """Sends start commands, in batches if the orchestrator accepts these; returns when each has an answer.

        `on_call` receives each call when it ends. A call that takes long is also reported before that, with LATE as
        its answers. `wanted` is asked for each simulation id right before its command is sent: a command that isn't
        wanted any more is not sent, and its answer is UNSENT, in a call that was never made.
        """

    async def control(self, simulation_id: str, action: Control) -> Controlled:
        """Pauses, resumes or stops a run. A STOP may be answered before the run has ended."""

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """The status of runs as a signal, None for an unknown run; runs without an answer are left out.

        None instead of a mapping: the orchestrator doesn't implement GetSimulationStatus.
        """

    def ready(self) -> bool:
        """Whether the orchestrator can be reached, as far as is known."""

    @property
    def away(self) -> str | None:
        """Why the orchestrator can't be reached, for people; None if it can."""

    @property
    def crowded(self) -> bool:
        """Whether so many calls are unanswered that new ones wait for them."""

    @property
    def message_limit(self) -> int:
        """The largest start command in bytes that the orchestrator accepts, as far as is known."""

    @property
    def rpc_window(self) -> int:
        """How many calls may be open at once at present."""

    def capacity(self) -> AsyncIterator[Capacity | None]:
        """Changes of capacity, without end; None if the orchestrator doesn't report it (UNIMPLEMENTED) or is away."""
