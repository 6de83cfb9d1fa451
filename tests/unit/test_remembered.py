"""The simulator of a platform's last start."""

from pathlib import Path

import pytest

from ems_worker.local import remembered


def test_a_platform_continues_with_the_simulator_of_its_last_start(tmp_path: Path) -> None:
    """The first one has the built-in simulator."""
    (tmp_path / "orchestrator").mkdir()
    assert remembered.read(tmp_path) == remembered.Simulator()
    own = remembered.Simulator("python sim.py {args}", "v1", "json")
    remembered.write(tmp_path, own)
    assert remembered.read(tmp_path) == own


@pytest.mark.parametrize("content", ["{", "[]", '{"simulator": 3}', '"x"'])
def test_a_damaged_file_is_no_simulator(tmp_path: Path, content: str) -> None:
    """The platform starts all the same."""
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "simulator.json").write_text(content)
    assert remembered.read(tmp_path) == remembered.Simulator()
