"""How long to pause before a retry: one policy for attempts at jobs and for start commands."""

import hashlib

# With the spread, a pause is at most this many times its maximum without it.
MAX_SPREAD = 1.5


def pause_seconds(failures: int, identity: str, first_seconds: float, max_seconds: float) -> float:
    """The pause after `failures` failures in a row: `first_seconds`, doubled each time up to `max_seconds`, +-50 %.

    The spread keeps the retries after a mass failure from arriving together. It is derived from the identity and the
    count, so equal arguments give equal pauses.
    """
    base = min(max_seconds, first_seconds * 2.0 ** min(failures - 1, 64))
    draw = int.from_bytes(hashlib.sha256(f"{identity}#{failures}".encode()).digest()[:4], "big") / 2**32
    return base * (0.5 + draw)
