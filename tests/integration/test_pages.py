"""Pages of commands: their files, commands and output, from top to bottom, on a platform of `ems up`."""

import re
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.local_platform import up

_PLATFORM = re.compile(r"`ems up --slots (\d+) --simulator '(.*)'`")
# How many commands a page has at least.
PAGES = {"steering": 30, "keeping": 15}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAGES)
async def test_its_commands_do_what_it_shows(swept: Path, name: str) -> None:
    """Each command prints what stands below it."""
    page = pages.text(f"docs/{name}.md")
    found = _PLATFORM.search(page)
    assert found is not None
    platform = await up(swept, slots=int(found[1]), simulator=found[2], before=f"os.chdir({str(swept)!r})")
    try:
        assert await pages.carry_out(page, swept, platform.addresses["nats_url"]) >= PAGES[name]
    finally:
        await platform.program.stop(grace=30)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_the_tutorial_does_what_it_shows(swept: Path) -> None:
    """It starts its own platforms, and stops them."""
    assert await pages.carry_out(pages.text("docs/tutorial.md"), swept, None) >= 12
