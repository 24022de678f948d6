"""The embedded corpus: its German, its splits, its alignments and its contrastive sets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.corpora._grammar.language import Language
from bench.data.corpora._grammar.meaning import Meaning, Node, concepts_of
from bench.data.corpora.grammar import Example, Grammar, contrastive, examples, load, nested
from bench.data.corpus import Corpus, CorpusSettings
from tests.helpers import german_rules

SUBORDINATORS = {"weil", "dass", "wenn", "als", "obwohl", "falls", "während", "sobald", "bis"}
COORDINATORS = {"und", "aber", "denn"}
RELATIVE = {"der", "die", "das", "den", "dem", "denen"}
TIMES = """heute Morgen;gestern Abend;heute Abend;letzte Woche;nächste Woche;jeden Tag;am Sonntag;am Abend;
am Nachmittag;im Moment;heute;gestern;jetzt;morgen;bald;neulich""".replace("\n", "").split(";")
PLACING = set(
    german_rules.listed("legt legte legten gelegt legen stellt stellte stellten gestellt stellen lege stelle")
)
RESTING = set(
    german_rules.listed("sitzt saß saßen gesessen sitzen sitze steht stand standen gestanden stehen liegt lag lagen")
)
DATIVE = set(
    german_rules.listed("hilft half halfen geholfen folgt folgte folgten gefolgt dankt dankte dankten gedankt")
)
DATIVE |= set(german_rules.listed("vertraut vertraute vertrauten antwortet antwortete antworteten geantwortet"))
FULL = CorpusSettings(lemmas=470)
SMALL = CorpusSettings()


@pytest.fixture(scope="module")
def sentences() -> list[Example]:
    """10,000 sentences over all words."""
    grammar, rng = Grammar("en", "de", 470, 1), random.Random(7)
    return [grammar.example(grammar.draw(rng)) for _ in range(10_000)]


@pytest.fixture(scope="module")
def demo() -> Corpus:
    return load(CorpusSettings(), "en", "de")


@pytest.fixture(scope="module")
def finite() -> set[str]:
    """Every verb form that can stand at the second place or at the end of a clause."""
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
    """The words between commas; at depth 1 each is a whole clause (relative, subordinate) or a part of the main one."""
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
        for phrase in german_rules.noun_phrases(german_rules.spread(example.target_words)):
            checked += 1
            assert phrase.readings, f"{phrase.determiner} ... {phrase.noun}: {example.target}"
    assert checked > 15_000


def test_cases_are_those_that_verbs_and_prepositions_ask_for(sentences: list[Example]) -> None:
    checked: Counter[str] = Counter()
    for example in sentences:
        words = german_rules.spread(example.target_words)
        if "," in words:
            continue
        phrases = german_rules.noun_phrases(words)
        free = [phrase for phrase in phrases if not phrase.preposition and phrase.noun not in ("Tag", "Woche")]
        if free and free[0].start == 0:
            checked["subject"] += 1
            assert "nom" in free.pop(0).cases, example.target
            if len(free) == 1:
                wanted = {"dat"} if DATIVE & set(words) else {"acc", "dat"}
                checked["dative" if DATIVE & set(words) else "object"] += 1
                assert free[0].cases & wanted, example.target
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
        for index, (kind, words) in enumerate(clauses(german_rules.spread(example.target_words))):
            # a sentence may begin with während, the preposition
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
        spread = german_rules.spread(example.target_words)
        if front:
            first = len(front.split())
        else:  # a noun phrase, with a preposition or not; or one word, such as a name
            phrases = german_rules.noun_phrases(spread)
            starts = spread[0] in german_rules.PREPOSITIONS
            first = phrases[0].end if phrases and phrases[0].start == starts else 1
        checked += 1
        assert words[first] in finite, f"{words[first]}: {example.target}"
    assert checked > 7_000


def test_a_clause_before_the_main_one_turns_it_round(sentences: list[Example], finite: set[str]) -> None:
    opened = [clauses(german_rules.spread(one.target_words)) for one in sentences if "opened" in one.labels]
    assert len(opened) > 200
    assert all(parts[1][1][0] in finite for parts in opened)


def test_the_alignment_covers_every_content_word(sentences: list[Example]) -> None:
    for example in sentences:
        sources, targets = ({pair[side] for pair in example.alignment} for side in (0, 1))
        left = [example.source_words[i] for i in example.content[0] - sources]
        left += [example.target_words[j] for j in example.content[1] - targets]
        assert not left, f"{left}: {example.source} / {example.target}"


def test_sentences_are_written_as_people_write_them(sentences: list[Example]) -> None:
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


def test_the_corpus_is_the_same_everywhere(demo: Corpus) -> None:
    assert demo.tests["test"].hash[:16] == "4173e1f3a621afcd"
    more = load(CorpusSettings(pairs=6500), "en", "de")
    assert more.tests["test"].hash == demo.tests["test"].hash
    assert more.train.sources[:6000] == demo.train.sources


def test_the_other_direction_is_the_same_text(demo: Corpus) -> None:
    other = load(CorpusSettings(), "de", "en")
    assert other.train.sources == demo.train.targets
    assert other.tests["names"].targets == demo.tests["names"].sources
    assert (other.name, other.direction) == ("grammar-de-en", "de-en")


@pytest.mark.parametrize("chosen", [SMALL, FULL], ids=["demo", "full"])
@pytest.mark.parametrize("phenomenon", ["pronoun", "sense", "agreement", "order"])
def test_habits_are_right_in_half_of_the_contrasts(phenomenon: str, chosen: CorpusSettings) -> None:
    made = contrastive(phenomenon, chosen, size=210)
    assert len(made) >= 150
    often = Counter(one.forms[0] for one in made)
    fixed = sorted(often)

    def half(habit: Callable[[str, str], float]) -> bool:
        """Whether the one with the smaller value is right in half of them; a tie is half a point."""
        values = [(habit(one.right, one.forms[0]), habit(one.wrong, one.forms[1])) for one in made]
        return sum((right < wrong) + 0.5 * (right == wrong) for right, wrong in values) == len(made) / 2

    assert half(lambda text, form: fixed.index(form))  # the same form, whatever the sentence
    assert half(lambda text, form: len(text))  # the shorter
    assert half(lambda text, form: len(text.split()))
    assert half(lambda text, form: -often[form])  # the more frequent
    right, wrong = (Counter((one.distance, one.forms[i]) for one in made) for i in (0, 1))
    assert right == wrong
    if phenomenon == "agreement":
        assert {one.distance for one in made} == set(range(21))
    train = load(chosen, "en", "de").train
    assert not {text for one in made for text in (one.source, one.right)} & {*train.sources, *train.targets}


def test_contrasts_say_what_they_are_about() -> None:
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


def test_a_phenomenon_that_does_not_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="no phenomenon 'rhyme'; choose one of pronoun, sense, agreement, order"):
        contrastive("rhyme", SMALL)
    with pytest.raises(ValueError, match="en does not show order"):
        contrastive("order", SMALL, "de", "en")


def test_examples_are_those_of_the_split(demo: Corpus) -> None:
    made = examples(CorpusSettings())
    assert [one.source for one in made] == demo.tests["test"].sources
    labels = Counter(label for one in made for label in one.labels)
    for label in ("relative", "pronoun", "polarity=negative", "tense=perfect", "tense=future", "modal", "front=time"):
        assert labels[label] > 20, label


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 5])
def test_clauses_nest_to_any_depth(depth: int) -> None:
    made = nested(SMALL, depth, size=20)
    assert len(made) == 20
    assert {one.depth for one in made} == {depth}
    assert depth < 2 or all(one.target.count(",") >= depth for one in made)


def test_the_full_space_is_as_large_as_it_is_said_to_be() -> None:
    for lemmas, depth in ((470, 0), (120, 0)):
        assert Grammar("en", "de", lemmas, depth).count() > 10**9
    assert len(Grammar("en", "de", 470, 1).lemmas) == 470


def test_different_meanings_are_different_pairs() -> None:
    # The count is of meanings; it is one of pairs only as far as two meanings are never the same pair.
    grammar, rng = Grammar("en", "de", 470, 1), random.Random(5)

    def spelt(node: Node) -> str:
        name = node.concept.name if node.concept else ""
        slots = [(slot, spelt(inner)) for slot, inner in sorted(node.slots.items()) if slot != "it"]
        return f"{name}{sorted(node.features.items())}{slots}"

    pairs: dict[tuple[str, str], set[str]] = {}
    for _ in range(3000):
        meaning = grammar.draw(rng)
        pairs.setdefault(grammar.texts(meaning), set()).add(spelt(meaning))
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


def test_the_count_is_exact_and_a_language_is_only_data() -> None:
    data = yaml.safe_load(TOY)
    language = Language("toy", yaml.safe_load(VERB_LAST))
    for depth in (0, 1):
        meaning, rng = Meaning(data, concepts_of(data)), random.Random(1)
        met = {
            language.text(language.words(meaning.draw(rng, "Clause", depth))) for _ in range(8000 if depth else 2000)
        }
        # subject girl or cat, one or many; object girl, cat or book, one or many, or milk; two tenses; an owner or none
        phrases, milk = (2 * 2, 1) if not depth else (2 * 2 * 2, 1)
        assert meaning.count("Clause", depth) == 2 * phrases * (phrases * 3 // 2 + milk) == len(met)
    assert "Tiloi laton boi da." in met
    assert "Tilo o kato libon mirada." in met


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
def test_any_size_and_depth(lemmas: int, depth: int, seed: int) -> None:
    grammar, rng = Grammar("en", "de", lemmas, depth), random.Random(seed)
    for _ in range(5):
        example = grammar.example(grammar.draw(rng))
        assert example.depth <= depth
        assert german_rules.noun_phrases(german_rules.spread(example.target_words)) is not None
        assert {j for _, j in example.alignment} >= example.content[1]


@pytest.mark.parametrize(
    ("changed", "source", "message"),
    [
        (CorpusSettings(lemmas=10_000), "en", r"corpus.lemmas: 10000 is not between \d+ and \d+, the number of all lemmas"),
        (CorpusSettings(lemmas=1), "en", "corpus.lemmas: 1 is not between"),
        (CorpusSettings(depth=-1), "en", "corpus.depth: -1 is negative"),
        (CorpusSettings(pairs=0), "en", "corpus.pairs: 0"),
        (CorpusSettings(), "tlh", "corpus.name: the grammar has no language 'tlh'; choose two of de, en"),
        (CorpusSettings(), "de", "corpus.name: .* twice"),
    ],
)
def test_wrong_settings_say_the_key_and_the_mend(changed: CorpusSettings, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(changed, source, "de")
