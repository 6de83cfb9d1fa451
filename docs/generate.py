"""Generates documentation from the code: `make docs`. With --check it only reports files that are out of date.

Some pages, and deploy/nats/rights.conf, are replaced whole. In the pages of `WITH_TABLES`, only the text
between `<!-- generated: NAME -->` and `<!-- end -->` is replaced.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import commands, states, tables
from ems_worker.core.documents import schemas
from ems_worker.core.language import schema

HERE = Path(__file__).parent
RIGHTS = HERE.parent / "deploy" / "nats" / "rights.conf"
WITH_TABLES = tuple(
    HERE / f"{name}.md"
    for name in ("broker", "monitoring", "operations", "plan-language", "security", "settings", "tables")
)
_SECTION = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(?=<!-- end -->)", re.S)


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file with its current content."""
    yield HERE / "state-machine.md", states.text()
    yield HERE / "cli.md", commands.page()
    yield HERE / "plan.schema.json", schemas.text(schema.PLAN) + "\n"
    for name, document in schemas.DOCUMENTS.items():
        yield HERE / "schemas" / f"{name}.json", schemas.text(document) + "\n"
    yield RIGHTS, tables.rights_configuration()
    for page in WITH_TABLES:
        yield (
            page,
            _SECTION.sub(lambda match: match[1] + "\n" + tables.SECTIONS[match[2]]() + "\n", page.read_text()),
        )


def outdated() -> list[Path]:
    """The generated files that are missing or differ from the code."""
    return [path for path, text in pages() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Returns the exit code: 1 if --check is given and a file is out of date."""
    if "--check" in sys.argv:
        names = ", ".join(str(path.relative_to(HERE.parent)) for path in outdated())
        if names:
            sys.stderr.write(f"out of date: {names}; run `make docs`\n")
        return 1 if names else 0
    for path, text in pages():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
