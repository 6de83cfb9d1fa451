"""What asyncio.CancelledError means in grpc.aio: our task is to end, or a channel was closed under a call."""

import asyncio


def of_task() -> bool:
    """Whether the present task is being cancelled; a CancelledError while it isn't only tells that a call was cut off.

    Taken for the task's own end it would end without a word whoever waits for the call.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
