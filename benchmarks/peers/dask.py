"""Tasks with Dask: `python -m benchmarks.peers.dask ADDRESS JOBS` drives a scheduler and a worker."""

import sys

from distributed import Client

from benchmarks.peers import driving


def _simulate(number: int, config: str) -> dict[str, float]:
    return driving.simulate(number)


def main() -> int:
    # The worker imports the function by this module's name.
    from benchmarks.peers import dask as module

    with Client(sys.argv[1], set_as_default=False) as client:

        def run(numbers: range) -> None:
            futures = client.map(module._simulate, numbers, [driving.CONFIG] * len(numbers), pure=False)
            driving.check(dict(zip(numbers, client.gather(futures), strict=True)), numbers)

        driving.drive(run, int(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
