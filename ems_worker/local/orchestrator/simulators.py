"""Which command line a run uses: the orchestrator's own, or a named one that its plan chooses."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ems_worker import errors
from ems_worker.local import registry
from ems_worker.local.orchestrator import model, simulation
from ems_worker.local.orchestrator.command import CannotFill, Command, Configuration

# The label of a run that names its simulator, from the plan's `simulator`.
LABEL: Final = "ems.simulator"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run is started with. `configuration` is empty if the command line doesn't need it."""

    command: Command
    model_version: str
    configuration: Configuration


class Simulators:
    """The orchestrator's own simulator, and the named ones in its directory."""

    def __init__(self, directory: Path, default: Command, model_version: str) -> None:
        self._directory = directory
        self._default = default
        self._model_version = model_version
        self._found: dict[str, registry.Simulator] = {}
        self._changed: set[str] = set()

    def problem(self, name: str) -> str:
        """Why runs can't use the simulator with this name; empty if they can. The empty name is our own simulator."""
        if not name:
            return ""
        try:
            return "" if self._find(name) is not None else f"there is no simulator {name!r} here: `ems run` adds one"
        except errors.SettingsError as error:
            return str(error)

    async def prepare(self, order: model.Order) -> Prepared:
        """What to start the run with. Raises CannotFill if it can't be started."""
        if not order.simulator and not self._default.needs_configuration:
            return Prepared(self._default, self._model_version, {})
        # A configuration may be large, and a program file may have to be read again.
        return await asyncio.to_thread(self._prepare, order)

    def _prepare(self, order: model.Order) -> Prepared:
        command, version = self._default, self._model_version
        if order.simulator:
            if problem := self.problem(order.simulator):
                raise CannotFill(problem)
            simulator = self._found[order.simulator]
            command, version = simulator.command, simulator.origin.model_version_now()
            if version != simulator.model_version and version not in self._changed:
                self._changed.add(version)
                log.warning("simulator.changed", simulator=order.simulator, model_version=version)
        needed = command.needs_configuration
        return Prepared(command, version, simulation.configuration(order) if needed else {})

    def _find(self, name: str) -> registry.Simulator | None:
        if name not in self._found and (found := registry.find(self._directory, name)) is not None:
            self._found[name] = found
        return self._found.get(name)
