"""How a program lists its commands in groups, and finds one by its name, by an alias, or by a word of another tool."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import typer.core

_SUGGESTIONS = 3


class Group(typer.core.TyperGroup):
    """The commands of a program.

    `aliases`: other names of commands; they work like the name, and the help shows them beside it. `meant`: words that
    are no commands, with the commands that a user of another tool may mean by them.
    """

    aliases: Mapping[str, str] = {}
    meant: Mapping[str, Sequence[str]] = {}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(self._unknown(ctx, args[0]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands under the titles of their groups, in the order in which they were added."""
        sections: dict[str, list[str]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                sections.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append(name)
        # One width for all groups, so that their texts begin in the same column.
        width = max((len(self._names(name)) for names in sections.values() for name in names), default=0)
        for title, names in sections.items():
            with formatter.section(title):
                about = formatter.width - width - 6
                formatter.write_dl(
                    [(self._names(name).ljust(width), self.commands[name].get_short_help_str(about)) for name in names]
                )

    def _names(self, name: str) -> str:
        return ", ".join([name, *(alias for alias, of in self.aliases.items() if of == name)])

    def _unknown(self, ctx: Any, word: str) -> str:
        """Says that there is no such command, and names those that are probably meant."""
        near = difflib.get_close_matches(word, [*self.commands, *self.aliases, *self.meant], _SUGGESTIONS)
        words = (name for one in (word, *near) for name in self.meant.get(one, (one,)))
        known = [name for name in dict.fromkeys(self.aliases.get(one, one) for one in words) if name in self.commands]
        if not known:
            return f"there is no command {word!r}"
        width = max(map(len, known))
        listed = [
            f"  {ctx.command_path} {name:{width}}  {self.commands[name].get_short_help_str(70)}" for name in known
        ]
        return "\n".join([f"there is no command {word!r}; did you mean", *listed])


def group(aliases: Mapping[str, str], meant: Mapping[str, Sequence[str]] = {}) -> type[Group]:
    """A group with these aliases and words."""
    return type("Group", (Group,), {"aliases": aliases, "meant": meant})
