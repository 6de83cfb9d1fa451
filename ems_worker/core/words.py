"""Vocabularies: enumerations of words."""

from enum import StrEnum


class Word(StrEnum):
    """A word of a vocabulary. It is looked up as fast as its text; `Enum` computes hashes in Python."""

    __hash__ = str.__hash__
