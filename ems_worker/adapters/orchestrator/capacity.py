"""Following WatchCapacity."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from ems_worker import ending
from ems_worker.core import text
from ems_worker.core.wire import Capacity
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

# Even this call has a deadline: a half-open connection would leave it waiting for ever.
_WATCH_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_UNIMPLEMENTED_PAUSE_SECONDS = 60.0


async def watch(
    stub: "Callable[[], pb_grpc.OrchestratorClientServiceAsyncStub]",
    first_seconds: float,
    on_error: Callable[[grpc.aio.AioRpcError], None],
) -> AsyncIterator[Capacity | None]:
    """Every change, for ever; None once when the orchestrator goes away or turns out not to tell.

    The first word has to come within `first_seconds`: an orchestrator sends its capacity at once. `on_error` hears
    what a watch ended with.
    """
    known: Capacity | None = None
    told = False
    pause = _FIRST_PAUSE_SECONDS
    while True:
        call = stub().WatchCapacity(pb.WatchCapacityRequest(), timeout=_WATCH_SECONDS)
        gone = False
        try:
            async with asyncio.timeout(first_seconds):
                message = await call.read()
            while isinstance(message, pb.Capacity):
                pause = _FIRST_PAUSE_SECONDS
                if (now := _read(message)) != known or not told:
                    known, told = now, True
                    yield now
                message = await call.read()
        except grpc.aio.AioRpcError as error:
            on_error(error)
            # Our own deadline only ends a watch that had nothing to tell.
            gone = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                pause = _UNIMPLEMENTED_PAUSE_SECONDS
        except TimeoutError:
            gone = True
        except asyncio.CancelledError:
            # The channel was replaced, and closed with this call on it.
            if ending.of_task():
                raise
            gone = True
        finally:
            call.cancel()
        if gone and (known is not None or not told):
            known, told = None, True
            yield None
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _read(message: pb.Capacity) -> Capacity:
    return Capacity(
        slots=message.slots,
        max_message_bytes=max(0, message.max_message_bytes),
        model_version=text.clip(message.model_version, text.MAX_NAME) or "",
    )
