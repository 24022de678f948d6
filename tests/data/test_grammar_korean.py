"""The grammar corpus in Korean: correct sentences, splits, alignments and contrasts."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.corpora._grammar.language import Language
from bench.data.corpora._grammar.meaning import Concept, Node
from bench.data.corpora.grammar import Example, Grammar, contrastive, examples, load
from bench.data.corpus import Corpus, CorpusSettings
from tests.helpers import korean_rules as rules
from tests.helpers.contrast_sets import check_balance

FULL = CorpusSettings(lemmas=470)
SMALL = CorpusSettings()
SUFFIXES = [form for pair in rules.PARTICLES.items() for form in pair]
NEGATIVE = re.compile(r"지는? (않|못)|이 아[니닌]|수 없|필요가 없|적이 없")


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return Grammar("en", "ko", 470, 1)


@pytest.fixture(scope="module")
def meanings(grammar: Grammar) -> list[Node]:
    """10,000 random meanings with all lemmas."""
    rng = random.Random(7)
    return [grammar.draw(rng) for _ in range(10_000)]


@pytest.fixture(scope="module")
def sentences(grammar: Grammar, meanings: list[Node]) -> list[Example]:
    return [grammar.example(meaning) for meaning in meanings]


@pytest.fixture(scope="module")
def demo() -> Corpus:
    """The default corpus in full size."""
    return load(CorpusSettings(), "en", "ko")


def test_particles_follow_the_final_sound(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        for unit in rules.units(example.target, example.target_words):
            for word, suffix in pairwise(unit):
                for long, short in rules.PARTICLES.items():
                    if suffix in (long, short):
                        checked[suffix] += 1
                        assert suffix == rules.particle(word, long), f"{word}{suffix}: {example.target}"
    assert min(checked[suffix] for suffix in SUFFIXES) > 50, checked


def test_every_particle_is_joined_to_its_noun(sentences: list[Example]) -> None:
    for example in sentences:
        words = re.split(r"[ ,.]+", example.target)
        assert not {"은", "는", "가", "을", "를", "로", "으로", "에", "에서", "에게", "다", "고"} & set(words), (
            example.target
        )


def test_the_verb_is_last(sentences: list[Example]) -> None:
    for example in sentences:
        assert re.search(r"다\.$", example.target), example.target


def test_relative_clauses_end_before_the_noun_in_an_adnominal_form(grammar: Grammar, meanings: list[Node]) -> None:
    checked: Counter[str] = Counter()
    for meaning in meanings:
        relatives = [node for node in meaning.walk() if "relative" in node.slots]
        words = grammar.target.words(meaning) if relatives else []
        for phrase in relatives:
            clause = phrase.slots["relative"].slots["body"]
            verb = max(i for i, word in enumerate(words) if clause.slots["verb"] in word.origins)
            noun = next(i for i, word in enumerate(words) if phrase.slots["noun"] in word.origins)
            last = words[verb + 1 if clause.features["polarity"] == "negative" else verb].text
            checked[clause.features["tense"]] += 1
            assert verb < noun, grammar.target.text(words)
            ending = last.endswith(("초록색", "갈색", "새", "던")) or rules.final(last) == "ㄴ"
            assert ending, f"{last}: {grammar.target.text(words)}"
    assert min(checked.values()) > 300


def test_subordinate_clauses_come_first(sentences: list[Example]) -> None:
    endings = {
        "because": "기 때문에",
        "when": "때",
        "while": "동안",
        "as soon as": "자마자",
        "although": "지만",
        "if": "면",
    }
    checked: Counter[str] = Counter()
    for example in sentences:
        if not example.labels & {"linked", "opened"}:
            continue
        for word, ending in endings.items():
            if re.search(rf"\b{word}\b(?! of)", example.source, re.IGNORECASE):
                checked[word] += 1
                assert re.search(rf"{ending} .*다\.$", example.target), example.target
    assert min(checked[word] for word in endings) > 20


def test_the_antecedent_is_repeated(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        text = example.target
        if match := re.search(r"([가-힣]+?)[이가] (가득 찰|빌) 때까지 ([가-힣]+)에서 ([가-힣]+)에 ", text):
            noun, state, source, goal = match.groups()
            checked[state] += 1
            assert noun == (goal if state == "가득 찰" else source), text
        elif match := re.search(r"데, 그 ([가-힣]+)[이가] .*기 때문이다\.$", text):
            checked["remark"] += 1
            assert len(re.findall(rf"(?<![가-힣]){match[1]}[은는이가을를에 ]", text)) >= 2, text
        else:
            assert "pronoun" not in example.labels, text
    assert min(checked.values()) > 300


def test_both_languages_are_negative_equally_often(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        negations = len(re.findall(r"\b(not|cannot|never|rarely|no)\b", example.source, re.IGNORECASE))
        checked += negations
        assert len(NEGATIVE.findall(example.target)) == negations, f"{example.source} / {example.target}"
    assert checked > 1_000


def test_tenses(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        tense = example.labels & {"tense=present", "tense=past", "tense=perfect", "tense=future"}
        if len(tense) > 1 or "pronoun" in example.labels or "기 때문이다" in example.target:
            continue
        (name,) = tense
        checked[name] += 1
        last = example.target.removesuffix(".")
        if name == "tense=future":
            assert last.endswith("것이다"), example.target
            assert rules.final(last.split()[-2]) == "ㄹ", example.target
        elif name != "tense=present":
            assert rules.final(last[:-1]) == "ㅆ" or last.endswith("적이 없다"), example.target
        elif not re.search(r"(있|없|오래되었|화났|망가졌|젖었|않았)다$", last):
            assert rules.final(last[:-1]) != "ㅆ", example.target
    assert min(checked.values()) > 500, checked


def test_two_and_some_have_a_counter(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        words = list(example.target_words)
        for index, word in enumerate(words):
            if word in ("두", "몇"):
                noun, counter = words[index - 1], words[index + 1]
                checked[counter] += 1
                assert (counter == "명") == (noun in rules.PERSONS), example.target
                assert (counter == "마리") == (noun in rules.ANIMALS), example.target
    assert min(checked[counter] for counter in ("명", "마리", "개", "권")) > 5


def test_the_subject_of_a_clause_inside_another_is_no_topic(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        if "reported" not in example.labels and "opened" not in example.labels:
            continue
        checked += 1
        groups = rules.units(example.target, example.target_words)
        topics = [unit for unit in groups if len(unit) > 1 and unit[-1] in ("은", "는") and unit[-2][-1] not in "다지"]
        assert len(topics) <= 1, example.target
    assert checked > 500


def test_verbs_and_adjectives_are_conjugated_regularly_or_by_the_table(grammar: Grammar) -> None:
    checked = 0
    for (group, _), lexeme in grammar.target.lexemes.items():
        if group not in ("verb", "adjective"):
            continue
        sorts = {key[0] for key in lexeme.forms} if lexeme.features[0][0] == "sort" else {None}
        for sort in sorts:
            forms = {key[-2:]: " ".join(form) for key, form in lexeme.forms.items() if sort in (None, key[0])}
            stem = forms["bare", "present"]
            if rules.final(stem) == "ㅆ" and not stem.endswith("있"):
                continue  # a state, such as 화났다
            checked += 1
            assert forms["bare", "past"] == rules.past(stem), lexeme.name
            if group == "verb" and not stem.endswith("있"):
                assert forms["final", "present"] == rules.present(stem), lexeme.name
    assert checked > 180


@pytest.mark.parametrize(
    ("group", "name", "features", "form"),
    [
        ("verb", "help", "final future", "도울 것이다"),
        ("verb", "open", "adnominal present", "여는"),
        ("verb", "open", "adnominal past", "연"),
        ("verb", "open", "vowel present", "열"),
        ("verb", "eat", "adnominal past", "먹은"),
        ("verb", "carry", "final past", "날랐다"),
        ("verb", "put_on", "shoe final past", "신었다"),
        ("verb", "stand", "thing final past", "놓여 있었다"),
        ("verb", "know", "start present", "알게 되"),
        ("adjective", "beautiful", "adnominal present", "아름다운"),
        ("adjective", "white", "adnominal present", "하얀"),
        ("adjective", "long", "adnominal present", "긴"),
        ("adjective", "funny", "adnominal present", "재미있는"),
        ("adjective", "angry", "bare present", "화났"),
        ("adjective", "big", "bare past", "컸"),
    ],
)
def test_forms(grammar: Grammar, group: str, name: str, features: str, form: str) -> None:
    assert " ".join(grammar.target.lexemes[group, name].forms[tuple(features.split())]) == form


def test_the_alignment_covers_every_content_word(sentences: list[Example]) -> None:
    for example in sentences:
        sources, targets = ({pair[side] for pair in example.alignment} for side in (0, 1))
        unaligned = [example.source_words[i] for i in example.content[0] - sources]
        unaligned += [example.target_words[j] for j in example.content[1] - targets]
        assert not unaligned, f"{unaligned}: {example.source} / {example.target}"


def test_a_particle_is_aligned_with_its_noun(grammar: Grammar, sentences: list[Example]) -> None:
    for example in sentences[:500]:
        words = example.target_words
        for unit in rules.units(example.target, words):
            if len(unit) > 1 and unit[-1] in ("을", "를"):
                index = next(i for i in range(len(words)) if list(words[i : i + len(unit)]) == unit)
                noun, particle = ({i for i, j in example.alignment if j == index + n} for n in (0, len(unit) - 1))
                assert particle, example.target
                assert particle <= noun or words[index] in ("명", "마리"), example.target


def test_it_is_aligned_with_the_repeated_noun(sentences: list[Example]) -> None:
    for example in sentences:
        if "pronoun" in example.labels:
            index = max(i for i, word in enumerate(example.source_words) if word in ("it", "he", "she"))
            assert any(i == index for i, _ in example.alignment), example.source


def test_spelling_is_natural(sentences: list[Example]) -> None:
    for example in sentences:
        text = example.target
        assert text.endswith(".")
        assert not {"  ", " ,", " .", ",,", ",."} & {text[i : i + 2] for i in range(len(text))}
        assert "".join(example.target_words) == text.replace(" ", "")
        assert unicodedata.is_normalized("NFC", text)
        assert re.fullmatch(r"[가-힣 ,.]+", text), text


def test_splits_share_no_sentence_and_names_are_new(demo: Corpus) -> None:
    splits = {"train": demo.train, "validation": demo.validation, **demo.tests}
    assert [len(split) for split in splits.values()] == [6000, 1000, 1000, 500]
    for side in ("sources", "targets"):
        texts = [text for split in splits.values() for text in getattr(split, side)]
        assert len(texts) == len(set(texts))
    names = rules.word_list("노라 펠릭스 클라라 오스카 헬레나 사이먼 로라 안톤 미나 로버트 폴라 에이드리언")
    pattern = re.compile(rf"(^| )({'|'.join(names)})(은|는|이|가|을|를|의|에게|에게서)( |$)")
    assert all(pattern.search(target) for target in demo.tests["names"].targets)
    assert not any(pattern.search(target) for target in demo.train.targets)


def test_the_corpus_is_the_same_on_every_machine(demo: Corpus) -> None:
    assert demo.tests["test"].hash[:16] == "030ce80d3d106ca9"


def test_examples_are_those_of_the_split(demo: Corpus) -> None:
    assert [one.target for one in examples(SMALL, "en", "ko")] == demo.tests["test"].targets


@pytest.mark.parametrize("corpus", [SMALL, FULL], ids=["demo", "full"])
@pytest.mark.parametrize("phenomenon", ["pronoun", "sense"])
def test_fixed_preferences_are_right_in_half_of_the_contrasts(phenomenon: str, corpus: CorpusSettings) -> None:
    generated = contrastive(phenomenon, corpus, "en", "ko", size=210)
    check_balance(generated, load(corpus, "en", "ko").train)


def test_the_particle_of_a_wrong_noun_fits_it() -> None:
    generated = contrastive("pronoun", FULL, "en", "ko", size=80) + contrastive("sense", FULL, "en", "ko", size=80)
    for one in generated:
        assert not re.search(r"(주전자이|컵가|방망이을|성냥를|경기을|은행를)", one.wrong), one.wrong
    assert {"컵 이", "주전자 가"} <= {one.forms[1] for one in contrastive("pronoun", SMALL, "en", "ko")}
    assert ("강둑", "은행") in {one.forms for one in generated}


@pytest.mark.usefixtures("few_pairs")
@pytest.mark.parametrize("phenomenon", ["agreement", "order"])
def test_korean_does_not_show(phenomenon: str) -> None:
    with pytest.raises(ValueError, match=f"ko does not show {phenomenon}"):
        contrastive(phenomenon, CorpusSettings(pairs=100), "en", "ko")


@pytest.mark.parametrize("direction", ["ko-en", "de-ko", "ko-fr"])
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
    grammar, rng = Grammar("en", "ko", lemmas, depth), random.Random(seed)
    for _ in range(5):
        example = grammar.example(grammar.draw(rng))
        assert example.target.endswith("다.")
        assert {j for _, j in example.alignment} >= example.content[1]


def test_suffixes_letters_and_words_chosen_by_a_feature() -> None:
    language = Language(
        "xx",
        {
            "letters": "decomposed",
            "features": {"sort": "thing person"},
            "spelling": {"punctuation": ".", "junctures": [{"word": "-은", "after": "[ᅡ-ᅵ]$", "say": "-는"}]},
            "paradigms": {"noun": {"entry": ["base"], "forms": "{base}\u11ab"}},
            "words": {"topic": {"forms": "-은"}},
            "templates": {"Root": 'noun(sort=person) @topic noun^other @topic^noun "."'},
            "lexicon": {"noun": {"one": {"by": "sort", "forms": {"thing": "가", "person": {"forms": "나"}}}}},
        },
    )
    concept = Concept("one", "noun", "noun", {})
    noun, other = (Node("noun", {}, {}, concept, concept) for _ in range(2))
    words = language.words(Node("Root", {"noun": noun, "other": other}, {}))
    assert language.text(words) == "나는 간은."
    assert [len(word.origins) for word in words] == [1, 1, 2, 1, 0]
    assert words[2].origins == (noun, other)
