"""Plans in: every message is decided once, durably, before it is acknowledged."""

import os
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters import files
from ems_worker.service.base.poison import Guard
from tests.support.desk import CREATED_NS, Clock, Desk, plan


async def test_an_accepted_plan_is_decided_on_disk_and_acknowledged(tmp_path: Path) -> None:
    """The decision says how much it is and which message it was; the experiment is in the manifest."""
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


async def test_the_same_plan_again_is_a_duplicate(tmp_path: Path) -> None:
    """Nothing new happens; its decision has the message's own sequence."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan())
        again = await desk.submit(plan())
        assert (again["decision"], again["submission"]["seq"]) == ("duplicate", 2)
        assert len(desk.ledger.experiments()) == 1


async def test_another_plan_of_the_same_id_is_a_conflict_that_names_the_paths(tmp_path: Path) -> None:
    """The experiment that exists is untouched."""
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


async def test_a_conflict_names_ten_paths_at_most(tmp_path: Path) -> None:
    """And how many more there are."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(labels={f"a{n}": "x" for n in range(15)}))
        other = await desk.submit(plan(labels={f"a{n}": "y" for n in range(15)}))
        assert "and 5 more" in other["errors"][0]["message"]


async def test_an_invalid_plan_is_rejected_with_all_that_is_wrong(tmp_path: Path) -> None:
    """Each problem with its path, line and column."""
    text = b"experiment_id: reef\nbase_config: {food: 1}\nparameter_space:\n  fod: [1, 2]\nnum_replicates_per_run: 0\n"
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit(text)
        assert decision["decision"] == "rejected"
        found = {(one["path"], one["line"], one["column"]) for one in decision["errors"]}
        assert found == {("parameter_space.fod", 4, 3), ("num_replicates_per_run", 5, 25)}
        assert await desk.manifest.experiment("reef") is None
        assert desk.broker.acked == [1]


async def test_a_design_that_is_odd_brings_a_warning_and_one_that_is_empty_an_error(tmp_path: Path) -> None:
    """Each at its place: sobol samples that are no power of two; no combination that is left."""
    text = """experiment_id: reef
base_config: {food: 1.0}
parameter_space: {food: {dist: uniform, low: 0, high: 1}}
design: {sampler: sobol, samples: 6}
"""
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit(text.encode())
        assert decision["decision"] == "accepted"
        found = [(one["code"], one["path"], one["line"], one["column"]) for one in decision["warnings"]]
        assert found == [("sobol_samples", "design.samples", 4, 35)]
        empty = await desk.submit(text.replace(": reef", ": none").encode() + b'constraints: ["food > 1"]\n')
        assert [(one["code"], one["line"]) for one in empty["errors"]] == [("no_points", 5)]


async def test_a_decided_message_gets_its_decision_again(tmp_path: Path) -> None:
    """Whatever has changed since: here the number of jobs that are allowed."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.submit(plan(points=5), seq=7)
    async with Desk.open(tmp_path, max_jobs=1) as desk:
        again = await desk.submit(plan(points=5), seq=7)
        assert again == first
        assert desk.count("ems_submissions_total", decision="accepted") == 0


async def test_the_same_sequence_of_another_stream_is_another_message(tmp_path: Path) -> None:
    """A stream that was made anew counts from 1 again."""
    async with Desk.open(tmp_path) as desk:
        first = {"experiment_name": "Heat stress!", "base_config": {"food": 1}}
        one = await desk.submit(first, seq=1)
        other = await desk.submit(first, seq=1, stream_created_ns=CREATED_NS + 1)
        assert one["experiment_id"] != other["experiment_id"]
        assert one["experiment_id"].startswith("heat-stress-")


async def test_a_crash_between_record_and_acknowledgement_loses_nothing(tmp_path: Path) -> None:
    """The experiment goes on, and the redelivered message gets the same decision."""
    async with Desk.open(tmp_path) as desk:

        def crash(subject: str) -> errors.EmsError:
            return errors.BrokerUnavailable("gone")

        desk.broker.refuse = crash
        with pytest.raises(errors.BrokerUnavailable):
            await desk.submit(plan(), seq=3)
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.live("reef") is not None
        await desk.intake.publish_decisions()
        [heard] = desk.broker.of("decision")
        assert (heard["decision"], heard["submission"]["seq"]) == ("accepted", 3)
        assert await desk.submit(plan(), seq=3) == heard


async def test_bytes_that_say_nothing_go_to_the_dead_letters(tmp_path: Path) -> None:
    """With the reason; nothing is decided."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", b"\xff\xfe\x00")
        await desk.intake.take(message)
        [(kind, seq, reason)] = desk.broker.dead
        assert (kind, seq) == ("plan", 1)
        assert "UTF-8" in reason
        assert await desk.manifest.submission(message.identity) is None
        assert desk.count("ems_dead_letters_total", kind="plan") == 1


