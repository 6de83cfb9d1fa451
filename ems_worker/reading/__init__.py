"""Reads plans without blocking the event loop: small plans in a thread, large ones in a process of their own.

A thread is not enough for large plans. Reading some megabytes is a few long steps in C during which no other thread of
the process runs, so that any publisher could block the event loop for half a second. A process also limits the memory
and time that a hostile plan takes, and a crash in it ends nothing else.
"""

from ems_worker.reading.examiner import Examiner

__all__ = ["Examiner"]
