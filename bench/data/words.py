"""Words by Unicode Standard Annex 29, "Unicode Text Segmentation": for vocabularies, corpus statistics and BLEU.

Combining marks, joiners and invisible format characters belong to the character before them (rule WB4): decomposed
`grüßt` is one word, and so are words in Hindi or in Arabic with vowel signs. Each character of a script that is written
without spaces (ideographs, Hiragana, Thai, Lao, Khmer, Burmese) is a word of its own (rule WB999).

Three rules differ, so that text in English, German and French has the words that it had before this file:

- Apostrophes, periods, commas and colons are marks, also between letters or digits (not WB6, WB7, WB11 and WB12).
- Every character with the property Number is part of a word, such as the ² of m².
- Of the connectors only the low line is part of a word; a narrow no-break space is not (not WB13a and WB13b).
"""

from __future__ import annotations

import regex

FOLLOWER = r"[\p{Word_Break=Extend}\p{Word_Break=Format}\p{Word_Break=ZWJ}]"
"""A character that belongs to the one before it."""

_WITHOUT_SPACES = r"[\p{Ideographic}\p{Script=Hiragana}\p{Line_Break=SA}]"
_OF_WORD = rf"(?:(?!{_WITHOUT_SPACES})[\p{{L}}\p{{N}}_]{FOLLOWER}*)+"
_OF_ONE_CHARACTER = rf"[\p{{L}}\p{{N}}]{FOLLOWER}*"

WORD = regex.compile(rf"{_OF_WORD}|{_OF_ONE_CHARACTER}")
"""A word of any script."""

WORD_OR_MARK = regex.compile(rf"({_OF_WORD})|({_OF_ONE_CHARACTER}|\X)")
"""Group 1: a word of a script with spaces. Group 2: what stands alone, a character of another script or a mark.

A mark is a grapheme cluster, so that a flag or an emoji of several characters is one. Every character matches.
"""
