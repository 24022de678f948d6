"""The tokenizer of BLEU by language and script, the validation score by the references, and the comparison of two."""

from __future__ import annotations

import math

import pytest

from bench.measures import selection
from bench.measures.selection import (
    Selection,
    choose,
    is_constant,
    oriented,
    rank,
    tokenizer_of,
    written_without_spaces,
)

GERMAN = ["Der Mann sieht den Hund.", "Die Frau hört das Kind.", "Ein Kind."]
CHINESE = ["那个男人看见了这个狗。", "鸟看见了树。"]


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        ("zh", "zh"),
        ("cmn", "zh"),
        ("zh_TW", "zh"),
        ("ja", "ja-mecab"),
        ("ko", "ko-mecab"),
        ("KO", "ko-mecab"),
        ("th", "char"),
        ("my", "char"),
        ("bo", "char"),
        ("de", None),
        ("tgt", None),
    ],
)
def test_the_language_decides_the_tokenizer(language: str, tokenizer: str | None) -> None:
    assert tokenizer_of("auto", language) == tokenizer
    assert tokenizer_of("intl", language) == "intl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("那个男人看见了这个狗。", True),
        ("ひらがなとカタカナ", True),
        ("ภาษาไทยเขียนติดกัน", True),
        ("ភាសាខ្មែរ", True),
        ("བོད་སྐད་", True),
        ("남자가 개를 봅니다.", False),
        ("Der Mann sagt 你好.", False),
        ("मैं घर जाता हूँ", False),
        ("12, 13.", False),
        ("", False),
    ],
)
def test_scripts_without_spaces_between_words(text: str, expected: bool) -> None:
    assert written_without_spaces([text]) == expected


@pytest.mark.parametrize(
    ("language", "references", "score", "tokenizer"),
    [
        ("de", GERMAN, "bleu", "13a"),
        ("zh", CHINESE, "bleu", "zh"),
        ("tgt", CHINESE, "bleu", "char"),  # the tag is no known language
        ("de", ["Mann sieht", "Kind hört"], "chrf", "13a"),
        ("de", ["Der Mann sieht etwas", "Kind hört"], "bleu", "13a"),  # half of them have four tokens
        ("de", ["", " ", "\t", "Hund"], "loss", "13a"),
        ("de", [], "loss", "13a"),
    ],
)
def test_the_references_decide_the_score(language: str, references: list[str], score: str, tokenizer: str) -> None:
    chosen = choose("auto", language, references)
    assert (chosen.score, chosen.tokenizer) == (score, tokenizer)
    assert f" of {len(references)} validation references " in chosen.reason
    assert Selection.of_tags(chosen.tags).tags == chosen.tags


def test_a_setting_fixes_the_tokenizer() -> None:
    chosen = choose("13a", "zh", CHINESE)
    assert (chosen.score, chosen.tokenizer) == ("chrf", "13a")  # 13a finds two tokens: the sentence and its full stop
    assert chosen.reason == "chrF2, because only 0 of 2 validation references have the 4 tokens that BLEU needs"


@pytest.mark.parametrize(("language", "extra"), [("ja", "japanese"), ("ko", "korean")])
def test_a_missing_tokenizer_is_one_line_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, language: str, extra: str
) -> None:
    selection.tokenizer.cache_clear()
    # What the module of sacreBLEU has where the package is missing.
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{language}_mecab.MeCab", None)
    with pytest.raises(ValueError, match=rf"text\.bleu_tokenizer: .* needs the tokenizer {language}-mecab") as raised:
        choose("auto", language, ["x"])
    assert f"install it: .venv/bin/pip install --editable '.[{extra}]'" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert choose("char", language, CHINESE).tokenizer == "char"


def test_runs_of_earlier_versions_were_selected_by_bleu() -> None:
    assert Selection.of_tags({"row": "lstm"}) == Selection("bleu", "13a")


# --- comparing two validations ----------------------------------------------------------------------------------------


def test_a_tie_goes_to_the_lower_loss() -> None:
    bleu = Selection("bleu")
    assert bleu.rank(10.0, 2.0) > bleu.rank(9.0, 1.0)
    assert bleu.rank(0.0, 1.0) > bleu.rank(0.0, 2.0)
    assert bleu.rank(0.0, 2.0) > bleu.rank(0.0, None)
    assert bleu.rank(1.0, None) > bleu.rank(0.0, 1.0)


def test_a_lower_loss_is_better_where_the_loss_selects() -> None:
    by_loss = Selection("loss")
    assert by_loss.rank(1.0, 1.0) > by_loss.rank(2.0, 2.0)
    assert (oriented("validation_bleu", 3.0), oriented("latency_p50_ms", 3.0)) == (3.0, -3.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_wins(bad: float) -> None:
    assert rank(9.9, 0.0) > rank(bad, 50.0)
    assert rank(9.9, 0.0) > rank(1.0, bad)
    assert not rank(bad, 50.0) > rank(bad, 0.0)


def test_a_constant_score_is_one_that_did_not_differ() -> None:
    assert is_constant([0.0, 0.0])
    assert not is_constant([0.0, 0.1])
    assert not is_constant([0.0])  # a single validation has nothing to select
