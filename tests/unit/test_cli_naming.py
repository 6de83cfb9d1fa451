"""How people name experiments, groups and runs."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from ems_worker import client, errors
from ems_worker.cli import naming
from tests.support import known

REEF = known.status("reef-heat", experiment_name="A reef in the heat")
REEFS = [known.status("reef-2", group="reefs"), known.status("reef-1", group="reefs"), REEF]
GENERATIONS = [known.status(f"gen-{number:03d}", group="evolution") for number in range(99, -1, -1)]


class Client(client.EmsClient):
    """A client whose worker knows these experiments, each with 3 points of 2 replicates and two attempts a job."""

    def __init__(self, listed: Sequence[dict[str, Any]], points: int = 3, replicates: int = 2) -> None:
        super().__init__()
        self._listed = listed
        self._size = {"points": points, "replicates": replicates}

    def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
        return known.experiments(self._listed, **which)

    async def get(self, experiment_id: str) -> dict[str, Any]:
        if experiment_id not in [status["experiment_id"] for status in self._listed]:
            raise errors.NotFound(f"there is no experiment {experiment_id}")
        return {"experiment_id": experiment_id, **self._size}

    async def jobs(
        self, experiment_id: str, *, attempts: bool = False, **which: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        assert attempts
        for attempt in (1, 2) if which["point"] < 2 else ():
            yield {**which, "attempt": attempt}


class Alone(client.EmsClient):
    """A client without a worker."""

    def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
        raise errors.WorkerUnavailable("no worker answers")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("reef-heat", "reef-heat"),
        ("reef-h", "reef-heat"),
        ("A reef in the heat", "reef-heat"),
        ("the reef-1", "reef-1"),
        ("@latest", "reef-2"),
    ],
)
async def test_an_experiment_has_many_names(name: str, found: str) -> None:
    """Its id, the beginning of its id, its name, and if it is the newest, `@latest`."""
    assert await naming.experiment(Client(REEFS), name) == found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reef-", "3 experiments begin with reef-: reef-2, reef-1, reef-heat"),
        ("reef-haet", "there is no experiment reef-haet; did you mean reef-heat?"),
        ("a reef in the heat", "there is no experiment a reef in the heat; did you mean A reef in the heat?"),
        ("raef-h", "there is no experiment raef-h; did you mean reef-heat?"),
        ("nothing", "there is no experiment nothing"),
        ("", "there is no experiment ; @latest is the newest one"),
        ("@last", "there is no experiment @last; @latest is the newest one"),
        ("\x1b[2J", "there is no experiment \ufffd[2J"),
    ],
)
async def test_what_names_no_experiment_or_several_is_an_error(name: str, message: str) -> None:
    """The message has those that might be meant."""
    with pytest.raises(errors.NotFound) as caught:
        await naming.experiment(Client(REEFS), name)
    assert str(caught.value) == message


async def test_an_id_is_found_among_many_that_begin_with_it() -> None:
    """So many that one reply doesn't have them all."""
    listed = [*(known.status(f"sweep-{number}") for number in range(200)), known.status("sweep")]
    assert await naming.experiment(Client(listed), "sweep") == "sweep"
    with pytest.raises(errors.NotFound, match=r"64 or more experiments begin with swee: sweep-0, .*sweep-4, \.\.\.$"):
        await naming.experiment(Client(listed), "swee")


async def test_experiments_of_the_same_name_are_told_apart_by_their_ids() -> None:
    """The newest comes first."""
    listed = [known.status(f"r-{number}", experiment_name="sweep") for number in (2, 1)]
    with pytest.raises(errors.NotFound, match="2 experiments are called sweep: r-2, r-1"):
        await naming.experiment(Client(listed), "sweep")


async def test_without_experiments_there_is_no_latest() -> None:
    """The message says why."""
    with pytest.raises(errors.NotFound, match="there are no experiments"):
        await naming.experiment(Client([]), "@latest")


async def test_a_whole_id_needs_no_worker() -> None:
    """What it is used for may not need one either; anything else does."""
    assert await naming.experiment(Alone(), "reef") == "reef"
    for name in ("A reef", "@latest"):
        with pytest.raises(errors.WorkerUnavailable):
            await naming.experiment(Alone(), name)


async def test_what_a_worker_answers_is_checked() -> None:
    """Text that is no id, or that doesn't answer the question, names nothing."""
    listed = [known.status("reef\x1b[2J"), known.status("reef.>"), known.status("other")]

    class Liar(Client):
        def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
            return known.experiments(listed)

    for name in ("reef", "@latest"):
        with pytest.raises(errors.NotFound):
            await naming.experiment(Liar([]), name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reefs", (None, "reefs")),
        ("reefs/", (None, "reefs")),
        ("reef-1", ("reef-1", None)),
        ("evolution", (None, "evolution")),
    ],
)
async def test_a_group_has_a_name_too(name: str, expected: tuple[str | None, str | None]) -> None:
    """Written as `ems ls` shows it or without the slash. An experiment comes first."""
    assert await naming.experiment_or_group(Client([*GENERATIONS, *REEFS]), name) == expected


