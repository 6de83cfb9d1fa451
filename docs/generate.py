"""Writes what the documentation says of the code from the code: `make docs`. With --check it only tells what is old.

Whole pages are replaced, as is deploy/nats/rights.conf; in the pages of `WITH_TABLES` what stands between
`<!-- generated: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import states, tables
from ems_worker.core.documents import schemas
from ems_worker.core.language import schema

HERE = Path(__file__).parent
RIGHTS = HERE.parent / "deploy" / "nats" / "rights.conf"
WITH_TABLES = (HERE / "operations.md", HERE / "plan-language.md", HERE / "security.md")
_SECTION = re.compile(r"(<!-- generated: ([a-z ]+) -->\n).*?(?=<!-- end -->)", re.S)


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file, and what should be in it."""
    yield HERE / "state-machine.md", states.text()
    yield HERE / "plan.schema.json", schemas.text(schema.PLAN) + "\n"
    for name, one in schemas.DOCUMENTS.items():
        yield HERE / "schemas" / f"{name}.json", schemas.text(one) + "\n"
    yield RIGHTS, tables.rights_configuration()
    for page in WITH_TABLES:
        yield (
            page,
            _SECTION.sub(lambda found: found[1] + "\n" + tables.SECTIONS[found[2]]() + "\n", page.read_text()),
        )


def outdated() -> list[Path]:
    """The files that aren't what the code says."""
    return [path for path, text in pages() if not path.exists() or path.read_text() != text]


def main() -> int:
    """The exit code: with --check 1 where a file isn't current."""
    if "--check" in sys.argv:
        wrong = ", ".join(str(path.relative_to(HERE.parent)) for path in outdated())
        if wrong:
            sys.stderr.write(f"not what the code says: {wrong}; run `make docs`\n")
        return 1 if wrong else 0
    for path, text in pages():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
