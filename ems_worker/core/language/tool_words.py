"""Words of OpenMOLE, Dakota, NetLogo, GAMA and Determined, with what a plan has in their place."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_DESIGN: Final = "design: {sampler: ..., samples: ...}"
_STEPS: Final = "range: {start, stop, step}"

# By word, what may be meant. What begins with a key or choice that a plan can have in the word's place is suggested.
WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    # Where the parameters are, and which of their combinations are run.
    "hyperparameters": ("parameter_space",),
    "hparams": ("parameter_space",),
    "sampling": ("sampler", _DESIGN),
    "exploration": ("sampler", _DESIGN),
    "searcher": ("sampler", _DESIGN),
    "sample_type": ("sampler", _DESIGN),
    "hypercube": ("lhs", "design: {sampler: lhs, samples: ...}"),
    "latinhypercube": ("lhs", "design: {sampler: lhs, samples: ...}"),
    "factorial": ("grid",),
    "multidim_parameter_study": ("grid", "parameter_space"),
    "centered_parameter_study": ("runs",),
    "list_parameter_study": ("runs",),
    "list_of_points": ("runs",),
    "sub-experiment": ("runs",),
    "subExperiment": ("runs",),
    "max_trials": ("samples", "design: {samples: ...}"),
    "sample": ("samples", "design: {samples: ...}"),
    "filter": ("constraints",),
    # One parameter.
    "stepped-value-set": (_STEPS,),
    "steppedValueSet": (_STEPS,),
    "enumerated-value-set": ("values",),
    "enumeratedValueSet": ("values",),
    "first": ("start", _STEPS),
    "last": ("stop", _STEPS),
    "partitions": ("num (one more than partitions)", "range: {start, stop, num}, with num one more than partitions"),
    "num_steps": ("num (one more than steps)", "range: {start, stop, num}, with num one more than steps"),
    "minval": ("start", "low"),
    "maxval": ("stop", "high"),
    "lower_bounds": ("start", "low"),
    "upper_bounds": ("stop", "high"),
    "among": ("values",),
    "elements": ("values",),
    "vals": ("values",),
    "val": ("value",),
    "const": ("value",),
    "double": ("uniform", "dist: uniform"),
    "continuous_design": ("uniform", "dist: uniform"),
    "uniform_uncertain": ("uniform", "dist: uniform"),
    "loguniform_uncertain": ("loguniform", "dist: loguniform"),
    "normal_uncertain": ("normal", "dist: normal"),
    "lognormal_uncertain": ("lognormal", "dist: lognormal"),
    "triangular_uncertain": ("triangular", "dist: triangular"),
    "set_probabilities": ("weights",),
    "modes": ("mode",),
    "discrete_design_range": ("int", "dist: int"),
    "discrete_design_set": ("choice", "values"),
    "log": ("loguniform", "logrange: {start, stop, num}"),
    "means": ("mean",),
    "std_deviations": ("std",),
    # How often, and how.
    "repetitions": ("num_replicates_per_run",),
    "repeat": ("num_replicates_per_run",),
    "replication": ("num_replicates_per_run",),
    "replications": ("num_replicates_per_run",),
    "keep_seed": ("seeds: {policy: common}",),
    "experiment_seed": ("root", "seeds: {root: ...}"),
    "reproducibility": ("seeds: {root: ...}",),
    "responses": ("metrics_to_track",),
    "response_functions": ("metrics_to_track",),
    "run-metrics": ("metrics_to_track",),
    "smaller_is_better": ("goal: minimize", "metrics_to_track: [{name: ..., goal: minimize}]"),
    "max_restarts": ("max_attempts (one more than restarts)", "limits: {max_attempts: ...}, one more than restarts"),
    "max_slots": ("max_concurrent", "limits: {max_concurrent: ...}"),
    "max_concurrent_trials": ("max_concurrent", "limits: {max_concurrent: ...}"),
    "evaluation_concurrency": ("max_concurrent", "limits: {max_concurrent: ...}"),
    "workspace": ("group",),
}
_NAME: Final = re.compile(r"\w+")


def meant(word: str, known: Iterable[str]) -> str | None:
    """What a plan has in place of this word, where it can have the `known` keys or choices; None if it has nothing."""
    if (suggestions := WORDS.get(word)) is None:
        return None
    names = frozenset(known)
    return next((text for text in suggestions if begins(text) in names), None)


def begins(suggestion: str) -> str:
    """The key or choice that a suggestion begins with."""
    name = _NAME.match(suggestion)
    assert name is not None, suggestion
    return name[0]
