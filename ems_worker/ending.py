"""What an asyncio.CancelledError means that comes out of a library: our task is to end, or only a call was cut off."""

import asyncio


def of_task() -> bool:
    """Whether the present task is being cancelled.

    If it isn't, grpc.aio closed a channel under a call, say. Taken for the task's own end that would end it in silence.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
