"""What identifies a message and a submission, and what a redelivery is answered with."""

import json

from msgspec.structs import replace

from ems_worker.core.documents import documents
from ems_worker.core.lifecycle import job
from ems_worker.core.records import PlanDecision, Submission
from ems_worker.core.wire import Message

MESSAGE = Message("EMS_PLANS", 1, 7, "ems.experiment.submit", b"{}", {}, 1, 5, None)


def test_a_message_keeps_its_identity_when_it_is_delivered_again() -> None:
    """The count of deliveries and the token change; another stored message has another identity."""
    assert replace(MESSAGE, delivered=4, token="again").identity == MESSAGE.identity
    others = [replace(MESSAGE, seq=8), replace(MESSAGE, stream_created_ns=2), replace(MESSAGE, published_ms=6)]
    assert len({message.identity for message in [MESSAGE, *others]}) == 4


def test_a_submission_has_the_identity_of_its_message() -> None:
    """By it a redelivered message gets the decision it had."""
    submission = Submission(
        stream=MESSAGE.stream,
        stream_created_ns=MESSAGE.stream_created_ns,
        seq=MESSAGE.seq,
        stored_ms=MESSAGE.published_ms,
        subject=MESSAGE.subject,
        received_ms=9,
        decision=PlanDecision.ACCEPTED,
        document=b"{}",
    )
    assert submission.identity == MESSAGE.identity


def test_the_decision_of_a_duplicate_repeats_the_accepted_one() -> None:
    """Its own are the verdict and the submission that it answers."""
    accepted = documents.decision(PlanDecision.ACCEPTED, experiment_id="reef", points=3, jobs=6, stream="S", seq=1)
    again = documents.repeated(json.dumps(accepted).encode(), "S", 2)
    assert again == {**accepted, "decision": "duplicate", "submission": {"stream": "S", "seq": 2}}


def test_no_retry_is_due_later_than_the_longest_backoff() -> None:
    """A due time beyond it was recorded under a wall clock that was ahead."""
    attempts = [job.backoff_seconds(attempt, f"reef-{name}") for attempt in range(1, 20) for name in range(50)]
    assert max(attempts) <= (job.latest_due_ms(0) + 1) / 1000 <= 2 * max(attempts)
