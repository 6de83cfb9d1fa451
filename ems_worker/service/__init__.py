"""A plan's way through the worker, one verb a module: each gathers, asks the core, then acts."""
