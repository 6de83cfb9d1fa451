"""Tells the cancellation of the current task from a call that a library cancelled."""

import asyncio


def of_task() -> bool:
    """Whether the current task is being cancelled.

    An asyncio.CancelledError can also come out of a library: grpc.aio raises it when a channel closes under a call.
    Treating that as the end of the task would end the task silently.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
