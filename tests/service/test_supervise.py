"""The worker ends when one of its parts ends, whether it returns or fails."""

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


async def returns() -> None:
    """Ends at once."""


async def cancels() -> None:
    """Is cancelled from inside, as by a library whose call was interrupted."""
    raise asyncio.CancelledError


async def fails() -> None:
    raise ValueError("its own error")


async def test_work_that_ends_by_itself_is_an_error() -> None:
    """It makes no difference whether the work returns or is cancelled from inside. Its own error is passed on."""
    with pytest.raises(RuntimeError, match="the reports has ended"):
        await asyncio.create_task(supervise("the reports", returns))
    with pytest.raises(RuntimeError, match="the reports was cancelled"):
        await asyncio.create_task(supervise("the reports", cancels))
    with pytest.raises(ValueError, match="its own error"):
        await asyncio.create_task(supervise("the reports", fails))


async def test_work_that_is_cancelled_from_outside_is_no_error() -> None:
    """The cancellation is passed on."""
    task = asyncio.create_task(supervise("the reports", asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("name", [(RunLimits, "run"), (Dispatcher, "run"), (Dispatcher, "_follow_capacity")])
@pytest.mark.parametrize("end", [returns, cancels])
async def test_the_worker_ends_when_one_of_its_parts_ends(tmp_path: Path, name: tuple[type, str], end: object) -> None:
    """The error reports that the worker wasn't stopping."""

    async def ended(*_: object) -> None:
        await end()  # type: ignore[operator]  # one of the functions above

    async with servers.NatsServer(tmp_path / "nats") as broker:
        settings = Settings(server=(broker.url,), data_dir=tmp_path / "data", http="", orchestrator="127.0.0.1:1")
        with patch.object(*name, ended):
            async with asyncio.timeout(10):
                with pytest.raises(ExceptionGroup) as caught:
                    await Worker(settings).run()
    group = caught.value.subgroup(RuntimeError)
    assert group is not None
    assert "the worker isn't ending" in repr(group)
