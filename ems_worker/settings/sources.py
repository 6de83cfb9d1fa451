"""Reads settings from their sources, and describes those that can't be used."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pydantic
from pydantic_core import ErrorDetails

from ems_worker import errors
from ems_worker.settings import contexts, masking, model, running, table
from ems_worker.settings.ways import Access, Channel

FILE_VARIABLE = "EMS_CONFIG"
# The variables of other NATS programs.
_FALLBACKS = {
    "NATS_URL": "server",
    "NATS_CONTEXT": "context",
    "NATS_USER": "nats_user",
    "NATS_PASSWORD": "nats_password",
    "NATS_TOKEN": "nats_token",
    "NATS_CREDS": "nats_creds",
    "NATS_NKEY": "nats_nkey",
    "NATS_CERT": "nats_cert",
    "NATS_KEY": "nats_key",
    "NATS_CA": "nats_ca",
    "NATS_INBOX_PREFIX": "nats_inbox_prefix",
}
_IDENTITY = ("nats_user", "nats_password", "nats_token", "nats_creds", "nats_nkey")
# Every setting about the address of NATS and the credentials for it.
CONNECTION = (
    "context",
    *(name for name in model.Settings.model_fields if name == "server" or name.startswith("nats_")),
)
# Every setting about the orchestrator.
ORCHESTRATOR = tuple(name for name in model.Settings.model_fields if name.startswith("orchestrator"))
# Known variables that aren't settings: the path of the settings file, and the point at which a test crashes the worker.
_OTHER_VARIABLES = frozenset({FILE_VARIABLE, "EMS_CRASH_AT"})
# Kubernetes sets these in every container for a service whose name starts with `ems`.
_SERVICE_LINK = re.compile(r"EMS_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT(?:_\d+_(?:TCP|UDP|SCTP)\w*)?)")

# Name, value and origin of a setting.
_Given = tuple[str, object, str]


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[model.Settings, Mapping[str, str]]:
    """The settings, and the origin of each value.

    The origin is `default`, the path of the file, the variable, the flag, the context of the nats command that one of
    these names, or the platform of `ems up` at the address of the server. A flag that is None was not given. `file`
    takes precedence over EMS_CONFIG.

    Raises errors.SettingsError with every problem: unknown names with a suggestion, invalid values with their origin.
    """
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    problems: list[str] = []
    layers = _Layers(environ)
    layers.add(_from_file(file, problems))
    layers.add(_from_other_programs(environ))
    layers.add(_from_environment(environ, problems))
    layers.add(_from_flags(flags))
    settings = layers.validated(problems)
    if (platform := running.find(settings.access, environ)) is not None:
        layers.join(platform)
        settings = layers.validated([])
    return settings, {name: layers.origins.get(name, "default") for name in model.Settings.model_fields}


def access(flags: Mapping[str, object], environ: Mapping[str, str]) -> Access:
    """How to connect to NATS, for a program that needs no other setting.

    Flags take precedence over the EMS_NATS_* variables, and these over NATS_*. If none of them is given, the context
    applies that `nats context select` chose. An address without credentials at which this user runs a platform of
    `ems up` gets the credentials of that platform.

    Raises errors.SettingsError.
    """
    return running.joined(_given_access(flags, environ), environ)


def channel(flags: Mapping[str, object], environ: Mapping[str, str]) -> Channel:
    """How to connect to the orchestrator, for a program that needs no other setting.

    Flags take precedence over the EMS_ORCHESTRATOR* variables. If neither names an orchestrator, it is that of the
    platform of `ems up` at the address of NATS. Raises errors.SettingsError.
    """
    known = {table.variable(name): name for name in ORCHESTRATOR}
    layers = _Layers(environ)
    layers.add((known[name], environ[name], name) for name in sorted(environ) if name in known and environ[name])
    layers.add(_from_flags({name: value for name, value in flags.items() if name in ORCHESTRATOR}))
    if "orchestrator" not in layers.values:
        nats = {name: value for name, value in flags.items() if name not in ORCHESTRATOR}
        if (platform := running.find(_given_access(nats, environ), environ)) is not None:
            layers.join(platform)
    return layers.validated([]).channel


def _given_access(flags: Mapping[str, object], environ: Mapping[str, str]) -> Access:
    """How to connect to NATS, without the credentials of a platform of `ems up`."""
    known = {table.variable(name): name for name in CONNECTION}
    layers = _Layers(environ)
    layers.add(_from_other_programs(environ))
    layers.add((known[name], environ[name], name) for name in sorted(environ) if name in known and environ[name])
    layers.add(_from_flags(flags))
    if not layers.values and (name := contexts.selected(environ)) is not None:
        layers.add([("context", name, "nats context select")])
    return layers.validated([]).access


class _Layers:
    """The values of all sources, added in rising precedence, and the origin of each value.

    Address and credentials belong together: a context replaces every lower-ranking connection setting, and one kind of
    credentials replaces any other kind.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}

    def add(self, layer: Iterable[_Given]) -> None:
        """Adds every setting of one source."""
        given = {name: (value, origin) for name, value, origin in layer}
        context, origin = given.get("context", (None, ""))
        if isinstance(context, str) and context:
            self._remove(CONNECTION)
            for name, value in contexts.read(context, self._environ):
                self._set(name, value, f"context {context}")
        if any(value not in (None, "") for name, (value, _) in given.items() if name in _IDENTITY):
            self._remove(_IDENTITY)
        for name, (value, origin) in given.items():
            self._set(name, value, origin)

    def join(self, platform: running.Platform) -> None:
        """Adds the settings of a running platform; its orchestrator only if no other is given."""
        origin = f"running platform {platform.path}"
        for name, value in (
            ("server", (platform.url,)),
            ("nats_user", platform.user),
            ("nats_password", platform.password),
            ("nats_nkey", platform.nkey),
            ("nats_ca", platform.ca),
            ("nats_inbox_prefix", platform.inbox_prefix),
        ):
            if value is not None:
                self._set(name, value, origin)
        if "orchestrator" not in self.values:
            self._set("orchestrator", platform.orchestrator, origin)
            self._set("orchestrator_token", platform.orchestrator_token, origin)

    def validated(self, problems: list[str]) -> model.Settings:
        """The settings. Raises errors.SettingsError with these problems and those of the values."""
        try:
            settings = model.Settings.model_validate(self.values)
        except pydantic.ValidationError as invalid:
            problems += [_described(error, self.origins) for error in invalid.errors(include_url=False)]
            raise errors.SettingsError("\n".join(problems)) from invalid
        if problems:
            raise errors.SettingsError("\n".join(problems))
        return settings

    def _set(self, name: str, value: object, origin: str) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.values.pop(name, None)
            self.origins.pop(name, None)


