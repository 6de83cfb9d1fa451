"""nats-py, and what we know of it, imported when a client is created: it takes as long as all the rest of the client.

A program that imports the client may not need it, as most commands don't for their help.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nats.errors
    import nats.js.errors

    from ems_worker import nats_access

__all__ = ["nats", "nats_access"]


def __getattr__(name: str) -> Any:
    """Imports a module at its first use."""
    if name == "nats_access":
        module = importlib.import_module("ems_worker.nats_access")
    elif name == "nats":
        importlib.import_module("nats.errors")
        importlib.import_module("nats.js.errors")
        module = importlib.import_module("nats")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = module
    return module
