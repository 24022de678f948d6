"""The grammar corpus: correct German, splits, alignments and contrasts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.corpora._grammar.language import Language
from bench.data.corpora._grammar.meaning import Meaning, Node, concepts_of
from bench.data.corpora.grammar import Example, Grammar, contrastive, examples, load, nested
from bench.data.corpus import Corpus, CorpusSettings
from tests.data.conftest import FEW_PAIRS
from tests.helpers import german_rules
from tests.helpers.contrast_sets import check_balance

SUBORDINATORS = {"weil", "dass", "wenn", "als", "obwohl", "falls", "während", "sobald", "bis"}
COORDINATORS = {"und", "aber", "denn"}
RELATIVE = {"der", "die", "das", "den", "dem", "denen"}
TIMES = """heute Morgen;gestern Abend;heute Abend;letzte Woche;nächste Woche;jeden Tag;am Sonntag;am Abend;
am Nachmittag;im Moment;heute;gestern;jetzt;morgen;bald;neulich""".replace("\n", "").split(";")
PLACING = set(
    german_rules.word_list("legt legte legten gelegt legen stellt stellte stellten gestellt stellen lege stelle")
)
RESTING = set(
    german_rules.word_list("sitzt saß saßen gesessen sitzen sitze steht stand standen gestanden stehen liegt lag lagen")
)
DATIVE = set(
    german_rules.word_list("hilft half halfen geholfen folgt folgte folgten gefolgt dankt dankte dankten gedankt")
)
DATIVE |= set(german_rules.word_list("vertraut vertraute vertrauten antwortet antwortete antworteten geantwortet"))
FULL = CorpusSettings(lemmas=470)
SMALL = CorpusSettings()


@pytest.fixture(scope="module")
def sentences() -> list[Example]:
    """10,000 random sentences with all lemmas."""
    grammar, rng = Grammar("en", "de", 470, 1), random.Random(7)
    return [grammar.example(grammar.draw(rng)) for _ in range(10_000)]


@pytest.fixture(scope="module")
def demo() -> Corpus:
    """The default corpus in full size."""
    return load(CorpusSettings(), "en", "de")


@pytest.fixture(scope="module")
def finite() -> set[str]:
    """All finite verb forms: those that can be second or last in a clause."""
    data = Grammar("en", "de", 470, 1).target
    forms = {"hat", "habe", "haben", "ist", "bin", "sind", "wird", "werde", "werden"}
    for (group, _), lexeme in data.lexemes.items():
        if group in ("verb", "modal"):
            forms |= {
                " ".join(form)
                for key, form in lexeme.forms.items()
                if form and not {"infinitive", "participle", "particle"} & set(key)
            }
    return forms


def clauses(words: list[str]) -> list[tuple[str, list[str]]]:
    """The words between commas: at depth 1 a whole relative or subordinate clause, or a part of the main clause."""
    pronouns = german_rules.relative_pronouns(words)
    found: list[tuple[str, list[str]]] = []
    start = 0
    for end, word in enumerate(words):
        if word in (",", "."):
            relative = {start, start + 1} & pronouns and words[start] not in COORDINATORS
            kind = "relative" if relative else "subordinate" if words[start] in SUBORDINATORS else "main"
            found.append((kind, words[start:end]))
            start = end + 1
    return found


def test_articles_adjectives_and_nouns_agree(sentences: list[Example]) -> None:
    checked = 0
    for example in sentences:
        for phrase in german_rules.noun_phrases(german_rules.expand_contractions(example.target_words)):
            checked += 1
            assert phrase.readings, f"{phrase.determiner} ... {phrase.noun}: {example.target}"
    assert checked > 15_000


def test_cases_are_those_that_verbs_and_prepositions_govern(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        words = german_rules.expand_contractions(example.target_words)
        if "," in words:
            continue
        phrases = german_rules.noun_phrases(words)
        free = [phrase for phrase in phrases if not phrase.preposition and phrase.noun not in ("Tag", "Woche")]
        if free and free[0].start == 0:
            checked["subject"] += 1
            assert "nom" in free.pop(0).cases, example.target
            if len(free) == 1:
                expected = {"dat"} if DATIVE & set(words) else {"acc", "dat"}
                checked["dative" if DATIVE & set(words) else "object"] += 1
                assert free[0].cases & expected, example.target
            elif len(free) == 2:
                checked["recipient"] += 1
                assert "dat" in free[0].cases, example.target
                assert "acc" in free[1].cases, example.target
        for phrase in phrases:
            if phrase.preposition in ("auf", "unter", "neben") and (PLACING | RESTING) & set(words):
                case = "acc" if PLACING & set(words) else "dat"
                checked[case] += 1
                assert case in phrase.cases, example.target
    assert min(checked.values()) > 50, checked
    assert len(checked) == 6


def test_verbs_are_last_in_subordinate_clauses(sentences: list[Example], finite: set[str]) -> None:
    checked = 0
    for example in sentences:
        for index, (kind, words) in enumerate(clauses(german_rules.expand_contractions(example.target_words))):
            # while a sentence can begin with the preposition während
            if kind == "relative" or (kind == "subordinate" and (index or "opened" in example.labels)):
                checked += 1
                assert words[-1] in finite, example.target
    assert checked > 2_000


def test_verbs_are_second_in_main_clauses(sentences: list[Example], finite: set[str]) -> None:
    checked = 0
    for example in sentences:
        if example.labels & {"relative", "opened"}:
            continue
        words = list(example.target_words)
        text = " ".join(words)
        front = next((time for time in TIMES if text.lower().startswith(f"{time.lower()} ")), None)
        words_expanded = german_rules.expand_contractions(example.target_words)
        if front:
            first = len(front.split())
        else:  # a noun phrase with or without a preposition, or one word, such as a name
            phrases = german_rules.noun_phrases(words_expanded)
            starts = words_expanded[0] in german_rules.PREPOSITIONS
            first = phrases[0].end if phrases and phrases[0].start == starts else 1
        checked += 1
        assert words[first] in finite, f"{words[first]}: {example.target}"
    assert checked > 7_000


def test_after_a_subordinate_clause_the_main_clause_begins_with_its_verb(
    sentences: list[Example], finite: set[str]
) -> None:
    opened = [
        clauses(german_rules.expand_contractions(one.target_words)) for one in sentences if "opened" in one.labels
    ]
    assert len(opened) > 200
    assert all(parts[1][1][0] in finite for parts in opened)


def test_the_alignment_covers_every_content_word(sentences: list[Example]) -> None:
    for example in sentences:
        sources, targets = ({pair[side] for pair in example.alignment} for side in (0, 1))
        unaligned = [example.source_words[i] for i in example.content[0] - sources]
        unaligned += [example.target_words[j] for j in example.content[1] - targets]
        assert not unaligned, f"{unaligned}: {example.source} / {example.target}"


def test_spelling_and_sentence_lengths_are_natural(sentences: list[Example]) -> None:
    for example in sentences:
        for text in (example.source, example.target):
            assert text[0].isupper()
            assert text.endswith(".")
            assert not {"  ", " ,", " .", ",,", ",."} & {text[i : i + 2] for i in range(len(text))}
        assert not {"in dem ", "zu der ", "zu dem ", "in das "} & {
            f"{a} {b} "
            for a, b in zip(example.target_words, example.target_words[1:], strict=False)
            if b not in RELATIVE
        }
    lengths = Counter(len(example.source_words) - 1 for example in sentences)
    assert sum(number for length, number in lengths.items() if 4 <= length <= 20) > 8_500


def test_splits_share_no_sentence(demo: Corpus) -> None:
    splits = {"train": demo.train, "validation": demo.validation, **demo.tests}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 6000,
        "validation": 1000,
        "test": 1000,
        "names": 500,
    }
    for side in ("sources", "targets"):
        texts = [text for split in splits.values() for text in getattr(split, side)]
        assert len(texts) == len(set(texts))
    assert next(iter(demo.tests)) == "test"


def test_names_occur_in_no_other_split(demo: Corpus) -> None:
    known = {
        word
        for split in (demo.train, demo.validation, demo.tests["test"])
        for text in split.targets
        for word in text.rstrip(".").replace(",", "").split()
    }
    for source, target in demo.tests["names"]:
        shared = {word.strip(".,") for word in source.split()} & {word.strip(".,") for word in target.split()}
        assert shared - known, source


def test_the_corpus_is_the_same_on_every_machine(demo: Corpus) -> None:
    assert demo.tests["test"].hash[:16] == "4173e1f3a621afcd"


@pytest.mark.usefixtures("few_pairs")
def test_a_larger_corpus_begins_with_the_smaller_one() -> None:
    less, more = (load(CorpusSettings(pairs=pairs), "en", "de") for pairs in (400, 450))
    assert more.tests["test"].hash == less.tests["test"].hash
    assert more.train.sources[:400] == less.train.sources
    assert len(more.train) == 450


@pytest.mark.usefixtures("few_pairs")
def test_the_other_direction_is_the_same_text(demo: Corpus) -> None:
    """`demo` has full size, so this also shows that the corpus does not depend on its size."""
    other = load(CorpusSettings(pairs=400), "de", "en")
    assert other.train.sources == demo.train.targets[:400]
    assert other.tests["names"].targets == demo.tests["names"].sources[:FEW_PAIRS]
    assert (other.name, other.direction) == ("grammar-de-en", "de-en")


@pytest.mark.parametrize("corpus", [SMALL, FULL], ids=["demo", "full"])
@pytest.mark.parametrize("phenomenon", ["pronoun", "sense", "agreement", "order"])
def test_fixed_preferences_are_right_in_half_of_the_contrasts(phenomenon: str, corpus: CorpusSettings) -> None:
    generated = contrastive(phenomenon, corpus, size=210)
    check_balance(generated, load(corpus, "en", "de").train)
    if phenomenon == "agreement":
        assert {one.distance for one in generated} == set(range(21))


def test_contrasts_are_about_their_phenomenon() -> None:
    pronoun = {one.source: one for one in contrastive("pronoun", FULL, size=40)}
    for source, one in pronoun.items():
        assert one.category == ("goal" if "full" in source else "source")
        words = one.right.replace(",", "").split()
        it, noun = (
            words[words.index("bis") + 1],
            words[words.index("bis") - 1 if one.category == "goal" else words.index("aus") + 2],
        )
        assert it == {"m": "er", "f": "sie", "n": "es"}[german_rules.GENDERS[noun]], one.right
    assert "bank" in {one.category for one in contrastive("sense", FULL)}
    for one in contrastive("order", SMALL, size=40):
        assert (
            Counter(one.right.lower().replace(",", "").replace(".", "").split())
            == Counter(one.wrong.lower().replace(",", "").replace(".", "").split())
            or abs(len(one.right.split()) - len(one.wrong.split())) == 1
        )


@pytest.mark.usefixtures("few_pairs")
def test_a_phenomenon_that_the_language_does_not_have_is_an_error() -> None:
    few = CorpusSettings(pairs=100)
    with pytest.raises(ValueError, match="no phenomenon 'rhyme'; choose one of pronoun, sense, agreement, order"):
        contrastive("rhyme", few)
    with pytest.raises(ValueError, match="en does not show order"):
        contrastive("order", few, "de", "en")


def test_examples_are_those_of_the_split(demo: Corpus) -> None:
    generated = examples(CorpusSettings())
    assert [one.source for one in generated] == demo.tests["test"].sources
    labels = Counter(label for one in generated for label in one.labels)
    for label in ("relative", "pronoun", "polarity=negative", "tense=perfect", "tense=future", "modal", "front=time"):
        assert labels[label] > 20, label


@pytest.mark.parametrize(("depth", "size"), [(0, 20), (1, 20), (2, 20), (3, 20), (5, 4)])  # depth 5 is rare
def test_clauses_nest_to_any_depth(depth: int, size: int) -> None:
    generated = nested(SMALL, depth, size=size)
    assert len(generated) == size
    assert {one.depth for one in generated} == {depth}
    assert depth < 2 or all(one.target.count(",") >= depth for one in generated)


def test_there_are_over_a_billion_meanings() -> None:
    for lemmas, depth in ((470, 0), (120, 0)):
        assert Grammar("en", "de", lemmas, depth).count() > 10**9
    assert len(Grammar("en", "de", 470, 1).lemmas) == 470


def test_different_meanings_give_different_pairs() -> None:
    # `count` counts meanings. It also counts pairs only if different meanings do not give the same pair.
    grammar, rng = Grammar("en", "de", 470, 1), random.Random(5)

    def description(node: Node) -> str:
        name = node.concept.name if node.concept else ""
        slots = [(slot, description(inner)) for slot, inner in sorted(node.slots.items()) if slot != "it"]
        return f"{name}{sorted(node.features.items())}{slots}"

    pairs: dict[tuple[str, str], set[str]] = {}
    for _ in range(3000):
        meaning = grammar.draw(rng)
        pairs.setdefault(grammar.texts(meaning), set()).add(description(meaning))
    assert sum(len(meanings) > 1 for meanings in pairs.values()) <= 3


TOY = """
classes: {living: person animal}
concepts:
  noun: {fields: [is, count=count], words: {girl: person, cat: animal, milk: drink / mass, book: text}}
  verb: {fields: [subject, object], words: {see: living / living text, drink: living / drink}}
