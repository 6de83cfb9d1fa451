"""Checks a plan before a command uses it, and prints its problems and warnings."""

from ems_worker import errors
from ems_worker.cli import numbers, plans, problems, shell
from ems_worker.core.documents import documents
from ems_worker.core.records import PlanDecision
from ems_worker.service.intake import check as plan_check


def validated(file: plans.PlanFile, *, json: bool, consequence: str = "") -> plan_check.Checked | None:
    """Prints the plan's warnings and returns the checked plan; prints all problems of an invalid plan and returns None.

    With `json`, the problems are printed as an `ems.decision.v1`. Otherwise `consequence` ends the summary line.
    """
    try:
        checked = plans.check(file)
    except errors.PlanRejected as rejected:
        if json:
            shell.out_json(documents.decision(PlanDecision.REJECTED, errors=rejected.problems))
        else:
            problems.show(rejected.problems, file)
            number = len(rejected.problems)
            shell.say(f"{numbers.counted(number, 'problem')} in {file.name}{consequence}")
        return None
    problems.show(checked.plan.warnings, file, kind="warning")
    return checked


def quietly(file: plans.PlanFile) -> plan_check.Checked | None:
    """The checked plan; None if it is invalid, of which nothing is printed."""
    try:
        return plans.check(file)
    except errors.PlanRejected:
        return None


def decision(checked: plan_check.Checked) -> documents.Document:
    """The `ems.decision.v1` for a valid plan that is not published."""
    return documents.decision(
        PlanDecision.ACCEPTED,
        experiment_id=checked.plan.experiment_id,
        points=checked.count.points,
        jobs=checked.count.jobs,
        plan_sha=checked.plan_sha,
        warnings=checked.plan.warnings,
    )
