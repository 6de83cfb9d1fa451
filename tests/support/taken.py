"""How much memory reading a plan takes: `python -m tests.support.taken FILE` prints that in bytes.

In a process of its own: the system tells the peak of what a process holds, C code included, and that never falls.
"""

import resource
import sys
from pathlib import Path

from ems_worker import errors
from ems_worker.reading import process
from ems_worker.service import check
from ems_worker.service.examination import Examination

# What every module has imported and cached before a plan is read.
_SMALL = b"experiment_name: x\nbase_config: {a: 0}\nparameter_space: {a: [1, 2]}"


def main(file: str) -> None:
    """Prints by how much the peak grew."""
    data = Path(file).read_bytes()
    tools = process.Bounds(check.refuse_base, 16 * 1024 * 1024, 10**7).tools()
    _examine(Examination(_SMALL, tools))
    before = _peak()
    _examine(Examination(data, tools))
    print(_peak() - before)


def _examine(examination: Examination) -> None:
    """All that intake asks of a plan."""
    try:
        examination.outline()
        examination.suit(None)
        while examination.settle() is not None:
            pass
        examination.over("hostile", 4 * 1024 * 1024)
        examination.base()
    except (errors.PlanRejected, errors.Unreadable):
        pass


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1])
