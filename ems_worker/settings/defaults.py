"""Addresses that apply unless others are given."""

from typing import Final

DEFAULT_NATS_PORT: Final = 4222
DEFAULT_HTTP_PORT: Final = 8080
DEFAULT_SERVER: Final = f"nats://127.0.0.1:{DEFAULT_NATS_PORT}"
