"""The pinned versions in deploy/lock satisfy the requirements in pyproject.toml."""

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
    pins: dict[str, list[Version]] = {}
    for package, version in _PIN.findall((LOCK / name).read_text()):
        pins.setdefault(package.lower(), []).append(Version(version))
    return pins


def _requirements(extras: set[str]) -> list[Requirement]:
    """The requirements with these extras, which may include each other."""
    texts = list(PROJECT["dependencies"])
    for extra in sorted(extras):
        for text in PROJECT["optional-dependencies"][extra]:
            requirement = Requirement(text)
            own = requirement.name == PROJECT["name"]
            texts += [str(included) for included in _requirements(requirement.extras)] if own else [text]
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
def test_every_dependency_is_pinned_to_an_allowed_version(name: str, extras: set[str]) -> None:
    """`make lock` was run after the last change of pyproject.toml."""
    pins = _pins(name)
    for requirement in _requirements(extras):
        versions = pins.get(requirement.name.lower().replace("_", "-"), [])
        assert versions, f"{name} lacks {requirement.name}: run make lock"
        assert all(version in requirement.specifier for version in versions), f"{name}: {requirement} and {versions}"


def test_the_build_backend_is_pinned_to_an_allowed_version() -> None:
    """The image's build step installs the build backend that pyproject.toml requires from the lock file."""
    [requirement] = (
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    )
    assert all(version in requirement.specifier for version in _pins("build.txt")[requirement.name])


@pytest.mark.parametrize("path", sorted(LOCK.glob("*.txt")), ids=lambda path: path.name)
def test_every_version_has_hashes_and_no_address(path: Path) -> None:
    """The hashes make any package index deliver the same files, so no index is named."""
    text = path.read_text()
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())
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
    """No requirement accepts an unknown major version, which may change what the worker relies on."""
    requirement = Requirement(text)
    if requirement.name != PROJECT["name"]:
        assert {specifier.operator for specifier in requirement.specifier} & {"<", "==", "~="}, text
