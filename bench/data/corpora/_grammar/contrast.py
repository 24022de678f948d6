"""Contrasts: right translations with minimally different wrong ones, for one linguistic phenomenon at a time.

Contrasts are generated in groups of opposite meanings (singular and plural, full and empty). So at every distance each
form is right as often as it is wrong, and a model that always prefers one form, the shorter one or the more frequent
one is right in exactly half of the contrasts.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from bench.data.corpora._grammar.language import Language, Word
from bench.data.corpora._grammar.meaning import Concept, Meaning, Node

MAX_DISTANCE = 20
TIMED = frozenset({"timed"})  # allows a clause to have a time expression
# Conjunction -> one with a similar meaning after which the clause has another word order.
OPPOSITES = {"because": "for", "although": "but", "when": "and"}
MAX_DRAWS = 100  # meanings drawn per requested contrast; after that there are fewer contrasts than requested
MAX_FIRST_DRAWS = 2000  # after so many meanings without a contrast, the language does not have the phenomenon


@dataclass(frozen=True)
class Contrast:
    """One source sentence with a right translation and one with a wrong form.

    Attributes:
        source: The sentence to translate.
        right: Its translation.
        wrong: The same translation with one wrong form, and the words that agree with it.
        category: Subcategory of the phenomenon, such as the ambiguous word.
        distance: Words of the translation between the form and the word that determines it; of order, the number of
            words by which the verb moves.
        forms: The right and the wrong form, or all words that differ.
    """

    source: str
    right: str
    wrong: str
    category: str
    distance: int
    forms: tuple[str, str]


Group = list[Contrast]
IsNeeded = Callable[[int], bool]
"""Whether more contrasts of this distance are needed. A generator can check it early to save time."""

Generator = Callable[[random.Random, Meaning, Language, Language, IsNeeded], Group]


def contrasts(
    phenomenon: str, meaning: Meaning, source: Language, target: Language, seen: set[str], size: int, seed: int
) -> list[Contrast]:
    """At most `size` contrasts of a phenomenon, none of whose sentences is in `seen`.

    Raises:
        ValueError: the phenomenon is unknown, or the target language does not have it.
    """
    if phenomenon not in GENERATORS:
        raise ValueError(f"contrastive: there is no phenomenon {phenomenon!r}; choose one of {', '.join(GENERATORS)}")
    rng = random.Random(seed)
    seen = set(seen)
    found: dict[int, list[Group]] = defaultdict(list)
    # For agreement all distances must be equally frequent, so each distance has a limit.
    limit = size / (MAX_DISTANCE + 1) if phenomenon == "agreement" else size
    count = 0

    def is_needed(distance: int) -> bool:
        return phenomenon != "agreement" or sum(map(len, found[distance])) + 1 < limit

    for number in range(MAX_DRAWS * size):
        if number == MAX_FIRST_DRAWS and not count:
            break
        group = GENERATORS[phenomenon](rng, meaning, source, target, is_needed)
        texts = {text for one in group for text in (one.source, one.right)}
        if not group or texts & seen or len(texts) < 2 * len(group):
            continue
        distance = group[0].distance if phenomenon == "agreement" else 0
        if sum(map(len, found[distance])) + len(group) <= limit:
            seen |= texts
            found[distance].append(group)
            count += len(group)
            if count + len(group) > size:
                break
    generated = [one for distance in sorted(found) for group in found[distance] for one in group]
    if not generated:
        raise ValueError(f"contrastive: {target.code} does not show {phenomenon}, or corpus.lemmas is too small for it")
    return balance(generated)


def balance(generated: list[Contrast]) -> list[Contrast]:
    """A subset in which, at every distance, form A is right and B wrong as often as the other way round."""
    cells: dict[tuple[int, str, frozenset[str]], dict[tuple[str, str], list[Contrast]]] = {}
    for one in generated:
        cell = cells.setdefault((one.distance, one.category, frozenset(one.forms)), {})
        cell.setdefault(one.forms, []).append(one)
    selected: set[int] = set()
    for cell in cells.values():
        number = min(map(len, cell.values())) if len(cell) == 2 else 0
        selected.update(id(one) for ones in cell.values() for one in ones[:number])
    return [one for one in generated if id(one) in selected]


def _pronoun(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: IsNeeded) -> Group:
    """Pronouns: She pours water from the pitcher into the cup until it is full (the cup) or empty (the pitcher)."""
    drawn = meaning.draw(rng, "Pouring", 1)
    vessels = drawn.slots["source"], drawn.slots["goal"]
    group: Group = []
    for poured_from, poured_into in (vessels, vessels[::-1]):
        for category in ("goal", "source"):
            state = meaning.concepts["full" if category == "goal" else "empty"][0]
            it, not_it = (poured_into, poured_from) if category == "goal" else (poured_from, poured_into)
            slots = {"source": poured_from, "goal": poured_into, "adjective": _leaf(state)}
            right, wrong = (
                _sentence(Node(drawn.kind, {**drawn.slots, **slots, "it": vessel}, drawn.features))
                for vessel in (it, not_it)
            )
            text = source.text(source.words(right))
            pair = target.words(right), target.words(wrong)
            contrast = _contrast(text, target, pair, category, it.slots["noun"], 0)
            if contrast is None:
                return []
            group.append(contrast)
    return group


def _sense(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: IsNeeded) -> Group:
    """Word senses: They robbed the bank (Bank), they swam to the bank (Ufer). One contrast of each sense."""
    drawn = [meaning.draw(rng, "Telling", 1, rng.choice(["present", "past", "perfect"]), TIMED) for _ in range(2)]
    nouns = [clause.slots["object"].slots["noun"].concept for clause in drawn]
    source_forms = [source.lexemes["noun", noun.name].forms if noun else None for noun in nouns]
    if nouns[0] is nouns[1] or source_forms[0] != source_forms[1]:
        return []
    # Both senses get the same article and number, so that the contrasts differ in the sense only.
    shared = drawn[0].slots["object"]
    group: Group = []
    for clause, noun, other in zip(drawn, nouns, reversed(nouns), strict=True):
        assert noun is not None
        assert other is not None
        pair = []
        for concept in (noun, other):
            phrase = Node("Phrase", {**shared.slots, "noun": _leaf(concept)}, shared.features, None, concept)
            pair.append(_sentence(Node("Clause", {**clause.slots, "object": phrase}, clause.features)))
        category = source.lexemes["noun", noun.name].inherent["base"]
        text, (right, wrong) = source.text(source.words(pair[0])), (target.words(sentence) for sentence in pair)
        contrast = _contrast(text, target, (right, wrong), category, clause.slots["verb"], -1)
        if contrast is None:
            return []
        group.append(contrast)
    return group if group[0].forms == group[1].forms[::-1] and group[0].distance == group[1].distance else []


def _agreement(rng: random.Random, meaning: Meaning, source: Language, target: Language, is_needed: IsNeeded) -> Group:
    """Agreement: The keys that the man found lay on the table; with one key the source has the same verb form."""
    meaning.slot_probabilities = {"relative": rng.choice([0.1, 0.5, 0.8]), "time": rng.choice([0.2, 0.6])}
    reported = rng.random() < 0.5
    drawn = meaning.draw(rng, "Reported", 4) if reported else meaning.draw(rng, "Clause", 4, "past", TIMED)
    meaning.slot_probabilities = {}
    clause = drawn.slots["content"] if reported else drawn
    phrase = clause.slots["subject"].slots.get("phrase", clause.slots["subject"])
    determiner = phrase.slots.get("determiner")
    if clause.features["tense"] != "past" or determiner is None or determiner.concept is None:
        return []
    if not {"one", "many"} <= determiner.concept.fields["number"] or "number" not in phrase.features:
        return []
    group: Group = []
    verbs: set[tuple[str, ...]] = set()
    finite = {clause.slots["verb"], clause.slots.get("modal")}
    for number, opposite in (("one", "many"), ("many", "one")):
        phrase.features["number"] = number
        sentence = _sentence(drawn)
        words = target.words(sentence)
        indices = [
            i
            for i, word in enumerate(words)
            if finite & set(word.origins) and word.other("number", opposite) != word.text
        ]
        if len(indices) != 1:
            return []
        wrong = words[indices[0]].other("number", opposite)
        noun = _index_of(words, phrase.slots["noun"])
        distance = _words_between(words, noun, indices[0])
        if wrong is None or indices[0] < noun or distance > MAX_DISTANCE or not is_needed(distance):
            return []
        sources = source.words(sentence)
        verbs.add(tuple(word.text for word in sources if finite & set(word.origins)))
        if len(verbs) > 1:
            return []
        category = f"depth {clause.slots['subject'].depth()}"
        group.append(_replaced(source.text(sources), target, words, indices[0], wrong, category, distance))
    return group if group[0].distance == group[1].distance else []


def _order(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: IsNeeded) -> Group:
    """Word order: The man sleeps because (weil: verb last) or for (denn: verb second) the dog sees the cat."""
    drawn = meaning.draw(rng, "Linked", 1)
    first = drawn.slots["conjunction"].concept
    second = next((c for c in meaning.concepts["conjunction"] if first and c.name == OPPOSITES.get(first.name)), None)
    if first is None or second is None:
        return []
    group: Group = []
    for conjunction, form, other in ((first, "last", "second"), (second, "second", "last")):
        slots = {**drawn.slots, "conjunction": _leaf(conjunction)}
        right = _sentence(Node(drawn.kind, slots, drawn.features))
        wrong = _sentence(Node(drawn.kind, slots, {**drawn.features, "mistake": "order"}))
        good, bad = (target.text(target.words(sentence)) for sentence in (right, wrong))
        if good == bad:
            return []
        verb = drawn.slots["second"].slots["verb"]
        verbs = [_finite_verb(target.words(sentence), drawn.slots["second"], verb) for sentence in (right, wrong)]
        category = f"{first.name}/{second.name}"
        distance = abs(verbs[0] - verbs[1])
        group.append(Contrast(source.text(source.words(right)), good, bad, category, distance, (form, other)))
    return group if group[0].distance == group[1].distance else []


GENERATORS: dict[str, Generator] = {"pronoun": _pronoun, "sense": _sense, "agreement": _agreement, "order": _order}


def _sentence(body: Node) -> Node:
    """The meaning of a whole sentence with this body."""
    if body.kind == "Clause":
        body = Node("Statement", {"clause": body}, {})
    return Node("Sentence", {"body": body}, {})


def _leaf(concept: Concept) -> Node:
    """The node of a single concept."""
    return Node(concept.group, {}, {}, concept, concept)


def _index_of(words: list[Word], origin: Node) -> int:
    """Index of the first word that expresses a node."""
    return next(i for i, word in enumerate(words) if origin in word.origins)


def _finite_verb(words: list[Word], clause: Node, verb: Node) -> int:
    """Index of the first verb form of a clause whose word has a number, an infinitive before its modal, too.

    Only distances depend on it, and by them contrasts are balanced, so another choice would select other contrasts.
    """
    origins = {verb, clause.slots.get("modal")}
    return next(
        i for i, w in enumerate(words) if origins & set(w.origins) and w.values and "number" in _feature_names(w)
    )


def _feature_names(word: Word) -> list[str]:
    return [name for name, _ in word.lexeme.features] if word.lexeme else []


def _words_between(words: list[Word], first: int, second: int) -> int:
    """Words between two indices, without punctuation. im (in dem) counts as two words.

    Otherwise the contrasts of a group could have different distances.
    """
    start, end = sorted((first, second))
    return sum(len(word.origins) for word in words[start + 1 : end])


def _contrast(
    source: str, target: Language, pair: tuple[list[Word], list[Word]], category: str, cue: Node, position: int
) -> Contrast | None:
    """The contrast of a right and a wrong translation (`pair`) of equal length; None if they do not differ.

    `cue` determines the form. The distance is that from its first word to one of the differing words: 0 is the first
    of them, -1 the last.
    """
    right, wrong = pair
    if len(right) != len(wrong):
        return None
    differing = [i for i, (a, b) in enumerate(zip(right, wrong, strict=True)) if a.text != b.text]
    if not differing:
        return None
    right_form, wrong_form = (" ".join(words[i].text for i in differing) for words in pair)
    distance = _words_between(right, _index_of(right, cue), differing[position])
    return Contrast(source, target.text(right), target.text(wrong), category, distance, (right_form, wrong_form))


def _replaced(
    source: str,
    target: Language,
    words: list[Word],
    index: int,
    form: str,
    category: str,
    distance: int,
) -> Contrast:
    """The contrast in which the wrong translation has `form` instead of the word at `index`."""
    wrong = [*words[:index], Word(form, "", ()), *words[index + 1 :]]
    forms = words[index].text, form
    return Contrast(source, target.text(words), target.text(wrong), category, distance, forms)
