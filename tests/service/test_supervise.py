"""A part of the worker that ends by itself ends the worker: nothing goes on silently without it."""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.daemon.worker import Worker
from ems_worker.service.base.supervise import supervise
from ems_worker.service.dispatch import Dispatcher
from ems_worker.service.limits import RunLimits
from ems_worker.settings import Settings
from tests.support import servers


async def over() -> None:
    """What returns."""


async def cut() -> None:
    """What a library does whose call was cut off."""
    raise asyncio.CancelledError


async def wrong() -> None:
    raise ValueError("of its own")


async def test_what_ends_by_itself_is_an_error() -> None:
    """Whether it returns or is cancelled from inside; its own error stays what it is."""
    with pytest.raises(RuntimeError, match="the reports has ended"):
        await asyncio.create_task(supervise("the reports", over))
    with pytest.raises(RuntimeError, match="the reports was cancelled"):
        await asyncio.create_task(supervise("the reports", cut))
    with pytest.raises(ValueError, match="of its own"):
        await asyncio.create_task(supervise("the reports", wrong))


async def test_what_is_ended_from_outside_just_ends() -> None:
    """By a cancellation of its task."""
    task = asyncio.create_task(supervise("the reports", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", [(RunLimits, "run"), (Dispatcher, "run"), (Dispatcher, "_follow_capacity")])
@pytest.mark.parametrize("end", [over, cut])
async def test_the_worker_ends_with_any_of_its_parts(tmp_path: Path, name: tuple[type, str], end: object) -> None:
    """It says which in its error."""

    async def ended(*_: object) -> None:
        await end()  # type: ignore[operator]  # one of the functions above

    async with servers.NatsServer(tmp_path / "nats") as broker:
        settings = Settings(server=(broker.url,), data_dir=tmp_path / "data", http="", orchestrator="127.0.0.1:1")
        with patch.object(*name, ended):
            async with asyncio.timeout(10):
                with pytest.raises(ExceptionGroup) as caught:
                    await Worker(settings).run()
    found = caught.value.subgroup(RuntimeError)
    assert found is not None
    assert "the worker isn't ending" in repr(found)
