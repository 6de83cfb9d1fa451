"""Following WatchCapacity."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from ems_worker import ending
from ems_worker.core import text
from ems_worker.core.wire import Capacity
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc

# Even this call has a deadline: over a half-open connection it would never end.
WATCH_SECONDS = 300.0
_MIN_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
UNIMPLEMENTED_PAUSE_SECONDS = 60.0


async def watch(
    stub: "Callable[[], pb_grpc.OrchestratorClientServiceAsyncStub]",
    first_seconds: float,
    on_error: Callable[[grpc.aio.AioRpcError], None],
) -> AsyncIterator[Capacity | None]:
    """Yields every change, without end; None once when the orchestrator goes away, or if it doesn't report capacity.

    The first message must come within `first_seconds`, because an orchestrator sends its capacity at once. `on_error`
    gets the error that ended a watch.
    """
    known: Capacity | None = None
    reported = False
    pause = _MIN_PAUSE_SECONDS
    while True:
        call = stub().WatchCapacity(pb.WatchCapacityRequest(), timeout=WATCH_SECONDS)
        gone = False
        try:
            async with asyncio.timeout(first_seconds):
                message = await call.read()
            while isinstance(message, pb.Capacity):
                pause = _MIN_PAUSE_SECONDS
                if (current := _read(message)) != known or not reported:
                    known, reported = current, True
                    yield current
                message = await call.read()
        except grpc.aio.AioRpcError as error:
            on_error(error)
            # At our own deadline, the orchestrator only had no change to report.
            gone = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                pause = UNIMPLEMENTED_PAUSE_SECONDS
        except TimeoutError:
            gone = True
        except asyncio.CancelledError:
            # The channel was replaced, and closed with this call on it.
            if ending.of_task():
                raise
            gone = True
        finally:
            call.cancel()
        if gone and (known is not None or not reported):
            known, reported = None, True
            yield None
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_SECONDS)


def _read(message: pb.Capacity) -> Capacity:
    return Capacity(
        slots=message.slots,
        max_message_bytes=max(0, message.max_message_bytes),
        model_version=text.clip(message.model_version, text.MAX_NAME) or "",
    )
