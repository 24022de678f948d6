"""Words by Unicode: combining marks stay with their letter, and text of the recorded scores keeps its words."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bench.data import find_corpus
from bench.data.corpus import CorpusSettings
from bench.data.vocabulary import JOINER, TextSettings, Words
from bench.data.words import WORD, WORD_OR_MARK

SCRIPTS = {
    "German, decomposed": unicodedata.normalize("NFD", "Er grüßt schön."),
    "Hindi": "मैं हिन्दी में नमस्ते कहता हूँ।",
    "Thai, Lao, Khmer, Burmese": "ฉันกินข้าวที่บ้าน ລາວ ខ្មែរ မြန်မာ",
    "Korean, decomposed": unicodedata.normalize("NFD", "한국어를 배웁니다."),
    "Arabic with vowel signs": "كَتَبَ الوَلَدُ الدَّرْسَ.",
    "Hebrew with vowel signs": "שָׁלוֹם עוֹלָם",
    "Persian with zero-width non-joiner": "می‌خواهم",
    "Chinese": "我今天去图书馆。",
    "Japanese": "東京タワーは高い",
    "emoji with joiners, skin tones and flags": "Hi 👨‍👩‍👧 👍🏽!🇩🇪🇫🇷 x",
    "soft hyphen": "Schiff\u00adfahrt",
}


def pieces(text: str) -> list[str]:
    return [word or mark for word, mark in WORD_OR_MARK.findall(text) if (word or mark) != " "]


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_words_are_those_of_unicode_annex_29(text: str) -> None:
    r"""`\b` with the flag WORD is the default word boundary of the annex, implemented by the package regex."""
    assert pieces(text) == [piece for piece in regex.split(r"(?V1w)\b", text) if piece.strip()]


def test_words_in_literals() -> None:
    assert pieces(unicodedata.normalize("NFD", "grüßt")) == [unicodedata.normalize("NFD", "grüßt")]
    assert pieces("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert pieces("图书馆 a") == ["图", "书", "馆", "a"]
    assert WORD.findall("नमस्ते, 图书!") == ["नमस्ते", "图", "书"]


OLD_RULE = re.compile(r"\w+|[^\w ]")
"""Words as they were when the scores in reports/results/ were recorded."""

LATIN = st.characters(max_codepoint=0x17F, exclude_characters="\xad", exclude_categories=["Cc"])


@given(st.text(alphabet=LATIN | st.sampled_from(" '’‘.,:;-–—„“”…€²³½\u202f\u00a0‰′"), max_size=30))
def test_latin_text_keeps_its_words(text: str) -> None:
    """Apostrophes, hyphens, 3.5, 10:30, m² and spaces that are not U+0020 are split as they were before the annex."""
    assert pieces(text) == OLD_RULE.findall(text)


def test_the_demo_corpus_keeps_its_vocabulary() -> None:
    """Every entry in its place: 908 words of the English-German grammar, hashed before the change of the rule."""
    corpus = find_corpus.load(CorpusSettings()).mapped(TextSettings().normalized)
    assert corpus.hashes == find_corpus.load(CorpusSettings()).hashes
    words = Words.pieces_by_frequency([*corpus.train.sources, *corpus.train.targets])
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()
    assert (len(words), digest) == (908, "d2319bc9bc16baac79d105167a68ea7dbe398c3e5cdd767de389c81c3583c74c")


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_every_script_is_decoded_exactly(text: str) -> None:
    split = Words.split_text(text)
    words = Words.learn([text], 4 + len(set(split)))
    assert words.decode(words.encode([text])) == [text]
    assert [piece.strip(JOINER) for piece in split] == pieces(text)
