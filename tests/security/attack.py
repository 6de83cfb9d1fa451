"""Carries out every attack that once succeeded against this worker: python -m tests.security.attack [NUMBER ...]

Each attack has its own servers and worker, all of them real processes. Prints a line for each attack with what was
observed; the exit code is 1 if one succeeds.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.security import failure_attacks, message_attacks

ATTACKS: tuple[Callable[[Path], Coroutine[Any, Any, str]], ...] = (
    message_attacks.redirected_replies,
    failure_attacks.lost_connections,
    message_attacks.long_reply,
    message_attacks.invalid_metadata,
    message_attacks.compression_bomb,
    message_attacks.many_suggestions,
    failure_attacks.other_users,
    message_attacks.forged_plan,
    failure_attacks.full_queue,
    failure_attacks.clock,
    failure_attacks.sigterm,
    failure_attacks.missing_rights,
    failure_attacks.hanging_start,
)


def run(numbers: list[int]) -> int:
    """Carries out these attacks, or all; returns how many succeeded."""
    succeeded = 0
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o711)  # so that only the platform's own permissions keep another user out
        for number, attack in enumerate(ATTACKS, 1):
            if numbers and number not in numbers:
                continue
            name = (attack.__doc__ or "").strip().rstrip(".")
            directory = Path(scratch) / str(number)
            directory.mkdir(mode=0o711)
            try:
                observed = asyncio.run(attack(directory))
            except Exception as error:  # noqa: BLE001 - the other attacks follow, whatever happens in this one
                succeeded += 1
                print(f"{number:2} SUCCEEDED  {name}: {type(error).__name__}: {error}", flush=True)
            else:
                print(f"{number:2} failed     {name}: {observed}", flush=True)
    return succeeded


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("number", type=int, nargs="*", help="carry out only the attacks with these numbers")
    return 1 if run(parser.parse_args().number) else 0


if __name__ == "__main__":
    sys.exit(main())
