"""Where plans are read: small ones in a thread, large ones in a process of their own.

A thread alone would not do. Reading a plan of some megabytes is a few long steps in C, during which no other thread of
the process runs: any publisher could stop the event loop for half a second. A process also bounds the memory and time
that a hostile plan takes, and dies alone.
"""

from ems_worker.reading.examiner import Examiner

__all__ = ["Examiner"]
