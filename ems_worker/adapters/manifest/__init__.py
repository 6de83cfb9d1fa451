"""The manifest: one SQLite database that is the truth about every experiment, job and run.

`store.Manifest` is what the services see. One task writes, many requests in one transaction (writer.py); reads have
connections of their own (reader.py). Statements are in reads.sql and writes.sql, the rules that queries share with the
core in rules.sql, the schema in migrations/.
"""

from ems_worker.adapters.manifest.store import Manifest

__all__ = ["Manifest"]