async def test_a_sequence_that_comes_again_is_another_plan(tmp_path: Path) -> None:
    """As after a power failure of the broker, which may lose the end of a stream: the message is a later one."""
    async with Desk.open(tmp_path) as desk:
        assert (await desk.submit(plan("lost"), seq=7))["experiment_id"] == "lost"
        desk.clock.seconds += 60
        assert (await desk.submit(plan("next"), seq=7))["experiment_id"] == "next"
        ids = [message_id for subject, _, message_id in desk.broker.published if "decision" in subject]
        assert len(set(ids)) == 2, "the broker would drop the second decision as a repetition of the first"


@pytest.mark.parametrize(
    ("limits", "more", "code", "setting"),
    [
        ({"max_jobs": 5}, {"points": 6}, "too_many_jobs", "EMS_MAX_JOBS"),
        ({"max_plan_bytes": 1024}, {"description": "x" * 1024}, "plan_too_large", "EMS_MAX_PLAN_BYTES"),
    ],
)
async def test_a_plan_over_a_limit_names_it(
    tmp_path: Path, limits: dict[str, Any], more: dict[str, Any], code: str, setting: str
) -> None:
    """Nothing of it is expanded."""
    async with Desk.open(tmp_path, **limits) as desk:
        decision = await desk.submit(plan(**more))
        [problem] = decision["errors"]
        assert problem["code"] == code
        assert setting in problem["message"]


async def test_a_reply_goes_only_under_the_prefixes_that_are_set(tmp_path: Path) -> None:
    """Else a submitter could have the worker publish a run event."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan("one"), headers={"Ems-Reply-To": "_INBOX.abc"})
        await desk.submit(plan("two"), headers={"Ems-Reply-To": "sim.run_completed"})
        await desk.submit(plan("three"), headers={"Ems-Reply-To": "_INBOX.worker.s1"})
        assert [(subject, document["experiment_id"]) for subject, document in desk.broker.replies] == [
            ("_INBOX.abc", "one")
        ]


@pytest.mark.parametrize("what", [plan("long"), b"{"], ids=["accepted", "rejected"])
async def test_a_reply_subject_that_no_broker_takes_is_ignored(tmp_path: Path, what: Any) -> None:
    """Publishing to it would cut the worker's connection, with each redelivery again."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(what, headers={"Ems-Reply-To": "_INBOX." + "x" * 5000})
        assert desk.broker.replies == []
        assert desk.broker.acked == [1]
        assert desk.count("ems_replies_refused_total") == 1


async def test_a_reply_recorded_under_other_settings_is_checked_again(tmp_path: Path) -> None:
    """A decision that an earlier worker recorded is published, and not sent to a reply subject no longer allowed."""
    async with Desk.open(tmp_path, reply_prefixes=("_INBOX.", "_OLD.")) as desk:
        desk.broker.refuse = lambda _: errors.BrokerUnavailable("away")
        with pytest.raises(errors.BrokerUnavailable):
            await desk.submit(plan(), headers={"Ems-Reply-To": "_OLD.abc"})
    async with Desk.open(tmp_path) as desk:
        await desk.intake.publish_decisions()
        assert len(desk.broker.of("decision")) == 1
        assert desk.broker.replies == []


async def test_the_subjects_token_names_the_publisher(tmp_path: Path) -> None:
    """None without one."""
    async with Desk.open(tmp_path) as desk:
        for subject, publisher in (("ems.experiment.submit.evolution", "evolution"), ("ems.experiment.submit", None)):
            message = desk.message(subject, plan(publisher or "nobody"))
            await desk.intake.take(message)
            stored = await desk.manifest.submission(message.identity)
            assert stored is not None
            assert stored.publisher == publisher