async def test_a_group_comes_before_several_ids_that_begin_with_its_name() -> None:
    """As those of its experiments often do."""
    listed = [known.status(f"sweep-{number}", group="sweep") for number in range(3)]
    assert await naming.experiment_or_group(Client(listed), "sweep") == (None, "sweep")
    with pytest.raises(errors.NotFound, match="3 experiments begin with swe"):
        await naming.experiment_or_group(Client(listed), "swe")
    with pytest.raises(errors.NotFound, match="did you mean sweep"):
        await naming.experiment_or_group(Client(listed), "sweap")


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("reef-heat-p000001-r001-a1", "reef-heat-p000001-r001-a1"),
        ("reef-heat-p000001-r001-a9", "reef-heat-p000001-r001-a9"),
        ("reef-heat-p000001-r001", "reef-heat-p000001-r001-a2"),
        ("reef-h-p1-r1", "reef-heat-p000001-r001-a2"),
        ("reef-h-p1-r1-a1", "reef-heat-p000001-r001-a1"),
        ("reef-h-p0-r00", None),
        ("@latest-p1-r0", "reef-2-p000001-r000-a2"),
        ("A reef in the heat-p1-r0", "reef-heat-p000001-r000-a2"),
        ("the reef-1-p0-r1-", "reef-1-p000000-r001-a2"),
    ],
)
async def test_a_run_is_named_by_its_job(name: str, run: str | None) -> None:
    """It is the last attempt unless the name has one."""
    if run is None:
        with pytest.raises(errors.NotFound):
            await naming.run(Client(REEFS), name)
    else:
        assert await naming.run(Client(REEFS), name) == run


async def test_what_there_is_only_one_of_may_be_left_out() -> None:
    """An experiment of one job is a run, and so is a point with one replicate."""
    assert await naming.run(Client(REEFS, points=1, replicates=1), "reef-1") == "reef-1-p000000-r000-a2"
    assert await naming.run(Client(REEFS, replicates=1), "reef-1-p1") == "reef-1-p000001-r000-a2"
    assert await naming.run(Client(REEFS, points=1), "reef-1-p0000-r1") == "reef-1-p000000-r001-a2"


async def test_an_experiment_may_be_called_like_a_point() -> None:
    """Then it is the experiment."""
    listed = [known.status("heat-p2"), known.status("heat")]
    assert await naming.run(Client(listed, points=1, replicates=1), "heat-p2") == "heat-p2-p000000-r000-a2"
    assert await naming.run(Client(listed[1:], replicates=1), "heat-p1") == "heat-p000001-r000-a2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reef-1", "reef-1 is more than one run: reef-1 has 3 points; name one, such as reef-1-p000000-r000"),
        ("reef-1-p1", "more than one run: reef-1-p000001 has 2 replicates; name one, such as reef-1-p000001-r000"),
        ("reef-1-p3-r0", "there is no run reef-1-p3-r0: reef-1 has 3 points, from 0 to 2"),
        ("reef-1-p0000-r0", "reef-1-p0000-r0 is more than one run: 3 begin with it"),
        ("reef-1-p0001-r0", "there is no run reef-1-p0001-r0: reef-1 has 3 points, from 0 to 2"),
        ("reef-1-p2-r0", "there is no run reef-1-p2-r0 yet: reef-1 is still being expanded"),
        ("raef-1-p0-r0", "there is no run raef-1-p0-r0; did you mean reef-1-p0-r0?"),
        ("reef-p0-r0", "3 experiments begin with reef: reef-2, reef-1, reef-heat"),
        ("", "there is no run "),
        ("a\nb", "there is no run a\ufffdb"),
    ],
)
async def test_what_names_no_run_or_several_is_an_error(name: str, message: str) -> None:
    """The message says what there is."""
    with pytest.raises(errors.NotFound) as caught:
        await naming.run(Client(REEFS), name)
    assert message in str(caught.value)


async def test_a_run_where_an_experiment_belongs_is_recognized() -> None:
    """With the condition that chooses it."""
    with pytest.raises(errors.RequestRefused) as caught:
        await naming.experiment(Client(REEFS), "reef-1-p1-r0")
    where = "--where 'point == 1 and replicate == 0'"
    assert str(caught.value) == f"reef-1-p1-r0 is a run of reef-1: name that, with {where}"
