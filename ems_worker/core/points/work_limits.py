"""How much work counting the points of a plan may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """How much work counting a plan may take. A step takes about half a microsecond."""

    # The steps of building all trees: one per digit, more per evaluation.
    tree_steps: int = 1_200_000
    # The combinations at which each derived value is evaluated while a plan is parsed, and the steps for all of them.
    early_evaluations: int = 200
    early_steps: int = 1_200_000
    # The combinations that may have to be evaluated one by one, about 10 us each, and the steps of all of them.
    combinations: int = 2_000_000
    combination_steps: int = 400_000_000
    # The steps of evaluating derived values at all combinations.
    derivation_steps: int = 100_000_000
    # The looks at combinations in search of a point at which an expression has no value: at once, and in steps.
    early_looks: int = 10_000
    looks: int = 1_000_000
    # The values that are compared to find the first of equal entries.
    comparisons: int = 40_000_000
    # The combinations evaluated between two yields, and the steps of them: about 20 ms.
    combinations_per_yield: int = 2_000
    steps_per_yield: int = 100_000


# The limits of `plan.parse` unless it is given others.
DEFAULT = WorkLimits()
