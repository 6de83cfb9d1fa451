"""What to write in place of words that other tools have, or that are easily mistaken for ours.

A remedy without spaces is the name that is meant, and is suggested; any other is added to the message.
"""

from collections.abc import Mapping
from typing import Final

Remedies = Mapping[str, str]

_GRID: Final = "lists and ranges always form a grid; what has a 'dist' is sampled by design: {sampler, samples}"
_PROGRAM: Final = "the orchestrator decides which program runs; a plan only has its configuration"
_SAMPLED: Final = "write {dist: uniform, low: ..., high: ...} for any number, and {dist: int, ...} for whole numbers"
_MORE: Final = "metrics_to_track: [{name: ..., goal: minimize}]"
_STOPPING: Final = "not part of a plan: cancel jobs with 'ems cancel --where', or set limits: {fail_fast: true}"
_ATTEMPTS: Final = "max_attempts counts the first attempt too: 2 retries are max_attempts: 3"

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
    "retries": _ATTEMPTS,
    "max_concurrent": "limits.max_concurrent",
    "priority": "limits.priority",
}
AXIS: Final[Remedies] = {
    "min": _SAMPLED,
    "max": _SAMPLED,
    "low": _SAMPLED,
    "high": _SAMPLED,
    "start": "a range is {range: {start, stop, num}}",
    "stop": "a range is {range: {start, stop, num}}",
    "num": "a range is {range: {start, stop, num}}",
    "choice": "values",
    "choices": "values",
    "grid_search": "values",
    "distribution": "dist",
    "type": "dist",
    "q": "write {range: {start, stop, step}}, or 'step' beside a 'dist'",
    "log": "write dist: loguniform, or logint for whole numbers",
    "mu": "mean",
    "sigma": "std",
    "uniform": "write {dist: uniform, low: ..., high: ...}",
    "loguniform": "write {dist: loguniform, low: ..., high: ...}",
    "quniform": "write {dist: uniform, low: ..., high: ..., step: ...}",
    "randint": "write {dist: int, low: ..., high: ...}",
    "normal": "write {dist: normal, mean: ..., std: ...}",
    "lognormal": "write {dist: lognormal, mean: ..., std: ...}, those of the logarithm",
    "suggest_float": "write {dist: uniform, low: ..., high: ...}, or loguniform for log=True",
    "suggest_int": "write {dist: int, low: ..., high: ...}",
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
    "start": "low",
    "stop": "high",
    "a": "low",
    "b": "high",
    "lower": "low",
    "upper": "high",
    "loc": "mean",
    "scale": "std",
    "sd": "std",
    "q": "step",
    "c": "mode",
    "peak": "mode",
    "most_likely": "mode",
    "choices": "values",
    "categories": "values",
    "p": "weights",
    "probs": "weights",
    "probabilities": "weights",
    "distinct": "unique",
}
RANGE: Final[Remedies] = {
    "min": "start",
    "max": "stop",
    "low": "start",
    "high": "stop",
    "first": "start",
    "last": "stop",
    "end": "stop",
    "steps": "num",
    "count": "num",
    "n": "num",
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
    "run_cap": "samples",
}
METRIC: Final[Remedies] = {
    "direction": "goal",
    "mode": "goal",
    "metric": "name",
    "target": "a run isn't stopped at a value: cancel jobs with 'ems cancel --where'",
}
LIMITS: Final[Remedies] = {
    "timeout": "run_timeout",
    "timeout_seconds": "run_timeout_seconds",
    "retries": _ATTEMPTS,
    "max_retries": _ATTEMPTS,
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
    "qmc": "sobol",
    "bayes": "adaptive",
    "tpe": "adaptive",
}
DISTRIBUTIONS: Final[Remedies] = {
    "int_uniform": "int",
    "randint": "int",
    "qrandint": "int, with a 'step'",
    "quniform": "uniform, with a 'step'",
    "q_uniform": "uniform, with a 'step'",
    "log_uniform": "loguniform",
    "log_uniform_values": "loguniform",
    "reciprocal": "loguniform",
    "qloguniform": "loguniform, with a 'step'",
    "q_log_uniform": "loguniform, with a 'step'",
    "q_log_uniform_values": "loguniform, with a 'step'",
    "lograndint": "logint",
    "log_int": "logint",
    "qlograndint": "logint, with a 'step'",
    "gaussian": "normal",
    "gauss": "normal",
    "randn": "normal",
    "qnormal": "normal, with a 'step'",
    "q_normal": "normal, with a 'step'",
    "qrandn": "normal, with a 'step'",
    "log_normal": "lognormal",
    "lognormal_values": "lognormal",
    "qlognormal": "lognormal, with a 'step'",
    "q_log_normal": "lognormal, with a 'step'",
    "truncated_normal": "truncnormal",
    "trunc_normal": "truncnormal",
    "truncnorm": "truncnormal",
    "triang": "triangular",
    "categorical": "choice",
    "constant": "choice",
}
