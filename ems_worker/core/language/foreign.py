"""What to write in place of words that other tools have, or that are easily mistaken for ours: a table for each place.

A remedy without spaces is the name that is meant, and is suggested; any other is added to the message.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

Remedies = Mapping[str, str]

_GRID: Final = "lists and ranges always form a grid; what has a 'dist' is sampled by design: {sampler, samples}"
_PROGRAM: Final = "the orchestrator decides which program runs; a plan only has its configuration"
_SAMPLED: Final = "write {dist: uniform, low: ..., high: ...} for any number, and {dist: int, ...} for whole numbers"
_MORE: Final = "metrics_to_track: [{name: ..., goal: minimize}]"
_STOPPING: Final = "not part of a plan: cancel jobs with 'ems cancel --where', or set limits: {fail_fast: true}"
_ATTEMPTS: Final = "max_attempts counts the first attempt too: 2 retries are max_attempts: 3"
_DESIGN: Final = "write design: {sampler: ..., samples: ...}"
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


PLAN: Final[Remedies] = {
    "sampler": "design.sampler",
    "samples": "design.samples",
    "zip": "design.zip",
    "max_jobs": "design.max_jobs",
    "num_samples": "design.samples",
    "n_trials": "design.samples",
    "run_cap": "design.samples",
    "count": "design.samples",
    "seed": "seeds.root",
    "random_seed": "seeds.root",
    "method": _GRID,
    "sweep": _GRID,
    "sweeper": _GRID,
    "hydra": _GRID,
    "hydra.sweep": _GRID,
    "hydra.sweeper": _GRID,
    "hydra.sweeper.params": "parameter_space",
    "search_space": "parameter_space",
    "space": "parameter_space",
    "params": "parameter_space",
    "defaults": "base_config_file_path",
    "config": "base_config",
    "program": _PROGRAM,
    "command": _PROGRAM,
    "entrypoint": _PROGRAM,
    "metric": f"write {_MORE}",
    "objective": f"write {_MORE}",
    "direction": f"write {_MORE}",
    "goal": f"write {_MORE}",
    "repetitions": "num_replicates_per_run",
    "repeats": "num_replicates_per_run",
    "early_terminate": _STOPPING,
    "pruner": _STOPPING,
    "project": "group",
    "entity": "group",
    "timeout": "limits.run_timeout",
    "retries": f"write limits: {{max_attempts: ...}}; {_ATTEMPTS}",
    "max_restarts": f"write limits: {{max_attempts: ...}}; {_ATTEMPTS}",
    "max_concurrent": "limits.max_concurrent",
    "max_concurrent_trials": "limits.max_concurrent",
    "max_slots": "limits.max_concurrent",
    "evaluation_concurrency": "limits.max_concurrent",
    "priority": "limits.priority",
    "hyperparameters": "parameter_space",
    "hparams": "parameter_space",
    "multidim_parameter_study": "parameter_space",
    "centered_parameter_study": "runs",
    "list_parameter_study": "runs",
    "list_of_points": "runs",
    "sub-experiment": "runs",
    "subExperiment": "runs",
    "sampling": _DESIGN,
    "exploration": _DESIGN,
    "searcher": _DESIGN,
    "sample_type": _DESIGN,
    "hypercube": "write design: {sampler: lhs, samples: ...}",
    "latinhypercube": "write design: {sampler: lhs, samples: ...}",
    "max_trials": "design.samples",
    "sample": "design.samples",
    "filter": "constraints",
    "repeat": "num_replicates_per_run",
    "replication": "num_replicates_per_run",
    "replications": "num_replicates_per_run",
    "keep_seed": "write seeds: {policy: common}, or independent if it is false",
    "experiment_seed": "seeds.root",
    "reproducibility": "write seeds: {root: ...}",
    "responses": "metrics_to_track",
    "response_functions": "metrics_to_track",
    "run-metrics": "metrics_to_track",
    "smaller_is_better": f"write {_MORE}",
    "workspace": "group",
}
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
    "randint": _INT,
    "discrete_design_range": _INT,
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
    "retries": _ATTEMPTS,
    "max_retries": _ATTEMPTS,
    "max_restarts": _ATTEMPTS,
    "max_slots": "max_concurrent",
    "max_concurrent_trials": "max_concurrent",
    "evaluation_concurrency": "max_concurrent",
    "concurrency": "max_concurrent",
    "parallel": "max_concurrent",
    "n_jobs": "max_concurrent",
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
    "bayes": "adaptive",
    "tpe": "adaptive",
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
    "continuous_design": "uniform",
    "uniform_uncertain": "uniform",
    "log": "loguniform",
    "loguniform_uncertain": "loguniform",
    "normal_uncertain": "normal",
    "discrete_design_range": "int",
    "discrete_design_set": "choice",
}
