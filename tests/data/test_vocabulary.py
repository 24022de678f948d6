"""Vocabularies: text to ids and back without loss, one file with a hash, and sizes that a text does not allow."""

import functools
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.corpus import Split
from bench.data.learn_vocabularies import build, save_to_cache
from bench.data.vocabulary import JOINER, TextSettings, Vocabulary, Words, load
from models.parts.batch import BOS, EOS, PAD, UNK

ENGLISH = [f"The {what} number {n}, isn't it (red-ish)?" for n in range(40) for what in ("cup", "pitcher", "bank")]
GERMAN = [f"Die {what} Nummer {n}: größer als „er“!" for n in range(40) for what in ("Tasse", "Kanne", "Bänke")]
SPLIT = Split(ENGLISH, GERMAN)
Kind = Literal["subwords", "words", "characters"]
SIZES: dict[Kind, int] = {"subwords": 120, "words": 60, "characters": 200}
each_kind = pytest.mark.parametrize("kind", ["subwords", "words", "characters"])


def vocabulary(kind: Kind, cache: Path | None = None) -> Vocabulary:
    return build(TextSettings(kind, SIZES[kind]), SPLIT, cache).source


VOCABULARIES = {kind: vocabulary(kind) for kind in SIZES}


@each_kind
def test_text_of_known_pieces_is_decoded_exactly(kind: Kind) -> None:
    made = VOCABULARIES[kind]
    for side in (ENGLISH, GERMAN):
        ids = made.encode(side)
        if kind != "words":
            assert made.decode(ids) == side
        assert not {PAD, BOS, EOS} & {token for sentence in ids for token in sentence}
        assert [len(made.split(sentence)) for sentence in side] == [len(sentence) for sentence in ids]


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n▁\0￭", codec="utf-8")), min_size=1, max_size=5))
def test_joining_the_pieces_of_a_sentence_gives_the_sentence(sentences: list[str]) -> None:
    for name, made in VOCABULARIES.items():
        for sentence in sentences:
            assert made.join(made.split(sentence)) == sentence, name


@given(st.lists(st.text(alphabet="ab .,'\"(-_￭\t\u00a0é\u0301", min_size=0, max_size=12), min_size=1, max_size=8))
def test_words_are_decoded_exactly_with_any_number_of_spaces(sentences: list[str]) -> None:
    words = [piece for sentence in sentences for piece in Words.split_text(sentence)]
    known = {piece for piece in words if not piece or piece.strip(JOINER)}
    if not known:
        return
    made = Words.learn(sentences, 4 + len(known))
    for sentence, back in zip(sentences, made.decode(made.encode(sentences)), strict=True):
        if JOINER not in sentence:
            assert back == sentence


def test_marks_are_separate_pieces_with_a_joiner_where_there_is_no_space() -> None:
    made = VOCABULARIES["words"]
    assert made.split("I (we) said: 'No-one.'") == [
        "I",
        "(￭",
        "we",
        "￭)",
        "said",
        "￭:",
        "'￭",
        "No",
        "￭-￭",
        "one",
        "￭.",
        "￭'",
    ]
    assert made.split("a  b") == ["a", "", "b"]
    assert made.split("") == []
    assert "".join(made.piece(token) for token in range(4)) == "<pad><s></s><unk>"
    # Most frequent first; ties in alphabetical order.
    pieces_by_frequency = Words.learn(["b a", "c a c"], 7)
    assert [pieces_by_frequency.piece(token) for token in range(4, 7)] == ["a", "c", "b"]


@each_kind
def test_decoding_stops_at_eos_and_shows_unknown_words(kind: Kind) -> None:
    made = VOCABULARIES[kind]
    (ids,) = made.encode(["The cup number 3"])
    assert UNK not in ids
    assert (
        made.decode([[BOS, *ids, EOS, *ids, PAD], [*ids, PAD, PAD], [EOS], []]) == ["The cup number 3"] * 2 + [""] * 2
    )
    assert UNK in made.encode(["本"])[0]
    assert "<unk>" in made.decode(made.encode(["The 本"]))[0]
    assert made.encode([""]) == [[]]


@each_kind
def test_a_loaded_vocabulary_equals_the_saved_one(kind: Kind, tmp_path: Path) -> None:
    made = VOCABULARIES[kind]
    made.save(tmp_path / "text.vocabulary")
    back = load(tmp_path / "text.vocabulary")
    assert [path.name for path in tmp_path.iterdir()] == ["text.vocabulary"]
    assert (type(back), back.hash, len(back)) == (type(made), made.hash, len(made))
    assert back.encode(GERMAN) == made.encode(GERMAN)
    assert [back.piece(token) for token in range(len(back))] == [made.piece(token) for token in range(len(made))]


@each_kind
def test_the_same_text_gives_the_same_file(kind: Kind) -> None:
    assert vocabulary(kind).data == VOCABULARIES[kind].data