rules:
  Clause:
    - {weight: 1, verb: verb, subject: Phrase(verb.subject), object: Phrase(verb.object), tense: [present, past]}
  Phrase(class):
    - {head: noun, noun: "noun(is~class, count~'count')", number: [one, many], "owner?0.5": Owner}
    - {head: noun, noun: "noun(is~class, count~'mass')", number: [one]}
  Owner:
    - {costs: 1, noun: "noun(is~'person')"}
"""
VERB_LAST = """
features: {number: one many, tense: present past, role: subject object}
spelling:
  punctuation: ". ,"
  fusions: [{of: verb end, pairs: {mira da: mirada}}]
paradigms:
  noun: {entry: [base], features: [number, role], forms: {one: "{base} {base}n", many: "{base}i {base}in"}}
  verb: {entry: [base], features: [tense], forms: "{base} {base}t"}
words: {end: {forms: da}, of: {forms: o}}
templates:
  Clause: subject(role=subject) object(role=object) verb(tense) @end "."
  Phrase: owner noun(number role)
  Owner: noun @of
lexicon:
  noun: {girl: tilo, cat: kato, milk: lato, book: libo}
  verb: {see: mira, drink: boi}
"""


def test_the_count_is_exact_and_a_language_is_defined_by_data_alone() -> None:
    data = yaml.safe_load(TOY)
    language = Language("toy", yaml.safe_load(VERB_LAST))
    for depth in (0, 1):
        meaning, rng = Meaning(data, concepts_of(data)), random.Random(1)
        sentences = {
            language.text(language.words(meaning.draw(rng, "Clause", depth))) for _ in range(8000 if depth else 2000)
        }
        # Subject: girl or cat, one or many. Object: girl, cat or book, one or many; or milk. Two tenses. Owner or none.
        phrases, milk = (2 * 2, 1) if not depth else (2 * 2 * 2, 1)
        assert meaning.count("Clause", depth) == 2 * phrases * (phrases * 3 // 2 + milk) == len(sentences)
    assert "Tiloi laton boi da." in sentences
    assert "Tilo o kato libon mirada." in sentences


@pytest.mark.parametrize(
    ("group", "name", "features", "form"),
    [
        ("noun", "man", "one gen", "Mannes"),
        ("noun", "student", "one acc", "Studenten"),
        ("noun", "child", "many dat", "Kindern"),
        ("noun", "car", "many dat", "Autos"),
        ("verb", "call", "final past many third", "anriefen"),
        ("verb", "call", "infinitive present one third", "anrufen"),
        ("verb", "work", "finite past many third", "arbeiteten"),
        ("verb", "be", "finite present one first", "bin"),
        ("adjective", "expensive", "mixed one neut nom", "teures"),
        ("adjective", "dark", "weak one fem dat", "dunklen"),
    ],
)
def test_forms(group: str, name: str, features: str, form: str) -> None:
    assert Grammar("en", "de", 470, 1).target.lexemes[group, name].forms[tuple(features.split())] == (form,)


@settings(max_examples=25, deadline=None)
@given(lemmas=st.integers(60, 470), depth=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_sentences_are_correct_for_any_number_of_lemmas_and_any_depth(lemmas: int, depth: int, seed: int) -> None:
    grammar, rng = Grammar("en", "de", lemmas, depth), random.Random(seed)
    for _ in range(5):
        example = grammar.example(grammar.draw(rng))
        assert example.depth <= depth
        phrases = german_rules.noun_phrases(german_rules.expand_contractions(example.target_words))
        assert all(phrase.readings for phrase in phrases), example.target
        assert {j for _, j in example.alignment} >= example.content[1]


@pytest.mark.parametrize(
    ("changed", "source", "message"),
    [
        (
            CorpusSettings(lemmas=10_000),
            "en",
            r"corpus.lemmas: 10000 is not between \d+ and \d+, the number of all lemmas",
        ),
        (CorpusSettings(lemmas=1), "en", "corpus.lemmas: 1 is not between"),
        (CorpusSettings(depth=-1), "en", "corpus.depth: -1 is negative"),
        (CorpusSettings(pairs=0), "en", "corpus.pairs: 0"),
        (CorpusSettings(), "tlh", "corpus.name: the grammar has no language 'tlh'; choose two of de, en, fr"),
        (CorpusSettings(), "de", "corpus.name: .* twice"),
    ],
)
def test_errors_in_settings_name_the_key_and_the_limits(changed: CorpusSettings, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(changed, source, "de")
