"""What tests of whole platforms share."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support import runtime as runtime_directory


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose processes are ended after the test, if it leaves any; platforms are announced elsewhere."""
    runtime = runtime_directory.directory()
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    yield tmp_path
    for pid in processes.mentioning(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(runtime)
