"""The manifest: one SQLite database that is the truth about every experiment, job and run.

`store.Manifest` is what the services see. Writes go to one task that commits many in one transaction (writer.py),
reads to connections of their own (reader.py); statements are in reads.sql and writes.sql, the schema in migrations/.
"""

from ems_worker.adapters.manifest.store import Manifest

__all__ = ["Manifest"]
