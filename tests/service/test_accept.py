"""Each plan message is decided once, and the decision is recorded before the message is acknowledged."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.language import version
from ems_worker.core.records import NewExperiment, Submission
from tests.support import wait
from tests.support.desk import CREATED_NS, Desk, background, plan


async def test_an_accepted_plan_is_recorded_and_acknowledged(tmp_path: Path) -> None:
    """The decision has the numbers of points and jobs and identifies the message; the manifest has the experiment."""
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit(plan(points=3, replicates=2))
        assert decision["decision"] == "accepted"
        assert (decision["points"], decision["jobs"]) == (3, 6)
        assert decision["submission"] == {"stream": "STREAM", "seq": 1}
        assert decision["errors"] == []
        assert desk.broker.acked == [1]
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert record.spec.plan_sha == decision["plan_sha"]
        assert await desk.manifest.unpublished_decisions() == []
        assert desk.count("ems_submissions_total", decision="accepted") == 1


async def test_a_plan_that_is_sent_again_is_a_duplicate(tmp_path: Path) -> None:
    """No experiment is created; the decision has the sequence number of the second message."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan())
        again = await desk.submit(plan())
        assert (again["decision"], again["submission"]["seq"]) == ("duplicate", 2)
        assert len(desk.ledger.experiments()) == 1


async def test_another_plan_with_the_same_id_is_a_conflict_that_lists_the_differing_paths(tmp_path: Path) -> None:
    """The existing experiment is unchanged."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.submit(plan())
        other = await desk.submit(plan(points=3, tags=["new"]))
        assert other["decision"] == "rejected"
        assert other["experiment_id"] is None
        [problem] = other["errors"]
        assert problem["code"] == "conflict"
        assert "parameter_space.food" in problem["message"]
        assert "tags" in problem["message"]
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert record.spec.plan_sha == first["plan_sha"]


async def test_a_conflict_lists_at_most_ten_paths(tmp_path: Path) -> None:
    """The message has the number of the other paths."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(labels={f"a{n}": "x" for n in range(15)}))
        other = await desk.submit(plan(labels={f"a{n}": "y" for n in range(15)}))
        assert "and 5 more" in other["errors"][0]["message"]


async def test_an_invalid_plan_is_rejected_with_all_its_problems(tmp_path: Path) -> None:
    """Each problem has its path, line and column."""
    text = b"experiment_id: reef\nbase_config: {food: 1}\nparameter_space:\n  fod: [1, 2]\nnum_replicates_per_run: 0\n"
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit(text)
        assert decision["decision"] == "rejected"
        locations = {(problem["path"], problem["line"], problem["column"]) for problem in decision["errors"]}
        assert locations == {("parameter_space.fod", 4, 3), ("num_replicates_per_run", 5, 25)}
        assert await desk.manifest.experiment("reef") is None
        assert desk.broker.acked == [1]


async def test_a_questionable_design_has_a_warning_and_an_empty_design_is_rejected(tmp_path: Path) -> None:
    """A Sobol design should have a power of two as its size; a design without points is an error."""
    text = """experiment_id: reef
base_config: {food: 1.0}
parameter_space: {food: {dist: uniform, low: 0, high: 1}}
design: {sampler: sobol, samples: 6}
"""
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit(text.encode())
        assert decision["decision"] == "accepted"
        [warning] = decision["warnings"]
        location = (warning["path"], warning["line"], warning["column"])
        assert (warning["code"], *location) == ("sobol_samples", "design.samples", 4, 35)
        empty = await desk.submit(text.replace(": reef", ": none").encode() + b'constraints: ["food > 1"]\n')
        assert [(problem["code"], problem["line"]) for problem in empty["errors"]] == [("no_points", 5)]


