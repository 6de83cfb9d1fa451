"""What to write in place of words that other tools have, or that are easily mistaken for ours: a table for each place.

A remedy without spaces is the name that is meant, and is suggested; any other is added to the message.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

Remedies = Mapping[str, str]

_SAMPLED: Final = "write {dist: uniform, low: ..., high: ...} for any number, and {dist: int, ...} for whole numbers"
ADAPTIVE: Final = "a search that learns isn't supported yet: publish the points of each generation as runs"
ATTEMPTS: Final = "max_attempts counts the first attempt too: 2 retries are max_attempts: 3"
_STEPPED: Final = "write {range: {start: ..., stop: ..., step: ...}}"
_COUNTED: Final = "write {range: {start: ..., stop: ..., num: ...}}"
_UNIFORM: Final = "write {dist: uniform, low: ..., high: ...}"
_LOGUNIFORM: Final = "write {dist: loguniform, low: ..., high: ...}"
_NORMAL: Final = "write {dist: normal, mean: ..., std: ...}"
_INT: Final = "write {dist: int, low: ..., high: ...}"
# A remedy that is a name, after 'write' or not.
_NAME: Final = re.compile(r"(?:write )?(\w+)")


def meant(remedies: Remedies, words: Iterable[str]) -> frozenset[str]:
    """Our names for these words."""
    matches = [_NAME.match(remedies[word]) for word in words if word in remedies]
    return frozenset(match[1] for match in matches if match is not None)


AXIS: Final[Remedies] = {
    "min": _SAMPLED,
    "max": _SAMPLED,
    "low": _SAMPLED,
    "high": _SAMPLED,
    "minval": _SAMPLED,
    "maxval": _SAMPLED,
    "lower_bounds": _SAMPLED,
    "upper_bounds": _SAMPLED,
    "start": _COUNTED,
    "stop": _COUNTED,
    "num": _COUNTED,
    "count": _COUNTED,
    "step": _STEPPED,
    "first": _STEPPED,
    "last": _STEPPED,
    "stepped-value-set": _STEPPED,
    "steppedValueSet": _STEPPED,
    "partitions": f"{_COUNTED}, with num one more than partitions",
    "num_steps": f"{_COUNTED}, with num one more than steps",
    "enumerated-value-set": "values",
    "enumeratedValueSet": "values",
    "among": "values",
    "elements": "values",
    "vals": "values",
    "discrete_design_set": "values",
    "val": "value",
    "const": "value",
    "from": _STEPPED,
    "to": _STEPPED,
    "by": _STEPPED,
    "end": _STEPPED,
    "increment": _STEPPED,
    "lower": _SAMPLED,
    "upper": _SAMPLED,
    "arange": _STEPPED,
    "geomspace": "logrange",
    "if": "when",
    "condition": "when",
    "name": "as",
    "alias": "as",
    "title": "label",
    "description": "label",
    "units": "unit",
    "choice": "values",
    "choices": "values",
    "grid_search": "values",
    "distribution": "dist",
    "type": "dist",
    "q": "write {range: {start, stop, step}}, or {dist: int, low, high} for whole numbers",
    "log": "write dist: loguniform",
    "mu": "mean",
    "sigma": "std",
    "uniform": _UNIFORM,
    "double": _UNIFORM,
    "continuous_design": _UNIFORM,
    "uniform_uncertain": _UNIFORM,
    "loguniform": _LOGUNIFORM,
    "loguniform_uncertain": _LOGUNIFORM,
    "normal": _NORMAL,
    "normal_uncertain": _NORMAL,
    "int": _INT,
    "randint": _INT,
    "qrandint": _INT,
    "lograndint": _INT,
    "discrete_design_range": _INT,
    "float": _UNIFORM,
    "interval": _UNIFORM,
    "quniform": _STEPPED,
    "randn": _NORMAL,
    "sample_from": "expr",
    "suggest_float": f"{_UNIFORM}, or loguniform for log=True",
    "suggest_int": _INT,
    "suggest_categorical": "values",
    "constant": "value",
    "linspace": "range",
    "logspace": "logrange",
}
# Keys of an axis with a 'dist'.
DISTRIBUTION: Final[Remedies] = {
    **AXIS,
    "min": "low",
    "max": "high",
    "minval": "low",
    "maxval": "high",
    "lower_bounds": "low",
    "upper_bounds": "high",
    "lower": "low",
    "upper": "high",
    "vals": "values",
    "start": "low",
    "stop": "high",
    "loc": "mean",
    "scale": "std",
    "means": "mean",
    "std_deviations": "std",
    "choices": "values",
}
RANGE: Final[Remedies] = {
    "min": "start",
    "max": "stop",
    "low": "start",
    "high": "stop",
    "first": "start",
    "last": "stop",
    "end": "stop",
    "minval": "start",
    "maxval": "stop",
    "lower_bounds": "start",
    "upper_bounds": "stop",
    "steps": "num",
    "count": "num",
    "n": "num",
    "partitions": "write num, one more than partitions",
    "num_steps": "write num, one more than steps",
    "by": "step",
    "q": "step",
    "from": "start",
    "to": "stop",
    "lower": "start",
    "upper": "stop",
    "increment": "step",
    "log": "write {logrange: {start, stop, num}}",
}
DESIGN: Final[Remedies] = {
    "method": "sampler",
    "type": "sampler",
    "n": "samples",
    "count": "samples",
    "num_samples": "samples",
    "n_trials": "samples",
    "max_trials": "samples",
    "sample": "samples",
    "run_cap": "samples",
    "sampling": "sampler",
    "exploration": "sampler",
    "searcher": "sampler",
    "sample_type": "sampler",
}
SEEDS: Final[Remedies] = {"seed": "root", "experiment_seed": "root", "random_seed": "root"}
METRIC: Final[Remedies] = {
    "direction": "goal",
    "mode": "goal",
    "metric": "name",
    "smaller_is_better": "write goal: minimize, or maximize if it is false",
    "target": "a run isn't stopped at a value: cancel jobs with 'ems cancel --where'",
}
LIMITS: Final[Remedies] = {
    "timeout": "run_timeout",
    "timeout_seconds": "run_timeout_seconds",
    "retries": ATTEMPTS,
    "max_retries": ATTEMPTS,
    "retry": ATTEMPTS,
    "max_failures": ATTEMPTS,
    "max_restarts": ATTEMPTS,
    "max_slots": "max_concurrent",
    "max_concurrent_trials": "max_concurrent",
    "evaluation_concurrency": "max_concurrent",
    "concurrency": "max_concurrent",
    "parallel": "max_concurrent",
    "n_jobs": "max_concurrent",
}
RESOURCES: Final[Remedies] = {
    "cpu": "cpus",
    "cores": "cpus",
    "gpu": "gpus",
    "slots_per_trial": "gpus",
    "mem": "memory",
    "ram": "memory",
    "time": "write limits: {run_timeout: ...}",
    "walltime": "write limits: {run_timeout: ...}",
}
SETTLE: Final[Remedies] = {"timeout": "grace", "timeout_seconds": "grace_seconds"}
RUN: Final[Remedies] = {
    "name": "run_id_suffix",
    "id": "run_id_suffix",
    "params": "params_override",
    "parameters": "params_override",
    "overrides": "params_override",
    "config": "params_override",
    "tags": "labels",
}

# Values in place of words.
GOALS: Final[Remedies] = {"max": "maximize", "maximise": "maximize", "min": "minimize", "minimise": "minimize"}
SAMPLERS: Final[Remedies] = {
    "latin_hypercube": "lhs",
    "latin": "lhs",
    "hypercube": "lhs",
    "latinhypercube": "lhs",
    "factorial": "grid",
    "multidim_parameter_study": "grid",
    "qmc": "sobol",
    "bayes": ADAPTIVE,
    "tpe": ADAPTIVE,
    "TPESampler": ADAPTIVE,
    "CmaEsSampler": ADAPTIVE,
    "NSGAIISampler": ADAPTIVE,
    "GPSampler": ADAPTIVE,
    "GridSampler": "grid",
    "BruteForceSampler": "grid",
    "RandomSampler": "random",
    "QMCSampler": "sobol",
    "LHS": "lhs",
}
DISTRIBUTIONS: Final[Remedies] = {
    "int_uniform": "int",
    "randint": "int",
    "quniform": "int",
    "q_uniform": "int",
    "log_uniform": "loguniform",
    "log_uniform_values": "loguniform",
    "lognormal_values": "normal",
    "categorical": "choice",
    "gaussian": "normal",
    "gauss": "normal",
    "constant": "choice",
    "double": "uniform",
    "float": "uniform",
    "real": "uniform",
    "integer": "int",
    "continuous_design": "uniform",
    "uniform_uncertain": "uniform",
    "log": "loguniform",
    "loguniform_uncertain": "loguniform",
    "normal_uncertain": "normal",
    "discrete_design_range": "int",
    "discrete_design_set": "choice",
}
