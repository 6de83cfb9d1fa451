"""Why the orchestrator can't be reached, in gRPC's words made short: `127.0.0.1:50051: connection refused`."""

import re
from urllib.parse import unquote

from ems_worker.core import text

LONGEST_CAUSE = 200
# Where in the words an address is looked for, in characters.
_LOOKED_AT = 2000
_PREFIX = re.compile(r"(?:UNKNOWN|UNAVAILABLE|FAILED_PRECONDITION|INTERNAL): ", re.ASCII)
_ADDRESS = re.compile(r"(?:ipv[46]:)?(\S{1,200}?): (?=\S)", re.ASCII)
_FAILED = re.compile(r"(?:Failed to connect to remote host|connect failed|connect): ", re.ASCII)
_NUMBER = re.compile(r" \(\d{1,5}\)$", re.ASCII)


def cause(details: str, target: str) -> str:
    """The address and what is wrong there, from the details of an UNAVAILABLE status; `target`: where it names none."""
    words = (text.clip(details, _LOOKED_AT) or "no answer").rpartition("last error: ")[2]
    words = _PREFIX.sub("", words, count=1)
    found = _ADDRESS.match(words)
    address = target
    if found is not None and ":" in found[1]:
        address, words = unquote(found[1]), words[found.end() :]
    while (found := _FAILED.match(words)) is not None:
        words = words[found.end() :]
    words = _NUMBER.sub("", words)
    return text.single_line(f"{address}: {words[:1].lower()}{words[1:]}", LONGEST_CAUSE)
