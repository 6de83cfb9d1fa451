"""The settings of the worker, as one frozen value.

Sources in rising precedence: defaults, a TOML file, environment variables, flags. A setting has the same name
everywhere: `rpc_window` in the file, `EMS_RPC_WINDOW` in the environment, `--rpc-window` as a flag. The command line
and the documentation are generated from `describe`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ems_worker.settings.defaults import DEFAULT_HTTP_PORT, DEFAULT_NATS_PORT, DEFAULT_SERVER
from ems_worker.settings.ways import Access, Channel

if TYPE_CHECKING:
    from ems_worker.settings.fields import host_and_port
    from ems_worker.settings.model import Settings
    from ems_worker.settings.sources import access, channel, load
    from ems_worker.settings.table import Description, describe, shown

__all__ = [
    "DEFAULT_HTTP_PORT",
    "DEFAULT_NATS_PORT",
    "DEFAULT_SERVER",
    "Access",
    "Channel",
    "Description",
    "Settings",
    "access",
    "channel",
    "describe",
    "host_and_port",
    "load",
    "shown",
]
# Names by the modules that need pydantic, which takes longer to import than all the rest of the client.
_LATER = {
    "Description": "table",
    "Settings": "model",
    "access": "sources",
    "channel": "sources",
    "describe": "table",
    "host_and_port": "fields",
    "load": "sources",
    "shown": "table",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
