"""Digests of plans in the object store, as their publishers write them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import digests


@given(st.binary())
def test_a_digest_is_read_back_from_each_form(data: bytes) -> None:
    """As the object store writes it, without padding, and in hexadecimal of either case."""
    digest = digests.of(data)
    assert digest == hashlib.sha256(data).digest()
    written = digests.text(digest)
    forms = (written, written.rstrip("="), written.lower()[:8] + written[8:], digest.hex(), digest.hex().upper())
    assert {digests.parse(form) for form in forms} == {digest}


@pytest.mark.parametrize("written", ["", "SHA-256=", "SHA-256=!!", "SHA-256=YWJj", "zz" * 32, "00" * 31, "é" * 64])
def test_what_is_no_sha_256_digest_is_none(written: str) -> None:
    """A digest of another length, or text that is neither base64 nor hexadecimal."""
    assert digests.parse(written) is None
