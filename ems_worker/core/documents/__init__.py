"""The documents that enter and leave the worker: their content, schemas and size limits, and the names on NATS."""
