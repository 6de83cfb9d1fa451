"""SHA-256 digests in the forms in which publishers write them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import digests


@given(st.binary())
def test_a_digest_can_be_read_in_each_form(data: bytes) -> None:
    """The forms are that of the object store, with or without padding, and hexadecimal in either case."""
    digest = digests.of(data)
    assert digest == hashlib.sha256(data).digest()
    text = digests.text(digest)
    forms = (text, text.rstrip("="), text.lower()[:8] + text[8:], digest.hex(), digest.hex().upper())
    assert {digests.parse(form) for form in forms} == {digest}


@pytest.mark.parametrize("text", ["", "SHA-256=", "SHA-256=!!", "SHA-256=YWJj", "zz" * 32, "00" * 31, "é" * 64])
def test_text_that_is_no_sha_256_digest_is_none(text: str) -> None:
    """The text has another length, or is neither base64 nor hexadecimal."""
    assert digests.parse(text) is None
