"""Replies to plan messages are sent only to the subjects that the settings allow."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from tests.support.desk import Desk, plan


async def test_a_reply_is_sent_only_to_a_subject_with_an_allowed_prefix(tmp_path: Path) -> None:
    """Otherwise a publisher could make the worker publish a run event, or write to the worker's own inbox."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan("allowed"), headers={"Ems-Reply-To": "_INBOX.abc"})
        await desk.submit(plan("event"), headers={"Ems-Reply-To": "sim.run_completed"})
        await desk.submit(plan("own-inbox"), headers={"Ems-Reply-To": "_INBOX.worker.s1"})
        assert [(subject, document["experiment_id"]) for subject, document in desk.broker.replies] == [
            ("_INBOX.abc", "allowed")
        ]


@pytest.mark.parametrize("body", [plan("long"), b"{"], ids=["accepted", "rejected"])
async def test_a_reply_subject_that_is_too_long_for_the_broker_is_ignored(tmp_path: Path, body: Any) -> None:
    """Publishing to it would close the worker's connection, again with each redelivery of the message."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(body, headers={"Ems-Reply-To": "_INBOX." + "x" * 5000})
        assert desk.broker.replies == []
        assert desk.broker.acked == [1]
        assert desk.count("ems_replies_refused_total") == 1


async def test_a_reply_recorded_under_other_settings_is_checked_again(tmp_path: Path) -> None:
    """The decision is published, but not sent to a reply subject that is no longer allowed."""
    async with Desk.open(tmp_path, reply_prefixes=("_INBOX.", "_OLD.")) as desk:
        desk.broker.refuse = lambda _: errors.BrokerUnavailable("away")
        with pytest.raises(errors.BrokerUnavailable):
            await desk.submit(plan(), headers={"Ems-Reply-To": "_OLD.abc"})
    async with Desk.open(tmp_path) as desk:
        await desk.intake.publish_decisions()
        assert len(desk.broker.of("decision")) == 1
        assert desk.broker.replies == []
