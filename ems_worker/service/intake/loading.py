"""Reads the plan of a new experiment while the experiment is recorded: it can start that much sooner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from ems_worker.core.records import Experiment, NewExperiment
from ems_worker.service.intake import check
from ems_worker.service.intake.check import Loaded, PlanReader

Load = Callable[[NewExperiment], Coroutine[Any, Any, Loaded]]
# Takes an experiment that is recorded, and its plan.
OnAccept = Callable[[Experiment, Awaitable[Loaded]], Awaitable[None]]


async def load(spec: NewExperiment, reader: PlanReader) -> Loaded:
    """The plan of an experiment; in a thread, because that may take a second.

    Raises errors.PlanNotReadAsAccepted if this worker can't continue with it.
    """
    return await asyncio.to_thread(check.loaded, spec, reader)


@contextlib.asynccontextmanager
async def begun(load: Load, new: NewExperiment | None) -> AsyncIterator[Awaitable[Loaded] | None]:
    """The plan of a new experiment, which may turn out not to be needed; None without one."""
    if new is None:
        yield None
        return
    loading = asyncio.create_task(load(new))
    # Otherwise an error would be logged if nothing waits for it.
    loading.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        yield loading
    finally:
        loading.cancel()
