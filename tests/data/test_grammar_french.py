"""The grammar corpus in French: correct sentences, splits, alignments and contrasts, and what other languages reuse."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.corpora.grammar import Example, Grammar, contrastive, examples, load
from bench.data.corpus import Corpus, CorpusSettings
from tests.helpers import french_rules as rules
from tests.helpers.contrast_sets import check_balance

FULL = CorpusSettings(lemmas=470)
SMALL = CorpusSettings()
ELIDED = {"je", "me", "ne", "se", "de", "le", "la", "que", "ce", "ma", "beau"}
CONTRACTED = [("de", "le"), ("de", "les"), ("à", "le"), ("à", "les"), ("de", "des"), ("de", "de")]
CONTRACTED += [("à", "lequel"), ("à", "lesquels"), ("à", "lesquelles")]
BE = set(rules.word_list("est suis sont sommes était étais étaient étions soit sois soient soyons"))
HAVE = set(rules.word_list("a ai ont avons avait avais avaient avions ait aie aient ayons"))
ADVERBS = set(rules.word_list("pas jamais souvent toujours parfois rarement déjà généralement"))
PRONOUNS = {
    "il": ("m", "s"),
    "elle": ("f", "s"),
    "ils": ("m", "p"),
    "nous": ("m", "p"),
    "je": ("m", "s"),
    "j'": ("m", "s"),
}


@pytest.fixture(scope="module")
def sentences() -> list[Example]:
    """10,000 random sentences with all lemmas."""
    grammar, rng = Grammar("en", "fr", 470, 1), random.Random(7)
    return [grammar.example(grammar.draw(rng)) for _ in range(10_000)]


@pytest.fixture(scope="module")
def demo() -> Corpus:
    """The default corpus in full size."""
    return load(CorpusSettings(), "en", "fr")


def subject_and_verb(example: Example) -> tuple[rules.Reading | None, list[str]] | None:
    """Gender and number of the subject of a main clause without relative clause, and the words from its verb on."""
    if example.labels & {"relative", "opened", "name"} or "front=time" in example.labels:
        return None
    words = rules.lower_first(example.target_words)
    if words[0] in PRONOUNS:
        return PRONOUNS[words[0]], words[1:]
    first = words[2:] if words[:2] in (["beaucoup", "de"], ["beaucoup", "d'"]) else None
    phrases = rules.noun_phrases(words)
    if first is None and (not phrases or phrases[0].start):
        return None
    readings = {reading for reading in phrases[0].readings if first is None or reading[1] == "p"}
    return (next(iter(readings)) if len(readings) == 1 else None), words[phrases[0].end :]


def verb_of(words: list[str]) -> int:
    """Index of the finite verb in a predicate: after ne and se."""
    return next(i for i, word in enumerate(words) if word not in ("ne", "n'", "se", "s'", "me", "m'"))


def test_determiners_adjectives_and_nouns_agree(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        for phrase in rules.noun_phrases(rules.lower_first(example.target_words)):
            checked += 1
            assert phrase.readings, f"{phrase}: {example.target}"
    assert checked > 15_000


def test_adjectives_stand_on_their_side_of_the_noun(sentences: list[Example]) -> None:
    checked: Counter[bool] = Counter()
    for example in sentences:
        for phrase in rules.noun_phrases(rules.lower_first(example.target_words)):
            for adjective, is_before in phrase.adjectives:
                checked[is_before] += 1
                assert is_before == (rules.ADJECTIVES[adjective][0] in rules.BEFORE_NOUN), example.target
            if any(is_before for _, is_before in phrase.adjectives) and phrase.determiner == "des":
                # de beaux livres, but des (de les) after jouer, à côté, à cause and other words that govern de
                assert re.search(r"(jou|rêv|moqu|ennu|côté|cause|vers)", example.target), example.target
    assert min(checked[True], checked[False]) > 400


def test_words_are_elided_before_vowels_only(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        words = rules.lower_first(example.target_words)
        for word, following in pairwise(words):
            if word in ELIDED:
                assert not rules.is_vowel(following) or following == "à", f"{word} {following}: {example.target}"
            if word.endswith("'") or word in ("cet", "vieil", "bel"):
                checked += 1
                assert rules.is_vowel(following), f"{word} {following}: {example.target}"
                assert word not in ("c'", "m'a'"), example.target
            if word == "si":
                assert following not in ("il", "ils"), example.target
        assert "' " not in example.target
        for phrase in rules.noun_phrases(words):
            if ("vieux", True) in phrase.adjectives and rules.is_vowel(phrase.noun):
                assert phrase.readings == {("m", "p")}, example.target
    assert checked > 5_000


def test_my_is_masculine_before_a_feminine_noun_with_a_vowel_only(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        words = rules.lower_first(example.target_words)
        for phrase in rules.noun_phrases(words):
            if phrase.determiner == "mon" and phrase.readings == {("f", "s")}:
                checked += 1
                assert rules.is_vowel(words[phrase.start + 1]), example.target
    assert checked > 5


def test_prepositions_and_articles_are_contracted(sentences: list[Example]) -> None:
    counts: Counter[str] = Counter()
    for example in sentences:
        words = rules.lower_first(example.target_words)
        counts.update(words)
        for pair in pairwise(words):
            assert pair not in CONTRACTED, example.target
    for word in ("du", "des", "au", "aux", "auquel", "auxquels", "dont"):
        assert counts[word], word


def test_verbs_agree_with_their_subjects_in_number(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        found = subject_and_verb(example)
        words = rules.lower_first(example.target_words)
        if found is None or found[0] is None or words[0] in ("je", "j'", "nous"):
            continue
        number, rest = found[0][1], found[1]
        verb = rest[verb_of(rest)]
        checked[number] += 1
        assert rules.is_plural_verb(verb) == (number == "p"), f"{verb}: {example.target}"
    assert min(checked.values()) > 500, checked


def test_participles_agree_with_the_subject_after_being_and_are_unchanged_after_having(
    sentences: list[Example],
) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        found = subject_and_verb(example)
        if found is None or found[0] is None:
            continue
        reading, rest = found
        index = verb_of(rest)
        following = [word for word in rest[index + 1 :] if word not in ADVERBS]
        if rest[index] in HAVE and example.labels & {"tense=past", "tense=perfect"} and following[0] != "besoin":
            checked["have"] += 1
            assert ("m", "s") in rules.participle_readings(following[0]), example.target
        elif rest[index] in BE and (
            rest[:index][-1:] in (["se"], ["s'"], ["me"], ["m'"]) or following[0].startswith("all")
        ):
            checked["be"] += 1
            assert reading in rules.participle_readings(following[0]), example.target
    assert min(checked["have"], checked["be"]) > 40, checked


def test_participles_agree_with_an_object_before_them(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        words = rules.lower_first(example.target_words)
        phrases = rules.noun_phrases(words)
        ends, starts = ({getattr(phrase, side): phrase for phrase in phrases} for side in ("end", "start"))
        for index, word in enumerate(words):
            if word not in ("que", "qu'") or index not in ends or len(ends[index].readings) != 1:
                continue
            verb = starts[index + 1].end if index + 1 in starts else index + 2
            verb += words[verb] in ("ne", "n'")
            if words[verb] in HAVE:
                checked += 1
                participle = next(word for word in words[verb + 1 :] if word not in ADVERBS)
                (reading,) = ends[index].readings
                assert reading in rules.participle_readings(participle), example.target
    assert checked > 20


def test_predicate_adjectives_agree_with_their_subjects(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        found = subject_and_verb(example)
        if found is None or found[0] is None or found[1][verb_of(found[1])] not in BE:
            continue
        rest = found[1][verb_of(found[1]) + 1 :]
        adjective = next((word for word in rest if word in rules.ADJECTIVES), None)
        if adjective and len([w for w in rest if w not in (".", ",")]) <= 3:
            checked += 1
            assert found[0] in rules.ADJECTIVES[adjective][1], example.target
    assert checked > 100


def test_pronouns_have_the_gender_of_their_noun(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        words = rules.lower_first(example.target_words)
        if "pronoun" not in example.labels or "relative" in example.labels:
            continue
        phrases = rules.noun_phrases(words)
        index = max(i for i, word in enumerate(words) if word in ("il", "elle"))
        before = [phrase for phrase in phrases if phrase.end <= index]
        if words[index + 1] == "soit":
            before = before[-2:] if words[index + 2] == "vide" else before[-1:]
        antecedent = before[-2] if words[-2] == "vide" and words[index + 1] == "soit" else before[-1]
        checked[words[index]] += 1
        assert ("m" if words[index] == "il" else "f") in {gender for gender, _ in antecedent.readings}, example.target
    assert min(checked["il"], checked["elle"]) > 300


def test_a_negation_has_two_parts(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        words = rules.lower_first(example.target_words)
        ne = [i for i, word in enumerate(words) if word in ("ne", "n'")]
        second = [i for i, word in enumerate(words) if word in ("pas", "jamais")]
        checked += len(ne)
        assert len(ne) == len(second), example.target
        assert all(2 <= after - before <= 3 for before, after in zip(ne, second, strict=True)), example.target
    assert checked > 1_000


def test_the_subjunctive_follows_although_and_until(sentences: list[Example]) -> None:
    target = Grammar("en", "fr", 470, 1).target
    forms = {"ait", "aie", "aient", "ayons"}
    for (group, _), lexeme in target.lexemes.items():
        if group in ("verb", "modal"):
            forms |= {word[0] for key, word in lexeme.forms.items() if "subjunctive" in key}
    forms |= {"soit", "sois", "soient", "soyons"}
    checked = 0
    for example in sentences:
        words = list(example.target_words)
        for index, word in enumerate(words):
            if word in ("que", "qu'") and words[index - 1].lower() in ("bien", "ce"):
                checked += 1
                assert set(words[index + 1 :]) & forms, example.target
    assert checked > 500


def test_the_alignment_covers_every_content_word(sentences: list[Example]) -> None:
    for example in sentences:
        sources, targets = ({pair[side] for pair in example.alignment} for side in (0, 1))
        unaligned = [example.source_words[i] for i in example.content[0] - sources]
        unaligned += [example.target_words[j] for j in example.content[1] - targets]
        assert not unaligned, f"{unaligned}: {example.source} / {example.target}"


def test_spelling_is_natural(sentences: list[Example]) -> None:
    for example in sentences:
        text = example.target
        assert text[0].isupper()
        assert text.endswith(".")
        assert not {"  ", " ,", " .", ",,", ",.", "' "} & {text[i : i + 2] for i in range(len(text))}
        assert "".join(example.target_words).lower() == text.replace(" ", "").lower()


def test_splits_share_no_sentence_and_names_are_new(demo: Corpus) -> None:
    splits = {"train": demo.train, "validation": demo.validation, **demo.tests}
    assert [len(split) for split in splits.values()] == [6000, 1000, 1000, 500]
    for side in ("sources", "targets"):
        texts = [text for split in splits.values() for text in getattr(split, side)]
        assert len(texts) == len(set(texts))
    known = {
        word for text in demo.train.targets for word in text.replace("'", "' ").strip(".").replace(",", "").split()
    }
    for source, target in demo.tests["names"]:
        shared = {word.strip(".,") for word in source.split()} & {
            word.strip(".,") for word in target.replace("'", "' ").split()
        }
        assert shared - known, source


def test_the_corpus_is_the_same_on_every_machine(demo: Corpus) -> None:
    assert demo.tests["test"].hash[:16] == "db491ff847f4716d"


def test_examples_are_those_of_the_split(demo: Corpus) -> None:
    assert [one.target for one in examples(SMALL, "en", "fr")] == demo.tests["test"].targets


@pytest.mark.parametrize("corpus", [SMALL, FULL], ids=["demo", "full"])
@pytest.mark.parametrize("phenomenon", ["pronoun", "sense", "agreement"])
def test_fixed_preferences_are_right_in_half_of_the_contrasts(phenomenon: str, corpus: CorpusSettings) -> None:
    generated = contrastive(phenomenon, corpus, "en", "fr", size=210)
    check_balance(generated, load(corpus, "en", "fr").train)


def test_the_wrong_translation_of_a_pronoun_is_correct_french() -> None:
    for one in contrastive("pronoun", FULL, "en", "fr", size=40):
        masculine = one.wrong.endswith(("il soit plein.", "il soit vide."))
        assert masculine or one.wrong.endswith(("elle soit pleine.", "elle soit vide.")), one.wrong


def test_a_word_with_the_same_ambiguity_in_both_languages_has_no_contrast() -> None:
    categories = {one.category for one in contrastive("sense", FULL, "en", "fr")}
    assert {"bank", "bat"} <= categories
    assert "crane" not in categories  # French grue is the bird and the machine


@pytest.mark.usefixtures("few_pairs")
def test_french_does_not_show_order() -> None:
    with pytest.raises(ValueError, match="fr does not show order"):
        contrastive("order", CorpusSettings(pairs=100), "en", "fr")


@pytest.mark.parametrize(
    ("group", "name", "features", "form"),
    [
        ("noun", "horse", "many", "chevaux"),
        ("noun", "bucket", "many", "seaux"),
        ("verb", "eat", "present many first masc", "mangeons"),
        ("verb", "eat", "imperfect many first masc", "mangions"),
        ("verb", "reinforce", "imperfect one third masc", "renforçait"),
        ("verb", "put_on", "present one first masc", "mets"),
        ("verb", "drink", "subjunctive many third masc", "boivent"),
        ("verb", "promise", "agreed many third fem", "promises"),
        ("verb", "send", "future one first masc", "enverrai"),
        ("adjective", "beautiful", "one masc vowel", "bel"),
        ("adjective", "happy", "many fem consonant", "heureuses"),
        ("adjective", "light", "one fem consonant", "légère"),
    ],
)
def test_forms(group: str, name: str, features: str, form: str) -> None:
    assert Grammar("en", "fr", 470, 1).target.lexemes[group, name].forms[tuple(features.split())] == (form,)


@pytest.mark.parametrize("direction", ["fr-en", "de-fr", "fr-de"])
def test_other_directions_work(direction: str) -> None:
    source, target = direction.split("-")
    grammar, rng = Grammar(source, target, 470, 1), random.Random(2)
    for _ in range(300):
        example = grammar.example(grammar.draw(rng))
        assert {j for _, j in example.alignment} >= example.content[1], example.target
        assert {i for i, _ in example.alignment} >= example.content[0], example.source


@settings(max_examples=25, deadline=None)
@given(lemmas=st.integers(60, 470), depth=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_sentences_are_correct_for_any_number_of_lemmas_and_any_depth(lemmas: int, depth: int, seed: int) -> None:
    grammar, rng = Grammar("en", "fr", lemmas, depth), random.Random(seed)
    for _ in range(5):
        example = grammar.example(grammar.draw(rng))
        assert all(phrase.readings for phrase in rules.noun_phrases(rules.lower_first(example.target_words)))
        assert {j for _, j in example.alignment} >= example.content[1]
