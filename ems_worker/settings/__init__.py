"""The settings of the worker, as one frozen value.

Sources in rising precedence: defaults, a TOML file, environment variables, flags. A setting has the same name
everywhere: `rpc_window` in the file, `EMS_RPC_WINDOW` in the environment, `--rpc-window` as a flag. The command line
and the documentation are generated from `describe`.
"""

from ems_worker.settings.fields import host_and_port
from ems_worker.settings.masking import value as shown
from ems_worker.settings.model import DEFAULT_HTTP_PORT, DEFAULT_NATS_PORT, DEFAULT_SERVER, Settings
from ems_worker.settings.sources import access, load
from ems_worker.settings.table import Description, describe
from ems_worker.settings.ways import Access, Channel

__all__ = [
    "DEFAULT_HTTP_PORT",
    "DEFAULT_NATS_PORT",
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
