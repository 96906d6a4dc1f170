"""Words of a text, also where none are parted by spaces: there, one for so many letters.

Chinese and Japanese have 1.6 letters a word, Thai and Khmer 5, about. Korean is written with spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from unicodedata import east_asian_width

# letters between two spaces, of which a text that writes them has fewer; else letters of a word
WIDE, NARROW = (6, 1.6), (16, 5.0)  # of full width, as Chinese has; of others


def letters_a_word(lines: Sequence[str]) -> float | None:
    """How many letters make a word of a text that is written without spaces; None where spaces part its words."""
    letters, words = sum(map(len, lines)), sum(len(line.split()) for line in lines)
    wide = sum(east_asian_width(letter) in "WF" for letter in chain.from_iterable(lines)) > letters / 2
    most, of_a_word = WIDE if wide else NARROW
    return of_a_word if letters > most * words else None


def words(lines: Sequence[str]) -> list[float]:
    """How many words each line of a text has."""
    of_a_word = letters_a_word(lines)
    return [len(line.split()) if of_a_word is None else len(line) / of_a_word for line in lines]
