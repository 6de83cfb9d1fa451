"""The exact size of a plan: what counting it finds once it has run to the end."""

from ems_worker.core.points import space
from ems_worker.core.points.plan import Plan


def size(plan: Plan) -> space.SpaceSize:
    """The last result of counting. Raises PlanRejected as counting does."""
    *_, last = space.settle(plan)
    return last
