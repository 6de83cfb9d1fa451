"""Every setting of the worker: one frozen value from defaults, a TOML file, the environment and flags, in rising rank.

The names of a setting are made from one another: `rpc_window` in the file, `EMS_RPC_WINDOW` in the environment,
`--rpc-window` as a flag. `describe` lists them all; the command line and the documentation are made from it.
"""

from ems_worker.settings.model import DEFAULT_SERVER, Settings, host_and_port
from ems_worker.settings.sources import access, load
from ems_worker.settings.table import Description, describe, shown
from ems_worker.settings.ways import Access, Channel

__all__ = [
    "DEFAULT_SERVER",
    "Access",
    "Channel",
    "Description",
    "Settings",
    "access",
    "describe",
    "host_and_port",
    "load",
    "shown",
]
