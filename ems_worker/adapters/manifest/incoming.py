"""What comes from outside, to rows of the manifest and back: submissions and requested changes."""

from ems_worker.adapters.manifest import reads
from ems_worker.adapters.manifest.rows import Row
from ems_worker.core.records import ChangeRequest, PlanDecision, Submission


def submission(row: reads.SubmissionRow) -> Submission:
    return Submission(
        stream=row.stream,
        stream_created_ns=row.stream_created_ns,
        seq=row.seq,
        stored_ms=row.stored_ms,
        subject=row.subject,
        received_ms=row.received_ms,
        decision=PlanDecision(row.verdict),
        document=row.document.encode(),
        experiment_id=row.experiment_id,
        plan_sha=row.plan_sha,
        publisher=row.publisher,
        reply_to=row.reply_to,
    )


def new_submission(submission: Submission) -> Row:
    """A row of insert_submission."""
    return (
        *submission.identity,
        submission.stream,
        submission.subject,
        submission.received_ms,
        submission.decision.value,
        submission.document.decode(),
        submission.experiment_id,
        submission.plan_sha,
        submission.publisher,
        submission.reply_to,
        submission.digest,
    )


def new_request(request: ChangeRequest) -> Row:
    """A row of insert_request."""
    return (
        request.request_id,
        request.experiment,
        request.verb,
        request.body,
        request.received_ms,
        request.answer,
    )


def request(row: reads.RequestRow) -> ChangeRequest:
    return ChangeRequest(
        request_id=row.request_id,
        experiment=row.experiment,
        verb=row.verb,
        body=row.body,
        received_ms=row.received_ms,
        answer=row.answer,
    )
