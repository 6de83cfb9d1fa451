"""A plan can refer only to base files inside the configured folder."""

import os
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters import files
from tests.support.desk import Desk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of base files, with links that lead out of it and to themselves."""
    root = tmp_path / "bases"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "base.yaml").write_text("food: 1\nheat: 1.5\n")
    (tmp_path / "secret.yaml").write_text("secret: 1\n")
    (root / "out.yaml").symlink_to(tmp_path / "secret.yaml")
    (root / "loop.yaml").symlink_to(root / "loop.yaml")
    return root


async def test_a_plan_is_identified_by_the_content_of_its_base_file(tmp_path: Path, root: Path) -> None:
    """The same plan with that content in place of the path is a duplicate."""
    async with Desk.open(tmp_path / "data", base_config_root=root) as desk:
        request = {"experiment_id": "reef", "parameter_space": {"food": [1, 2]}}
        decision = await desk.submit({**request, "base_config_file_path": "sub/base.yaml"})
        assert decision["decision"] == "accepted"
        again = await desk.submit({**request, "base_config": {"food": 1, "heat": 1.5}})
        assert again["decision"] == "duplicate"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.yaml", "without '..'"),
        ("sub/../../secret.yaml", "without '..'"),
        ("{tmp}/secret.yaml", "inside the folder"),
        ("out.yaml", "leads out"),
        ("loop.yaml", "leads back to itself"),
        ("sub", "not a file"),
        ("nothing.yaml", "can't be read"),
        ("a\0b", "inside the folder"),
        ("x" * 5000, "can't be read"),
    ],
)
async def test_any_other_path_is_rejected(tmp_path: Path, root: Path, path: str, reason: str) -> None:
    """The problem is at the plan's key, and its message doesn't disclose what the path leads to."""
    with pytest.raises(errors.PlanRejected) as caught:
        files.BaseFiles(root).read(path.replace("{tmp}", str(tmp_path)))
    [problem] = caught.value.problems
    assert (problem.code, problem.path) == ("base_not_readable", "base_config_file_path")
    assert reason in problem.message
    assert "secret: 1" not in problem.message


async def test_a_problem_in_a_base_file_has_its_line_in_the_file(tmp_path: Path, root: Path) -> None:
    """The problem names the file, and has the path, line and column in it; those of the plan are reported as well."""
    (root / "bad.yaml").write_text("food: 1\nfood: 2\n")
    (root / "bytes.yaml").write_bytes(b"\xff\xfe")
    async with Desk.open(tmp_path / "data", base_config_root=root) as desk:
        decision = await desk.submit({"experiment_id": "reef", "base": "bad.yaml", "tags": 5})
        in_file, in_plan = decision["errors"]
        assert (in_file["file"], in_file["path"], in_file["line"], in_file["column"]) == ("bad.yaml", "food", 2, 1)
        assert (in_plan["path"], "file" in in_plan) == ("tags", False)
        decision = await desk.submit({"experiment_id": "reef", "base_config_path": "bytes.yaml"})
        assert decision["errors"][0]["code"] == "base_not_readable"


async def test_a_base_file_that_is_too_large_is_rejected(root: Path) -> None:
    """The message has the limit."""
    with (root / "large.yaml").open("wb") as large:
        os.truncate(large.fileno(), 17 * 1024 * 1024)
    with pytest.raises(errors.PlanRejected, match="more than 16,777,216 bytes"):
        files.BaseFiles(root).read("large.yaml")


async def test_without_a_folder_of_base_files_every_path_is_rejected(tmp_path: Path) -> None:
    """The message names the setting."""
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit({"experiment_id": "reef", "base_config_file_path": "base.yaml"})
        assert "EMS_BASE_CONFIG_ROOT" in decision["errors"][0]["message"]
