"""The main program of the process that examines one plan: it answers requests until its standard input ends."""

import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from ems_worker import errors
from ems_worker.reading import process
from ems_worker.service.intake.examination import Examination
from ems_worker.terminal import streams


def main() -> None:
    """Runs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts the whole group, and the worker decides
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    streams.guard()
    sys.stdout = sys.stderr  # so that nothing else is printed among the answers
    options: process.Options = pickle.loads(process.receive(requests))  # noqa: S301  # from our own parent process
    _limit(options.allowance)
    examination = Examination(process.receive(requests), options.tools())
    while request := process.receive(requests):
        method, arguments = pickle.loads(request)  # noqa: S301  # from our own parent process
        process.send(answers, pickle.dumps(_answer(examination, options, method, arguments)))


def _answer(
    examination: Examination, options: process.Options, method: str, arguments: tuple[Any, ...]
) -> process.Answer:
    try:
        return process.Answer(value=getattr(examination, method)(*arguments))
    except errors.PlanRejected as error:
        return process.Answer(problems=error.problems)
    except errors.Unreadable as error:
        return process.Answer(unreadable=str(error))
    except MemoryError:
        message = f"reading this plan takes more than {options.allowance.memory_bytes // 2**20} MB; send smaller plans"
        return process.Answer(problems=(errors.Problem("too_large", "", message),))


def _limit(allowance: process.Allowance) -> None:
    """Limits the memory of this process in addition to what it uses now, and its processor time."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # other systems don't report the current size
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + allowance.memory_bytes, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (allowance.cpu_seconds, allowance.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
