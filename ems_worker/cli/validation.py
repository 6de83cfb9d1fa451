"""The check that every command makes before it does anything with a plan, and what it says about it."""

from ems_worker import errors
from ems_worker.cli import plans, problems, shell
from ems_worker.core.documents import documents
from ems_worker.core.records import PlanDecision
from ems_worker.service.intake import check as plan_check


def validated(file: plans.PlanFile, *, json: bool, consequence: str = "") -> plan_check.Checked | None:
    """The valid plan, its warnings told; None if it is not valid, which was told with all its problems.

    With `json` an invalid plan is told as its `ems.decision.v1`.
    """
    try:
        checked = plans.check(file)
    except errors.PlanRejected as rejected:
        if json:
            shell.out_json(documents.decision(PlanDecision.REJECTED, errors=rejected.problems))
        else:
            problems.tell(rejected.problems, file)
            number = len(rejected.problems)
            shell.say(f"{number} {'problem' if number == 1 else 'problems'} in {file.name}{consequence}")
        return None
    problems.tell(checked.plan.warnings, file, kind="warning")
    return checked


def decision(checked: plan_check.Checked) -> documents.Document:
    """The `ems.decision.v1` of a valid plan that was not sent."""
    return documents.decision(
        PlanDecision.ACCEPTED,
        experiment_id=checked.plan.experiment_id,
        points=checked.count.points,
        jobs=checked.count.jobs,
        plan_sha=checked.plan_sha,
        warnings=checked.plan.warnings,
    )
