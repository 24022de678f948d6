"""The papers' BLEU: tokenised as by Moses, compounds split, no smoothing; for Korean by morphemes and characters."""

from __future__ import annotations

import pytest
from sacrebleu.metrics.bleu import BLEU

from bench.measures import bleu_variants
from bench.measures.bleu_variants import split_compounds, tokenise


# The right-hand sides are what sacremoses 0.2.0 gives with escape=False.
@pytest.mark.parametrize(
    ("language", "line", "tokens"),
    [
        ("en", "Mr. Smith's dog ate 3,500.50 bones... don't!", "Mr. Smith 's dog ate 3,500.50 bones ... don 't !"),
        ("en", "(it's 'fine') 1990's a,b e.g. so", "( it 's ' fine ' ) 1990 's a , b e.g. so"),
        ("en", 'He said "no." A. B. Smith went.', 'He said " no . " A. B. Smith went .'),
        ("de", "Zwei Männer, 3,5 m groß, im U-Bahn-Hof.", "Zwei Männer , 3,5 m groß , im U-Bahn-Hof ."),
        ("de", "Das ist am 2. Mai, z.B. gut.", "Das ist am 2. Mai , z.B. gut ."),
        ("fr", "L'homme d'or n'a 1,5 km; l'eau.", "L' homme d' or n' a 1,5 km ; l' eau ."),
    ],
)
def test_tokens_are_those_of_moses(language: str, line: str, tokens: str) -> None:
    assert tokenise(line, language) == tokens


@pytest.mark.parametrize(
    ("language", "line", "tokens"),
    [
        ("de", "Er gru\u0308ßt, scho\u0308n.", "Er gru\u0308ßt , scho\u0308n ."),
        ("fr", "l'e\u0301te\u0301 d'E\u0301lise", "l' e\u0301te\u0301 d' E\u0301lise"),
        ("hi", "वह नमस्ते कहता है।", "वह नमस्ते कहता है ।"),
        ("ar", "كَتَبَ الوَلَدُ.", "كَتَبَ الوَلَدُ ."),
        ("en", "a_b 👍🏽!", "a _ b 👍🏽 !"),
    ],
)
def test_combining_marks_belong_to_their_letter(language: str, line: str, tokens: str) -> None:
    assert tokenise(line, language) == tokens


def test_compounds_are_split() -> None:
    assert split_compounds("im U-Bahn-Hof - 5") == "im U ##AT##-##AT## Bahn ##AT##-##AT## Hof - 5"


def test_variants_have_their_names_and_settings() -> None:
    references = ["Der Mann geht in den U-Bahn-Hof.", "Ein Hund läuft, und das Kind sieht zu."]
    hypotheses = ["der Mann geht in den U-Bahn-Hof.", "Ein Hund läuft, und das Kind sieht ihm zu."]
    found = {measure.metric: measure for measure in bleu_variants.variants(hypotheses, references, "de")}
    assert list(found) == ["bleu_lowercase", "bleu_tokenised", "bleu_compound_split"]
    assert "case:lc" in found["bleu_lowercase"].provenance
    assert found["bleu_lowercase"].value == BLEU(lowercase=True).corpus_score(hypotheses, [references]).score
    ours, theirs = ([tokenise(line, "de") for line in lines] for lines in (hypotheses, references))
    plain = BLEU(tokenize="none", smooth_method="none", force=True)
    assert found["bleu_tokenised"].value == plain.corpus_score(ours, [theirs]).score
    assert "tok:none|smooth:none" in found["bleu_tokenised"].provenance
    compound, whole = found["bleu_compound_split"].value, found["bleu_tokenised"].value
    assert compound is not None
    assert whole is not None
    assert compound > whole


def test_without_smoothing_a_missing_order_is_zero() -> None:
    (_, tokenised, _) = bleu_variants.variants(["a b x d e"], ["a b c d e"], "en")
    assert tokenised.value == 0


HYPOTHESES = ["나는 학교에 갔다.", "물이 컵에 있다."]
REFERENCES = ["나는 학교에 간다.", "물이 그릇에 있다."]


def test_korean() -> None:
    """The values are those of `sacrebleu -tok ko-mecab|char|13a -lc` on the same lines."""
    found = {measure.metric: measure for measure in bleu_variants.variants(HYPOTHESES, REFERENCES, "ko")}
    assert {metric: round(measure.value or 0, 4) for metric, measure in found.items()} == {
        "bleu_lowercase": 25.0,
        "bleu_characters": 51.3687,
        "bleu_ko_mecab": 46.2696,
    }
    assert "tok:ko-mecab" in found["bleu_ko_mecab"].provenance


def test_korean_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the module of sacreBLEU has where the package is missing.
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", None)
    *_, morphemes = bleu_variants.variants(HYPOTHESES, REFERENCES, "ko")
    assert (morphemes.metric, morphemes.value) == ("bleu_ko_mecab", None)
    assert ".venv/bin/pip install --editable '.[korean]'" in morphemes.provenance


def test_a_language_with_another_tokenizer_has_no_score_of_words_between_spaces() -> None:
    found = bleu_variants.variants(["那个男人看见了狗。"], ["那个男人看见了狗。"], "zh", "zh")
    assert [(measure.metric, measure.value) for measure in found] == [("bleu_lowercase", pytest.approx(100))]
    assert "case:lc|eff:no|tok:zh" in found[0].provenance


@pytest.mark.parametrize(("tag", "language"), [("en-GB", "en"), ("de_AT", "de"), ("ko-KR", "ko"), ("kor", "ko")])
def test_a_region_does_not_change_a_language(tag: str, language: str) -> None:
    lines = ["we're here .", "Das ist z. B. gut ."]
    assert bleu_variants.variants(lines, lines, tag) == bleu_variants.variants(lines, lines, language)