@each_kind
def test_learning_prints_nothing(kind: Kind, capfd: pytest.CaptureFixture[str]) -> None:
    vocabulary(kind)
    with pytest.raises(ValueError, match="vocabulary_size"):
        build(TextSettings(kind, 3), SPLIT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["subwords", "words"])
def test_errors_give_the_largest_and_smallest_size_and_these_are_possible(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"^text\.vocabulary_size: 100000 is more than .* at most \d+$") as raised:
        build(TextSettings(kind, 100_000), SPLIT)
    largest = int(str(raised.value).split()[-1])
    assert len(build(TextSettings(kind, largest), SPLIT).source) == largest
    with pytest.raises(ValueError, match=f"at most {largest}"):
        build(TextSettings(kind, largest + 1), SPLIT)
    for size in (-1, 0, 4, 7):
        if kind == "words" and size == 7:
            continue
        with pytest.raises(ValueError, match=rf"^text\.vocabulary_size: {size} is too few .* at least \d+$") as raised:
            build(TextSettings(kind, size), SPLIT)
        smallest = int(str(raised.value).split()[-1])
        assert len(build(TextSettings(kind, smallest), SPLIT).source) == smallest


def test_the_sides_may_have_vocabularies_of_different_size() -> None:
    of = functools.partial(TextSettings, "words", 9, joint=False)
    source, target = build(of(source_vocabulary_size=12), SPLIT)
    assert (len(source), len(target)) == (12, 9)
    with pytest.raises(ValueError, match=r"^text\.source_vocabulary_size: 100000 is more than .* at most \d+$"):
        build(of(source_vocabulary_size=100_000), SPLIT)
    with pytest.raises(ValueError, match=r"^text\.source_vocabulary_size: both sides share one vocabulary; .*joint"):
        build(TextSettings("words", 9, source_vocabulary_size=12), SPLIT)


def test_the_size_is_an_upper_limit_for_characters() -> None:
    characters = {character for sentence in ENGLISH + GERMAN for character in sentence}
    assert len(VOCABULARIES["characters"]) == 4 + len(characters)
    assert len(build(TextSettings("characters", 20), SPLIT).source) == 20
    with pytest.raises(ValueError, match="at least 5"):
        build(TextSettings("characters", 4), SPLIT)


@each_kind
def test_an_empty_text_is_an_error(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"^text"):
        build(TextSettings(kind, 50), Split([""], [""]))


@each_kind
def test_joint_gives_one_vocabulary_and_separate_gives_two(kind: Kind) -> None:
    source, target = build(TextSettings(kind, SIZES[kind]), SPLIT)
    assert source is target
    source, target = build(TextSettings(kind, 55, joint=False), SPLIT)
    assert source.hash != target.hash
    assert UNK in source.encode(["ß"])[0]
    if kind != "words":
        assert UNK not in target.encode(["ß"])[0]


@each_kind
def test_a_cached_vocabulary_is_used_and_another_text_has_another_file(kind: Kind, tmp_path: Path) -> None:
    cache = tmp_path / "deeper" / "cache"
    made = vocabulary(kind, cache)
    assert not cache.exists()  # so a job whose settings are invalid leaves no file
    save_to_cache(build(TextSettings(kind, SIZES[kind]), SPLIT, cache))
    (path,) = cache.iterdir()
    before = path.stat().st_mtime_ns
    assert vocabulary(kind, cache).hash == made.hash
    assert [other.stat().st_mtime_ns for other in cache.iterdir()] == [before]
    save_to_cache(build(TextSettings(kind, SIZES[kind]), Split(ENGLISH, [*GERMAN[:-1], "Ja."]), cache))
    save_to_cache(build(TextSettings(kind, 55), SPLIT, cache))
    assert len(list(cache.iterdir())) == 3


@each_kind
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_vocabulary_of_the_cache_is_learnt_again(
    kind: Kind, share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_to_cache(made := build(TextSettings(kind, SIZES[kind]), SPLIT, tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(made.source.data[: int(len(made.source.data) * share)])
    with pytest.raises(ValueError, match=f"{path}: not a vocabulary, or damaged"):
        load(path)
    save_to_cache(again := build(TextSettings(kind, SIZES[kind]), SPLIT, tmp_path))
    assert f"{path} is damaged; the vocabulary is learnt again" in capsys.readouterr().out
    assert again.source.hash == load(path).hash == made.source.hash


def test_normalization_makes_equal_words_equal() -> None:
    composed, decomposed = "Größe 한국", "Gro\u0308ße \u1112\u1161\u11ab\u1100\u116e\u11a8"
    assert composed != decomposed
    assert TextSettings().normalized(decomposed) == composed
    assert TextSettings(normalization="none").normalized(decomposed) == decomposed
    assert TextSettings().normalized("a\ud800b") == "a\ufffdb"  # of a served request; no file can hold it
