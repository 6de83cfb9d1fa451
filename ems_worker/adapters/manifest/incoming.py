"""What comes from outside, to rows of the manifest and back: submissions and requested changes."""

import json

from ems_worker.adapters.manifest import reads, steering_reads
from ems_worker.adapters.manifest.rows import Row
from ems_worker.core.documents import documents
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.records import Change, PlanDecision, Submission


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


def new_change(change: Change) -> Row:
    """A row of insert_change."""
    return (
        change.request_id,
        change.experiment,
        change.verb,
        change.request,
        change.received_ms,
        change.language,
        *_progress(change),
    )


def changed_change(change: Change) -> Row:
    """A row of update_change."""
    return change.number, *_progress(change)


def _progress(change: Change) -> Row:
    point, replicate = (None, None) if change.judged is None else change.judged
    return (
        change.changed,
        change.state.value,
        change.round,
        change.revision,
        point,
        replicate,
        documents.encode(change.counts).decode(),
        change.added,
        change.withdrawn,
        change.unchanged,
        change.refused,
        change.applied_ms,
        change.published,
    )


def change(row: steering_reads.ChangeRow) -> Change:
    judged = None
    if row.judged_point is not None and row.judged_replicate is not None:
        judged = row.judged_point, row.judged_replicate
    return Change(
        request_id=row.request_id,
        experiment=row.experiment,
        verb=row.verb,
        request=row.request,
        received_ms=row.received_ms,
        language=row.language,
        state=ExperimentState(row.state),
        round=row.round,
        revision=row.revision,
        number=row.number,
        changed=row.changed == 1,
        judged=judged,
        counts=json.loads(row.counts),
        added=row.added,
        withdrawn=row.withdrawn,
        unchanged=row.unchanged,
        refused=row.refused,
        applied_ms=row.applied_ms,
        published=row.published,
    )
