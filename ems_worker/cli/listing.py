"""Points with their jobs, of a plan or of an experiment: as rows for programs and as a table for people."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from ems_worker.cli import fitting, tables
from ems_worker.core import ids
from ems_worker.core.documents import headings
from ems_worker.core.points import plan, space

Document = dict[str, Any]

_PARAM: Final = "param."
_LABEL: Final = "label."
# The first columns of rows. Those that `ems export` has too are named as there.
_OF_POINTS: Final = ("experiment_id", "point", "run_id_suffix", "seeds", "simulation_ids")
_OF_JOBS: Final = ("experiment_id", "simulation_id", "point", "replicate", "run_id_suffix", "seed")


class Job(NamedTuple):
    """A job. A plan without an experiment_id has no simulation ids yet."""

    replicate: int
    seed: int
    simulation_id: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A point with its jobs: `jobs_count` of them, which are made one by one and can be read once."""

    experiment_id: str | None
    point: int
    run_id_suffix: str | None
    params: Mapping[str, Any]
    labels: Mapping[str, str]
    jobs: Iterator[Job]
    jobs_count: int


def of_point(parsed: plan.Plan, point: space.Point) -> Entry:
    """A point of a plan."""
    labels = {**parsed.labels, **point.labels}
    jobs = _jobs(parsed, point.index)
    return Entry(parsed.experiment_id, point.index, point.run_id_suffix, point.params, labels, jobs, parsed.replicates)


def _jobs(parsed: plan.Plan, point: int) -> Iterator[Job]:
    experiment_id = parsed.experiment_id
    for replicate in range(parsed.replicates):
        run = None if experiment_id is None else ids.simulation_id(experiment_id, point, replicate, 1)
        yield Job(replicate, parsed.seeds.of(point, replicate), run)


async def of_jobs(jobs: AsyncIterator[Document]) -> AsyncIterator[Entry]:
    """The points of an experiment from its `ems.result.v1` documents in the order of points, as `ems.api.jobs` has
    them. Keeps the jobs of one point in memory."""
    first: Document | None = None
    same: list[Job] = []
    async for job in jobs:
        if first is not None and first["point"] != job["point"]:
            yield _entry(first, same)
            same = []
        if not same:
            first = job
        same.append(Job(job["replicate"], job["seed"], job["simulation_id"]))
    if first is not None:
        yield _entry(first, same)


def _entry(job: Document, jobs: Sequence[Job]) -> Entry:
    return Entry(
        job["experiment_id"],
        job["point"],
        job["run_id_suffix"],
        job["params"],
        job["labels"],
        iter(jobs),
        len(jobs),
    )


def rows(entry: Entry, *, each_job: bool) -> Iterator[Document]:
    """The rows of a point: one, or one for each job."""
    values = {f"{_PARAM}{name}": value for name, value in entry.params.items()}
    values |= {f"{_LABEL}{name}": value for name, value in entry.labels.items()}
    experiment, point, suffix = entry.experiment_id, entry.point, entry.run_id_suffix
    if each_job:
        for job in entry.jobs:
            fixed = (experiment, job.simulation_id, point, job.replicate, suffix, job.seed)
            yield dict(zip(_OF_JOBS, fixed, strict=True)) | values
        return
    jobs = list(entry.jobs)
    runs = None if experiment is None else [job.simulation_id for job in jobs]
    yield dict(zip(_OF_POINTS, (experiment, point, suffix, [job.seed for job in jobs], runs), strict=True)) | values


def columns(parameters: Iterable[str], labels: Iterable[str], *, each_job: bool) -> list[str]:
    """The columns of rows with these parameters and labels."""
    varying = [*(f"{_PARAM}{name}" for name in parameters), *(f"{_LABEL}{name}" for name in labels)]
    return [*(_OF_JOBS if each_job else _OF_POINTS), *dict.fromkeys(varying)]


def columns_among(names: Iterable[str], parameters: Iterable[str], *, each_job: bool) -> list[str]:
    """The columns of rows that have had these names, where all parameters are known but not all labels."""
    labels = [name.removeprefix(_LABEL) for name in names if name.startswith(_LABEL)]
    return columns(parameters, labels, each_job=each_job)


class Table(tables.Growing):
    """A table of points or, with `each_job`, of jobs. Of a point with several jobs it shows the first seed and id."""

    def __init__(
        self,
        parameters: Iterable[str],
        replicates: int,
        shown: Mapping[str, headings.Heading],
        *,
        each_job: bool = False,
    ) -> None:
        """`shown`: the labels and units of parameters."""
        self._parameters = list(dict.fromkeys(parameters))
        self._each_job = each_job
        first = "" if each_job or replicates == 1 else "first "
        of_job = [fitting.Column("replicate")] if each_job else []
        # Where there is no room, the seed is left out first, then the suffix, then parameters from the last one on.
        titles = headings.titles(self._parameters, shown, tables.short(self._parameters))
        named = [fitting.Column(title, drop=number) for number, title in enumerate(titles, 1)]
        super().__init__(
            [
                fitting.Column("point"),
                *of_job,
                fitting.Column("run_id_suffix", drop=len(named) + 1),
                *named,
                fitting.Column(f"{first}seed", drop=len(named) + 2),
                fitting.Column(f"{first}simulation_id", left=True),
            ],
            instead="--format csv, or a wider window",
        )

    def show(self, entry: Entry) -> None:
        """Adds the rows of a point."""
        params = entry.params
        values = [tables.cell(params[name]) if name in params else "-" for name in self._parameters]
        for job in entry.jobs if self._each_job else islice(entry.jobs, 1):
            of_job = [str(job.replicate)] if self._each_job else []
            suffix, run = entry.run_id_suffix or "", job.simulation_id or ""
            self.add([str(entry.point), *of_job, suffix, *values, str(job.seed), run])
