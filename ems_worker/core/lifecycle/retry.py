"""How long to wait before something is tried again: the one policy, for attempts at jobs and for start commands."""

import hashlib

# A pause is at most so many times the longest one, by its spread.
MOST_SPREAD = 1.5


def pause_seconds(failures: int, identity: str, first: float, longest: float) -> float:
    """The pause after so many failures in a row (from 1): `first` doubled each time up to `longest`, spread by +-50 %.

    The spread keeps the retries of a mass failure from arriving together; it is drawn from the identity and the count,
    so that this stays a function.
    """
    base = min(longest, first * 2.0 ** min(failures - 1, 64))
    draw = int.from_bytes(hashlib.sha256(f"{identity}#{failures}".encode()).digest()[:4], "big") / 2**32
    return base * (0.5 + draw)
