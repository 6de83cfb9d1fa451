"""docs/steering.md: its files, commands and output, from top to bottom, on a platform of `ems up`."""

import re
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.local_platform import up

PAGE = pages.text("docs/steering.md")
_PLATFORM = re.search(r"`ems up --slots (\d+) --simulator '(.*)'`", PAGE)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_its_commands_do_what_it_shows(swept: Path) -> None:
    """Each command prints what stands below it."""
    assert _PLATFORM is not None
    platform = await up(swept, slots=int(_PLATFORM[1]), simulator=_PLATFORM[2], before=f"os.chdir({str(swept)!r})")
    try:
        assert await pages.carry_out(PAGE, swept, platform.addresses["nats_url"]) > 30
    finally:
        await platform.program.stop(grace=30)