async def test_a_redelivered_message_gets_the_same_decision(tmp_path: Path) -> None:
    """This holds even after a change of the settings that would lead to another decision."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.submit(plan(points=5), seq=7)
    async with Desk.open(tmp_path, max_jobs=1) as desk:
        again = await desk.submit(plan(points=5), seq=7)
        assert again == first
        assert desk.count("ems_submissions_total", decision="accepted") == 0


async def test_a_message_with_the_same_sequence_number_in_another_stream_is_another_message(tmp_path: Path) -> None:
    """A stream that was deleted and created again numbers its messages from 1."""
    async with Desk.open(tmp_path) as desk:
        body = {"experiment_name": "Heat stress!", "base_config": {"food": 1}}
        first = await desk.submit(body, seq=1)
        second = await desk.submit(body, seq=1, stream_created_ns=CREATED_NS + 1)
        assert first["experiment_id"] != second["experiment_id"]
        assert first["experiment_id"].startswith("heat-stress-")


async def test_a_crash_before_the_decision_is_published_loses_nothing(tmp_path: Path) -> None:
    """The next worker continues the experiment and publishes the decision, also for the redelivered message."""
    async with Desk.open(tmp_path) as desk:
        desk.broker.refuse = lambda _: errors.BrokerUnavailable("gone")
        with pytest.raises(errors.BrokerUnavailable):
            await desk.submit(plan(), seq=3)
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.live("reef") is not None
        async with background(desk.intake.run()):
            await wait.until(lambda: desk.broker.of("decision"))
        [decision] = desk.broker.of("decision")
        assert (decision["decision"], decision["submission"]["seq"]) == ("accepted", 3)
        assert await desk.submit(plan(), seq=3) == decision


async def test_bytes_that_are_no_text_become_a_dead_letter(tmp_path: Path) -> None:
    """The letter has the reason, and no decision is recorded."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", b"\xff\xfe\x00")
        await desk.intake.take(message)
        [(kind, seq, reason)] = desk.broker.dead
        assert (kind, seq) == ("plan", 1)
        assert "UTF-8" in reason
        assert await desk.manifest.submission(message.identity) is None
        assert desk.count("ems_dead_letters_total", kind="plan") == 1


async def test_a_later_message_with_a_reused_sequence_number_is_another_plan(tmp_path: Path) -> None:
    """A power failure of the broker may lose the end of a stream, whose sequence numbers are then used again."""
    async with Desk.open(tmp_path) as desk:
        assert (await desk.submit(plan("lost"), seq=7))["experiment_id"] == "lost"
        desk.clock.seconds += 60
        assert (await desk.submit(plan("next"), seq=7))["experiment_id"] == "next"
        ids = [message_id for subject, _, message_id in desk.broker.published if "decision" in subject]
        assert len(set(ids)) == 2, "the broker would drop the second decision as a duplicate"


@pytest.mark.parametrize(
    ("settings", "changes", "code", "setting"),
    [
        ({"max_jobs": 5}, {"points": 6}, "too_many_jobs", "EMS_MAX_JOBS"),
        ({"max_plan_bytes": 1024}, {"description": "x" * 1024}, "plan_too_large", "EMS_MAX_PLAN_BYTES"),
    ],
)
async def test_a_plan_that_exceeds_a_limit_is_rejected(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], code: str, setting: str
) -> None:
    """The message names the setting."""
    async with Desk.open(tmp_path, **settings) as desk:
        decision = await desk.submit(plan(**changes))
        [problem] = decision["errors"]
        assert problem["code"] == code
        assert setting in problem["message"]


async def test_the_last_token_of_the_subject_is_the_publisher(tmp_path: Path) -> None:
    """A message without that token has no publisher."""
    async with Desk.open(tmp_path) as desk:
        for subject, publisher in (("ems.experiment.submit.evolution", "evolution"), ("ems.experiment.submit", None)):
            message = desk.message(subject, plan(publisher or "unnamed"))
            await desk.intake.take(message)
            stored = await desk.manifest.submission(message.identity)
            assert stored is not None
            assert stored.publisher == publisher


async def test_an_experiment_is_recorded_with_its_hold_and_the_version_of_the_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is whether it stays open until `close`."""
    async with Desk.open(tmp_path) as desk:
        recorded: list[NewExperiment | None] = []
        record = desk.manifest.record_submission

        async def watched(submission: Submission, new: NewExperiment | None) -> None:
            recorded.append(new)
            await record(submission, new)

        monkeypatch.setattr(desk.manifest, "record_submission", watched)
        await desk.submit(plan(hold=True, keep_open=True))
        await desk.submit(plan("plain"))
        assert [each and (each.hold, each.keep_open, each.language) for each in recorded] == [
            (True, True, version.VERSION),
            (False, False, version.VERSION),
        ]