class TestBaseFiles:
    """A plan's path to a base file stays inside the root, whatever it says."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "bases"
        (root / "sub").mkdir(parents=True)
        (root / "sub" / "base.yaml").write_text("food: 1\nheat: 1.5\n")
        (tmp_path / "secret.yaml").write_text("food: 1\n")
        (root / "out.yaml").symlink_to(tmp_path / "secret.yaml")
        (root / "loop.yaml").symlink_to(root / "loop.yaml")
        return root

    async def test_its_content_counts_not_its_path(self, tmp_path: Path, root: Path) -> None:
        """The same plan with the content inline is a duplicate."""
        async with Desk.open(tmp_path / "data", base_config_root=root) as desk:
            asked = {"experiment_id": "reef", "parameter_space": {"food": [1, 2]}}
            decision = await desk.submit({**asked, "base_config_file_path": "sub/base.yaml"})
            assert decision["decision"] == "accepted"
            again = await desk.submit({**asked, "base_config": {"food": 1, "heat": 1.5}})
            assert again["decision"] == "duplicate"

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("../secret.yaml", "without '..'"),
            ("sub/../../secret.yaml", "without '..'"),
            ("{tmp}/secret.yaml", "inside the folder"),
            ("out.yaml", "leads out"),
            ("loop.yaml", "leads back to itself"),
            ("sub", "not a file"),
            ("nothing.yaml", "can't be read"),
            ("a\0b", "inside the folder"),
            ("x" * 5000, "can't be read"),
        ],
    )
    async def test_any_other_path_is_refused(self, tmp_path: Path, root: Path, path: str, why: str) -> None:
        """At the key that names it, and nobody learns what is there."""
        with pytest.raises(errors.PlanRejected) as caught:
            files.BaseFiles(root).read(path.replace("{tmp}", str(tmp_path)))
        [problem] = caught.value.problems
        assert (problem.code, problem.path) == ("base_not_readable", "base_config_file_path")
        assert why in problem.message

    async def test_a_file_that_is_no_configuration_is_told_with_its_own_line(self, tmp_path: Path, root: Path) -> None:
        """At the plan's key, with the place in the file in words."""
        (root / "bad.yaml").write_text("food: 1\nfood: 2\n")
        (root / "bytes.yaml").write_bytes(b"\xff\xfe")
        async with Desk.open(tmp_path / "data", base_config_root=root) as desk:
            decision = await desk.submit({"experiment_id": "reef", "base_config_path": "bad.yaml"})
            [problem] = decision["errors"]
            assert problem["path"] == "base_config_path"
            assert "bad.yaml, line 2" in problem["message"]
            decision = await desk.submit({"experiment_id": "reef", "base_config_path": "bytes.yaml"})
            assert decision["errors"][0]["code"] == "base_not_readable"

    async def test_a_file_that_is_too_large_is_refused_unread(self, root: Path) -> None:
        """By its size."""
        with (root / "large.yaml").open("wb") as large:
            os.truncate(large.fileno(), 17 * 1024 * 1024)
        with pytest.raises(errors.PlanRejected, match="more than 16,777,216 bytes"):
            files.BaseFiles(root).read("large.yaml")

    async def test_without_a_root_the_content_has_to_come_along(self, tmp_path: Path) -> None:
        """The answer says how."""
        async with Desk.open(tmp_path) as desk:
            decision = await desk.submit({"experiment_id": "reef", "base_config_file_path": "base.yaml"})
            assert "EMS_BASE_CONFIG_ROOT" in decision["errors"][0]["message"]


async def test_a_message_that_outlived_the_worker_three_times_is_put_aside(tmp_path: Path) -> None:
    """Unread; one that only was delivered often is decided."""
    clock = Clock()
    for _ in range(3):
        async with Desk.open(tmp_path, clock) as desk:
            suspect = desk.message("ems.experiment.submit", plan(), seq=9, delivered=6)

            async def die(_: object) -> None:
                raise MemoryError

            with pytest.raises(MemoryError):
                await Guard(desk.manifest, desk.broker, desk.metrics, "plan").process([suspect], die)
    async with Desk.open(tmp_path, clock) as desk:
        often = desk.message("ems.experiment.submit", plan("other"), seq=10, delivered=50)
        await Guard(desk.manifest, desk.broker, desk.metrics, "plan").process([suspect, often], desk.intake.take_again)
        assert [(kind, seq) for kind, seq, _ in desk.broker.dead] == [("plan", 9)]
        assert desk.ledger.live("other") is not None


async def test_a_broker_that_is_away_makes_no_message_a_suspect(tmp_path: Path) -> None:
    """Nobody died of it."""
    async with Desk.open(tmp_path) as desk:
        often = desk.message("ems.experiment.submit", plan(), delivered=50)

        async def away(_: object) -> None:
            raise errors.BrokerUnavailable("gone")

        for _ in range(5):
            with pytest.raises(errors.BrokerUnavailable):
                await Guard(desk.manifest, desk.broker, desk.metrics, "plan").process([often], away)
        await Guard(desk.manifest, desk.broker, desk.metrics, "plan").process([often], desk.intake.take_again)
        assert desk.broker.dead == []
        assert desk.ledger.live("reef") is not None
