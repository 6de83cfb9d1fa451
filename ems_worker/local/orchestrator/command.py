"""The command line of a simulator: words with placeholders, filled for each run without a shell."""

import difflib
import json
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ems_worker.local.orchestrator import quoting

Configuration = Mapping[str, Any]
ConfigFormat = Literal["yaml", "json"]

# Placeholders that don't name a parameter. `output_dir` is the older name of `output`.
FIXED: Final = ("config", "config.json", "seed", "output", "output_dir", "simulation_id", "args")
_ALL: Final = "args"
# A doubled brace stands for a single one. Braces around anything else are left to the program.
_BRACED: Final = re.compile(r"\{\{([A-Za-z_][\w.-]*)\}\}|\{([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}")
# A program would take such a name for another option, or for an option and its value.
_NO_OPTION: Final = re.compile(r"|-.*|.*[\s=].*", re.DOTALL)


class CannotFill(ValueError):
    """The configuration of a run lacks a value that the command line needs, or has one that can't be passed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line with the placeholders of `FIXED` and `{NAME}` for any value of the configuration, `{a.b}` too.

    It runs in `directory`, if one is given, with `environment` added to that of the orchestrator. With `config_format`
    json, `{config}` is a JSON file.
    """

    arguments: tuple[str, ...]
    config_format: ConfigFormat = "yaml"
    directory: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, text: str, *, parameters: Collection[str] | None = None, config_format: ConfigFormat = "yaml"
    ) -> "Command":
        """Splits a command line as a shell does. `parameters` are all that a run can have, if that is known.

        Raises ValueError if it is empty, or has an open quote or an unknown placeholder. If the parameters aren't
        known, only a misspelt one of `FIXED` is unknown.
        """
        arguments = tuple(shlex.split(text))
        if not arguments:
            raise ValueError("it is empty")
        command = cls(arguments, config_format)
        for name in command.placeholders:
            if name not in FIXED and (parameters is None or name not in parameters):
                _check(name, parameters)
        return command

    @classmethod
    def default(cls) -> "Command":
        """The built-in fish simulator.

        It is run by its path, not as a module: importing this package would take longer than the simulation. -P keeps
        its directory off the module path, where `platform.py` would hide the module of the standard library.
        """
        return cls((sys.executable, "-P", str(Path(__file__).parents[1] / "simulator.py")))

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in braces, each once."""
        found = (match[2] for word in self.arguments for match in _BRACED.finditer(word))
        return tuple(dict.fromkeys(name for name in found if name))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The placeholders that name a value of the configuration."""
        return tuple(name for name in self.placeholders if name not in FIXED)

    @property
    def needs_configuration(self) -> bool:
        """Whether the configuration must be read to start a run."""
        return self.writes_json or _ALL in self.placeholders or bool(self.parameters)

    @property
    def writes_json(self) -> bool:
        """Whether the program gets its configuration as a JSON file."""
        return self.config_format == "json" or "config.json" in self.placeholders

    def filled(self, values: Mapping[str, str], configuration: Configuration) -> list[str]:
        """The arguments of one run. Placeholders in values aren't placeholders. Raises CannotFill."""
        words: list[str] = []
        scripts = quoting.scripts(self.arguments)
        for number, argument in enumerate(self.arguments):
            if number in scripts:
                words.append(_BRACED.sub(lambda match: _quoted(match, values, configuration), argument))
            elif argument == f"{{{_ALL}}}":
                words += flags(configuration)
            else:
                words.append(_BRACED.sub(lambda match: _replaced(match, values, configuration), argument))
        if any("\0" in word for word in words):
            raise CannotFill("a value of the configuration has a NUL character, which no command line can have")
        return words


def flags(configuration: Configuration) -> list[str]:
    """Every value of a configuration as `--name value`. Null, which no flag can say, is left out. Raises CannotFill."""
    words: list[str] = []
    for name, value in leaves(configuration):
        if value is None:
            continue
        if _NO_OPTION.fullmatch(name):
            raise CannotFill(f"{name[:100]!r} can't be the name of an option, which {{args}} makes of each name")
        words += (f"--{name}", shown(value))
    return words


def leaves(configuration: Configuration, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names and the values of a configuration; a list is a value."""
    for key, value in configuration.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def shown(value: Any) -> str:
    """A value as a word of a command line: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _replaced(match: "re.Match[str]", values: Mapping[str, str], configuration: Configuration) -> str:
    if match[1]:
        return f"{{{match[1]}}}"
    name = match[2]
    if name == _ALL:  # inside a word
        return shlex.join(flags(configuration))
    return values[name] if name in values else shown(_value(configuration, name))


def _quoted(match: "re.Match[str]", values: Mapping[str, str], configuration: Configuration) -> str:
    """What replaces a placeholder in the script of a shell: a value is never part of the script."""
    if match[1]:
        return _replaced(match, values, configuration)
    name = match[2]
    words = flags(configuration) if name == _ALL else [_replaced(match, values, configuration)]
    try:
        return quoting.quoted(words, match.string[: match.start()])
    except quoting.UnquotableError:
        raise CannotFill(
            f"{{{name}}} has characters that the shell gives a meaning to, and stands where they can't be quoted: pass "
            f"it after the script, as in sh -c '... \"$1\"' sh {{{name}}}"
        ) from None


def _value(configuration: Configuration, name: str) -> Any:
    found: Any = configuration
    for segment in name.split("."):
        if isinstance(found, Mapping) and segment in found:
            found = found[segment]
        elif isinstance(found, list) and segment.isdecimal() and int(segment) < len(found):
            found = found[int(segment)]
        else:
            raise CannotFill(f"the configuration has no {name!r}, which the command line needs as {{{name}}}")
    return found


def _check(name: str, parameters: Collection[str] | None) -> None:
    """Raises ValueError for a name that stands for nothing."""
    if parameters is None:
        if matches := difflib.get_close_matches(name, FIXED, n=1, cutoff=0.75):
            raise ValueError(f"there is no {{{name}}}; did you mean {{{matches[0]}}}?")
        return
    known = [*FIXED, *parameters]
    ending = [each for each in parameters if each.endswith(f".{name}")]
    if matches := ending[:1] or difflib.get_close_matches(name, known, n=1):
        raise ValueError(f"there is no {{{name}}}; did you mean {{{matches[0]}}}?")
    if name.isidentifier():
        raise ValueError(f"{{{name}}} names no parameter: give its values, such as {name}=1,2,3")
    raise ValueError(f"{{{name}}} names no parameter; there are {', '.join(f'{{{each}}}' for each in known[:12])}")
