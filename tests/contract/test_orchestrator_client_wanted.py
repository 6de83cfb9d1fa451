"""Start commands that are not wanted any more when their turn comes: the orchestrator never sees them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from tests.support import orchestrator_client as support

BATCH, SINGLE = "StartSimulations", "StartSimulation"
WORDS = "no command was sent: the run is not wanted any more"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orchestrator") / "log"


def _unsent(name: str) -> Answer:
    return Answer(name, Outcome.UNSENT, "", WORDS)


def _until_asked_again(*unwanted: str) -> Callable[[str], bool]:
    """Wanted the first time, and these not any more after that."""
    asked: set[str] = set()

    def wanted(name: str) -> bool:
        again = name in asked
        asked.add(name)
        return not again or name not in unwanted

    return wanted


async def test_commands_that_are_not_wanted_are_left_out_of_their_batch(log: Path) -> None:
    """They have a call of their own that was never made, and the others their answers."""
    calls: list[Call] = []
    async with support.pair(log) as (_, client):
        await client.start([support.start(name) for name in "abc"], calls.append, lambda name: name != "b")
        assert (await support.calls(client))[BATCH] == 1
    unsent, made = calls
    assert (unsent.answers, unsent.seconds) == ((_unsent("b"),), 0.0)
    assert [(answer.simulation_id, answer.outcome) for answer in made.answers] == [
        ("a", Outcome.SUBMITTED),
        ("c", Outcome.SUBMITTED),
    ]


@pytest.mark.parametrize("names", ["a", "abc"])
async def test_no_call_is_made_if_no_command_is_wanted(log: Path, names: str) -> None:
    """Neither a single one nor a batch. The window stays as it was."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(client, [support.start(name) for name in names], lambda _: False)
        assert answers == [_unsent(name) for name in names]
        counts = await support.calls(client)
        assert (counts.get(BATCH, 0), counts.get(SINGLE, 0)) == (0, 0)
        assert client.rpc_window == 64
        assert len(await support.answers(client, [support.start(name) for name in names])) == len(names)


async def test_a_command_that_waits_for_a_slot_is_asked_for_when_it_has_one(log: Path) -> None:
    """Until then a person may have cancelled its run."""
    calls: list[Call] = []
    async with support.pair(log, "--delay", "0.2", window=1) as (_, client):
        starts = [support.start(name, alone="yes") for name in ("first", "second")]
        await client.start(starts, calls.append, lambda name: name == "first" or not calls)
        assert (await support.calls(client))[SINGLE] == 1
    assert [call.answers[0].outcome for call in calls] == [Outcome.SUBMITTED, Outcome.UNSENT]


async def test_commands_are_asked_for_again_before_they_are_sent_one_by_one(log: Path) -> None:
    """The orchestrator doesn't take batches, or has refused this one as a whole."""
    async with support.pair(log, "--without", BATCH) as (_, client):
        answers = await support.answers(client, [support.start(name) for name in "abc"], _until_asked_again("b"))
        assert [answer.outcome for answer in answers] == [Outcome.SUBMITTED, Outcome.UNSENT, Outcome.SUBMITTED]
        assert (await support.calls(client))[SINGLE] == 2
    async with support.pair(log) as (_, client):
        starts = [support.start("a"), support.start("b", abort="INVALID_ARGUMENT", message="because")]
        answers = await support.answers(client, starts, _until_asked_again("b"))
        assert [answer.outcome for answer in answers] == [Outcome.SUBMITTED, Outcome.UNSENT]
