"""The process that examines one plan: answers questions from standard input until that ends."""

import pickle
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from ems_worker import errors
from ems_worker.reading import process
from ems_worker.service.intake.examination import Examination
from ems_worker.terminal import streams

_LENGTH_BYTES: Final = 8


def main() -> None:
    """Runs until its standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the worker and to this; the worker decides
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    streams.guard()
    sys.stdout = sys.stderr  # nothing that is printed gets among the answers
    begin: process.Begin = pickle.loads(_receive(questions))  # noqa: S301  # from our parent
    _limit(begin.most_memory, begin.most_seconds)
    examination = Examination(_receive(questions), begin.bounds.tools())
    while question := _receive(questions):
        method, given = pickle.loads(question)  # noqa: S301  # from our parent
        answer = pickle.dumps(_answer(examination, method, given))
        answers.write(len(answer).to_bytes(_LENGTH_BYTES, "big"))
        answers.write(answer)
        answers.flush()


def _answer(examination: Examination, method: str, given: tuple[Any, ...]) -> process.Answer:
    try:
        return process.Answer(value=getattr(examination, method)(*given))
    except errors.PlanRejected as error:
        return process.Answer(problems=error.problems)
    except errors.Unreadable as error:
        return process.Answer(unreadable=str(error))
    except MemoryError:
        words = f"to read this takes more than {process.MOST_MEMORY // 2**20} MB: send less in one plan"
        return process.Answer(problems=(errors.Problem("too_large", "", words),))


def _receive(questions: BinaryIO) -> bytes:
    """The next message; none is empty but the one that never comes, when the worker has gone."""
    return questions.read(int.from_bytes(questions.read(_LENGTH_BYTES), "big"))


def _limit(memory: int, seconds: int) -> None:
    """Bounds what this process may take from now on."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere how much there is by now is not told
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
