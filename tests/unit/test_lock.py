"""The exact versions in deploy/lock are those that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = ROOT / "deploy" / "lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


def _pins(name: str) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for package, version in _PIN.findall((LOCK / name).read_text()):
        found.setdefault(package.lower(), []).append(Version(version))
    return found


def _wanted(extras: set[str]) -> list[Requirement]:
    """What is needed with these extras, which may name each other."""
    texts = list(PROJECT["dependencies"])
    for extra in sorted(extras):
        for text in PROJECT["optional-dependencies"][extra]:
            one = Requirement(text)
            texts += [str(other) for other in _wanted(one.extras)] if one.name == PROJECT["name"] else [text]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("dev.txt", {"dev"}),
        ("design.txt", {"design"}),
        ("local.txt", {"local"}),
        ("design,local.txt", {"design", "local"}),
    ],
)
def test_every_dependency_has_an_allowed_version(name: str, extras: set[str]) -> None:
    """`make lock` has been run after the last change of pyproject.toml."""
    pins = _pins(name)
    for wanted in _wanted(extras):
        versions = pins.get(wanted.name.lower().replace("_", "-"), [])
        assert versions, f"{name} lacks {wanted.name}: run make lock"
        assert all(version in wanted.specifier for version in versions), f"{name}: {wanted} and {versions}"


def test_the_wheel_is_built_with_what_pyproject_asks_for() -> None:
    """The image's build step downloads nothing that isn't listed."""
    [wanted] = (
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    )
    assert all(version in wanted.specifier for version in _pins("build.txt")[wanted.name])


@pytest.mark.parametrize("path", sorted(LOCK.glob("*.txt")), ids=lambda path: path.name)
def test_every_version_has_its_hashes_and_no_address(path: Path) -> None:
    """Whatever index answers can deliver nothing else."""
    text = path.read_text()
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block.strip())
    assert "://" not in text


@pytest.mark.parametrize(
    "text",
    [
        text
        for texts in ([PROJECT["dependencies"]], PROJECT["optional-dependencies"].values())
        for group in texts
        for text in group
    ],
)
def test_every_dependency_has_an_upper_bound(text: str) -> None:
    """A next major version may change what we rely on; what is pinned has one, too."""
    wanted = Requirement(text)
    if wanted.name != PROJECT["name"]:
        assert {one.operator for one in wanted.specifier} & {"<", "==", "~="}, text
