"""Where settings come from, and what is said about those that can't be used."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pydantic
from pydantic_core import ErrorDetails

from ems_worker import errors
from ems_worker.settings import model, table

FILE_VARIABLE = "EMS_CONFIG"
# What other NATS programs read.
SERVER_FALLBACK = "NATS_URL"
# Known, and no setting: where the settings' file is, and where tests make the worker crash.
_OTHER_VARIABLES = frozenset({FILE_VARIABLE, "EMS_CRASH_AT"})
# Kubernetes puts these into every container for a service whose name starts with `ems`; nobody chose them.
_SERVICE_LINK = re.compile(r"EMS_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT(?:_\d+_(?:TCP|UDP|SCTP)\w*)?)")

# Name, value and origin of one given setting.
_Given = tuple[str, object, str]


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[model.Settings, Mapping[str, str]]:
    """The settings, and for each where its value comes from: `default`, the file's path, the variable or the flag.

    Flags that are None weren't given. `file` stands before EMS_CONFIG. Raises errors.SettingsError with everything
    that is wrong: unknown names with the nearest known one, bad values with where they were given.
    """
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    wrong: list[str] = []
    values: dict[str, object] = {}
    origins = dict.fromkeys(model.Settings.model_fields, "default")
    for layer in (_from_file(file, wrong), _from_environment(environ, wrong), _from_flags(flags)):
        for name, value, origin in layer:
            values[name] = value
            origins[name] = origin
    try:
        settings = model.Settings.model_validate(values)
    except pydantic.ValidationError as invalid:
        wrong += [_said(error, origins) for error in invalid.errors(include_url=False)]
        raise errors.SettingsError("\n".join(wrong)) from invalid
    if wrong:
        raise errors.SettingsError("\n".join(wrong))
    return settings, origins


def server(flag: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The NATS servers, for a program that needs no other setting. Raises errors.SettingsError."""
    given: dict[str, str | None] = {"--server": flag}
    given |= {variable: environ.get(variable) for variable in (table.variable("server"), SERVER_FALLBACK)}
    origin, value = next(((origin, value) for origin, value in given.items() if value), ("default", None))
    try:
        return model.Settings.model_validate({"server": value} if value else {}).server
    except pydantic.ValidationError as invalid:
        wrong = [_said(error, {"server": origin}) for error in invalid.errors(include_url=False)]
        raise errors.SettingsError("\n".join(wrong)) from invalid


def _from_file(file: Path | None, wrong: list[str]) -> Iterator[_Given]:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as failed:
        raise errors.SettingsError(f"the settings file {file} can't be read: {failed.strerror}") from failed
    except ValueError as failed:  # what tomllib and the UTF-8 decoder raise
        raise errors.SettingsError(f"the settings file {file} is not TOML: {failed}") from failed
    for name, value in content.items():
        if name in model.Settings.model_fields:
            yield name, value, str(file)
        else:
            wrong.append(f"unknown setting {name} in {file}{_meant(name, model.Settings.model_fields)}")


def _from_environment(environ: Mapping[str, str], wrong: list[str]) -> Iterator[_Given]:
    known = {table.variable(name): name for name in model.Settings.model_fields}
    if environ.get(SERVER_FALLBACK):
        yield "server", environ[SERVER_FALLBACK], SERVER_FALLBACK
    for variable in sorted(environ):
        if variable in known:
            yield known[variable], environ[variable], variable
        elif variable.startswith(table.PREFIX) and not _is_expected(variable):
            near = _meant(
                variable.removeprefix(table.PREFIX), map(str.upper, model.Settings.model_fields), table.PREFIX
            )
            wrong.append(f"unknown environment variable {variable}{near}")


def _is_expected(variable: str) -> bool:
    return variable in _OTHER_VARIABLES or _SERVICE_LINK.fullmatch(variable) is not None


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            yield name, value, table.flag(name)


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _said(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    given = error["input"]
    # As a list, so that a password in a URL is left out of the message.
    value = table.shown([given] if isinstance(given, str) else given)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} (from {origins[name]}): {value!r} {message}"
