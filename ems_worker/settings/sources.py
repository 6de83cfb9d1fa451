"""Where settings come from, and what is said about those that can't be used."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pydantic
from pydantic_core import ErrorDetails

from ems_worker import errors
from ems_worker.settings import contexts, model, running, table
from ems_worker.settings.ways import Access

FILE_VARIABLE = "EMS_CONFIG"
# What other NATS programs read.
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
# All that says where NATS is and how to get in.
CONNECTION = (
    "context",
    *(name for name in model.Settings.model_fields if name == "server" or name.startswith("nats_")),
)
# Known, and no setting: where the settings' file is, and where tests make the worker crash.
_OTHER_VARIABLES = frozenset({FILE_VARIABLE, "EMS_CRASH_AT"})
# Kubernetes puts these into every container for a service whose name starts with `ems`; nobody chose them.
_SERVICE_LINK = re.compile(r"EMS_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT(?:_\d+_(?:TCP|UDP|SCTP)\w*)?)")

# Name, value and origin of one given setting.
_Given = tuple[str, object, str]


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[model.Settings, Mapping[str, str]]:
    """The settings, and for each where its value comes from: `default`, the file's path, the variable, the flag, the
    context of the nats command that one of them named, or the platform of `ems up` that the server's address leads to.

    Flags that are None weren't given. `file` stands before EMS_CONFIG. Raises errors.SettingsError with everything
    that is wrong: unknown names with the nearest known one, bad values with where they were given.
    """
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    wrong: list[str] = []
    given = _Layers(environ)
    given.add(_from_file(file, wrong))
    given.add(_from_other_programs(environ))
    given.add(_from_environment(environ, wrong))
    given.add(_from_flags(flags))
    settings = given.validated(wrong)
    if (platform := running.find(settings.access, environ)) is not None:
        given.join(platform)
        settings = given.validated([])
    return settings, {name: given.origins.get(name, "default") for name in model.Settings.model_fields}


def access(flags: Mapping[str, object], environ: Mapping[str, str]) -> Access:
    """How to get into NATS, for a program that needs no other setting: flags stand before the variables EMS_NATS_*,
    these before NATS_*, and where none of them is given the context counts that `nats context select` chose. What has
    no credentials and leads to a platform of `ems up` of this user's gets that platform's own.

    Raises errors.SettingsError.
    """
    known = {table.variable(name): name for name in CONNECTION}
    given = _Layers(environ)
    given.add(_from_other_programs(environ))
    given.add((known[name], environ[name], name) for name in sorted(environ) if name in known and environ[name])
    given.add(_from_flags(flags))
    if not given.values and (name := contexts.selected(environ)) is not None:
        given.add([("context", name, "nats context select")])
    return running.joined(given.validated([]).access, environ)


class _Layers:
    """Values of rising rank, and where each comes from.

    Who we are and where we go belong together: a context replaces all of the connection that ranks lower, and one way
    of proving who we are replaces another.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}

    def add(self, layer: Iterable[_Given]) -> None:
        """Everything that one source gives."""
        given = {name: (value, origin) for name, value, origin in layer}
        named, origin = given.get("context", (None, ""))
        if isinstance(named, str) and named:
            self._forget(CONNECTION)
            for name, value in contexts.read(named, self._environ):
                self._set(name, value, f"context {named}")
        if any(value not in (None, "") for name, (value, _) in given.items() if name in _IDENTITY):
            self._forget(_IDENTITY)
        for name, (value, origin) in given.items():
            self._set(name, value, origin)

    def join(self, platform: running.Platform) -> None:
        """What a platform that runs here says of itself; the orchestrator only where no other was named."""
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

    def validated(self, wrong: list[str]) -> model.Settings:
        """The settings. Raises errors.SettingsError with what is wrong, and with what was before."""
        try:
            settings = model.Settings.model_validate(self.values)
        except pydantic.ValidationError as invalid:
            wrong += [_said(error, self.origins) for error in invalid.errors(include_url=False)]
            raise errors.SettingsError("\n".join(wrong)) from invalid
        if wrong:
            raise errors.SettingsError("\n".join(wrong))
        return settings

    def _set(self, name: str, value: object, origin: str) -> None:
        self.values[name] = value
        self.origins[name] = origin

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.values.pop(name, None)
            self.origins.pop(name, None)


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


def _from_other_programs(environ: Mapping[str, str]) -> Iterator[_Given]:
    """What the `nats` command reads too."""
    for variable, name in _FALLBACKS.items():
        if environ.get(variable):
            yield name, environ[variable], variable


def _from_environment(environ: Mapping[str, str], wrong: list[str]) -> Iterator[_Given]:
    known = {table.variable(name): name for name in model.Settings.model_fields}
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
    value = table.SECRET if name in table.SECRETS else table.shown([given] if isinstance(given, str) else given)
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{name} (from {origins[name]}): {value!r} {message}"
