"""SHA-256 digests of bytes, as object stores and plan messages write them."""

import base64
import binascii
import hashlib

_PREFIX = "SHA-256="


def of(data: bytes) -> bytes:
    """The digest's 32 bytes."""
    return hashlib.sha256(data).digest()


def text(digest: bytes) -> str:
    """A digest as JetStream's object store writes it: `SHA-256=` and URL-safe base64."""
    return _PREFIX + base64.urlsafe_b64encode(digest).decode()


def parse(written: str) -> bytes | None:
    """The 32 bytes of a digest in that form, padded or not, or in hexadecimal; None for anything else."""
    try:
        if written.upper().startswith(_PREFIX):
            encoded = written[len(_PREFIX) :].rstrip("=")
            digest = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        else:
            digest = bytes.fromhex(written)
    except (ValueError, binascii.Error):
        return None
    return digest if len(digest) == hashlib.sha256().digest_size else None
