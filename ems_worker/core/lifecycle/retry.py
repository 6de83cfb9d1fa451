"""How long to pause before a retry: one policy for attempts at jobs and for start commands."""

import hashlib

# The spread makes a pause at most this many times the longest base.
MAX_SPREAD = 1.5


def pause_seconds(failures: int, identity: str, first: float, longest: float) -> float:
    """The pause after `failures` failures in a row (from 1): `first`, doubled each time up to `longest`, +-50 %.

    The spread keeps the retries after a mass failure from arriving together. It is derived from the identity and the
    count, so equal arguments give equal pauses.
    """
    base = min(longest, first * 2.0 ** min(failures - 1, 64))
    draw = int.from_bytes(hashlib.sha256(f"{identity}#{failures}".encode()).digest()[:4], "big") / 2**32
    return base * (0.5 + draw)
