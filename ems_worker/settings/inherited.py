"""Decides which environment variables are passed on to child processes such as simulators and the plan reader."""

from collections.abc import Mapping
from typing import Final

# These hold credentials or the paths of files with credentials.
_OURS: Final = ("EMS_", "NATS_")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The environment without the settings of this package and of NATS clients."""
    return {name: value for name, value in ours.items() if not name.startswith(_OURS)}
