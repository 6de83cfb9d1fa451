"""What of our environment goes to the programs that we run for others."""

from collections.abc import Mapping
from typing import Final

# Credentials, and where they are.
_OURS: Final = ("EMS_", "NATS_")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """All but the settings of this package and of NATS clients: they are no simulator's, and no plan's, business."""
    return {name: value for name, value in ours.items() if not name.startswith(_OURS)}
