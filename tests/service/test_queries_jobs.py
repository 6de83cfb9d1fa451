"""Jobs as the clients of the service see them: in pages, of a point, or those for which a condition holds."""

from typing import Any

from nats.aio.client import Client

from tests.support.asking import ask, run_all
from tests.support.desk import Desk


async def test_jobs_are_listed_in_pages_without_repetition(desk: Desk, client: Client) -> None:
    """They can be filtered by state, and include every attempt if requested."""
    names = await run_all(desk, points=5)
    seen, cursor = [], None
    while True:
        page = await ask(client, "jobs", experiment_id="reef", limit=2, cursor=cursor)
        seen += [job["simulation_id"] for job in page["jobs"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == names
    assert (await ask(client, "jobs", experiment_id="reef", state="failed"))["jobs"] == []
    assert len((await ask(client, "jobs", experiment_id="reef", attempts=True))["jobs"]) == 5


async def test_the_jobs_of_a_point_and_the_attempts_of_a_job_are_found(desk: Desk, client: Client) -> None:
    """A cursor continues within them."""
    names = await run_all(desk, points=3, replicates=2)
    of_point = await ask(client, "jobs", experiment_id="reef", point=1, limit=1)
    rest = await ask(client, "jobs", experiment_id="reef", point=1, cursor=of_point["cursor"])
    assert [job["simulation_id"] for job in of_point["jobs"] + rest["jobs"]] == names[2:4]
    of_job = await ask(client, "jobs", experiment_id="reef", point=2, replicate=1, attempts=True)
    assert [job["simulation_id"] for job in of_job["jobs"]] == names[5:]
    for nobody in ({"point": 3}, {"point": 2, "replicate": 2}):
        assert (await ask(client, "jobs", experiment_id="reef", **nobody))["jobs"] == []


async def test_jobs_can_be_chosen_by_a_condition(desk: Desk, client: Client) -> None:
    """The same expression that changes take; pages go on where they stopped, however few jobs match."""
    names = await run_all(desk, points=300)
    seen, cursor, pages = [], None, 0
    while True:
        page = await ask(client, "jobs", experiment_id="reef", where="food % 50 == 0", limit=4, cursor=cursor)
        seen += [job["simulation_id"] for job in page["jobs"]]
        pages += 1
        if (cursor := page["cursor"]) is None:
            break
    foods = {job["simulation_id"]: job["params"]["food"] for job in (await every_job(client))}
    assert seen == [name for name in names if foods[name] % 50 == 0]
    assert 0 < len(seen) < len(names)
    assert pages == len(seen) // 4 + 1
    both = await ask(client, "jobs", experiment_id="reef", where="point < 7", state="completed")
    assert [job["point"] for job in both["jobs"]] == list(range(7))
    refused = await ask(client, "jobs", experiment_id="reef", where="foood > 1")
    assert (refused["code"], "did you mean food?" in refused["message"]) == ("400", True)


async def every_job(client: Client) -> list[dict[str, Any]]:
    jobs, cursor = [], None
    while True:
        page = await ask(client, "jobs", experiment_id="reef", cursor=cursor)
        jobs += page["jobs"]
        if (cursor := page["cursor"]) is None:
            return jobs