def _from_file(file: Path | None, problems: list[str]) -> Iterator[_Given]:
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
            problems.append(f"unknown setting {name} in {file}{_suggestion(name, model.Settings.model_fields)}")


def _from_other_programs(environ: Mapping[str, str]) -> Iterator[_Given]:
    """The settings in variables that the `nats` command reads too."""
    for variable, name in _FALLBACKS.items():
        if environ.get(variable):
            yield name, environ[variable], variable


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    known = {table.variable(name): name for name in model.Settings.model_fields}
    for variable in sorted(environ):
        if variable in known:
            yield known[variable], environ[variable], variable
        elif variable.startswith(table.PREFIX) and not _is_expected(variable):
            suggestion = _suggestion(
                variable.removeprefix(table.PREFIX), map(str.upper, model.Settings.model_fields), table.PREFIX
            )
            problems.append(f"unknown environment variable {variable}{suggestion}")


def _is_expected(variable: str) -> bool:
    return variable in _OTHER_VARIABLES or _SERVICE_LINK.fullmatch(variable) is not None


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            yield name, value, table.flag(name)


def _suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{matches[0]}?" if matches else ""


def _described(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    given = error["input"]
    # Text may be a URL with a password.
    unmasked = masking.url(given) if isinstance(given, str) else table.shown(given)
    value = masking.MASK if name in table.SECRETS else unmasked
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} (from {origins[name]}): {value!r} {message}"
