"""Why the orchestrator can't be reached: gRPC's message, shortened to `127.0.0.1:50051: connection refused`."""

import re
from urllib.parse import unquote

from ems_worker.core import text

MAX_CHARACTERS = 200
# How much of gRPC's message is parsed.
_MAX_PARSED_CHARACTERS = 2000
_PREFIX = re.compile(r"(?:UNKNOWN|UNAVAILABLE|FAILED_PRECONDITION|INTERNAL): ", re.ASCII)
_ADDRESS = re.compile(r"(?:ipv[46]:)?(\S{1,200}?): (?=\S)", re.ASCII)
_FAILED = re.compile(r"(?:Failed to connect to remote host|connect failed|connect): ", re.ASCII)
_NUMBER = re.compile(r" \(\d{1,5}\)$", re.ASCII)


def cause(details: str, target: str) -> str:
    """The address and its problem, from the details of an UNAVAILABLE status; `target` if they name no address."""
    message = (text.clip(details, _MAX_PARSED_CHARACTERS) or "no answer").rpartition("last error: ")[2]
    message = _PREFIX.sub("", message, count=1)
    match = _ADDRESS.match(message)
    address = target
    if match is not None and ":" in match[1]:
        address, message = unquote(match[1]), message[match.end() :]
    while (match := _FAILED.match(message)) is not None:
        message = message[match.end() :]
    message = _NUMBER.sub("", message)
    return text.single_line(f"{address}: {message[:1].lower()}{message[1:]}", MAX_CHARACTERS)
