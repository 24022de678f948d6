"""Right translations beside minimally different wrong ones, for one phenomenon at a time.

Contrasts come in groups of siblings, the same meaning turned round (singular and plural, full and empty), so that each
form is right as often as it is wrong, at every distance. Whoever always prefers one form, the shorter or the more
frequent one is right in exactly half of them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from bench.data.corpora._grammar.language import Language, Word
from bench.data.corpora._grammar.meaning import Concept, Meaning, Node

LARGEST_DISTANCE = 20
TIMED = frozenset({"timed"})  # a clause that may say when
OPPOSITES = {"because": "for", "although": "but", "when": "and"}  # conjunctions of another order, where there is one
TRIES = 100  # meanings drawn for each contrast that is wanted, before it is left at fewer
FIRST_TRIES = 2000  # meanings drawn before the language is taken not to show the phenomenon


@dataclass(frozen=True)
class Contrast:
    """One source with two translations, of which one is wrong in one point.

    Attributes:
        source: The sentence to translate.
        right: Its translation.
        wrong: The same with one form that does not fit.
        category: A finer division of the phenomenon, such as the word that has several senses.
        distance: Words of the translation between what decides the form and the form.
        forms: The right form and the wrong one.
    """

    source: str
    right: str
    wrong: str
    category: str
    distance: int
    forms: tuple[str, str]


Group = list[Contrast]
Wanted = Callable[[int], bool]
"""Whether more contrasts of this distance are wanted. A maker that can tell early spares itself the rest."""

Maker = Callable[[random.Random, Meaning, Language, Language, Wanted], Group]


def contrasts(
    phenomenon: str, meaning: Meaning, source: Language, target: Language, seen: set[str], size: int, seed: int
) -> list[Contrast]:
    """`size` contrasts at most, none of whose sentences has been seen.

    Raises:
        ValueError: the phenomenon is unknown, or the target language does not show it.
    """
    if phenomenon not in MAKERS:
        raise ValueError(f"contrastive: there is no phenomenon {phenomenon!r}; choose one of {', '.join(MAKERS)}")
    rng = random.Random(seed)
    seen = set(seen)
    found: dict[int, list[Group]] = defaultdict(list)
    # Distances are to be equally common where the phenomenon has them: each gets its share, no more.
    share = size / (LARGEST_DISTANCE + 1) if phenomenon == "agreement" else size
    full = 0

    def wanted(distance: int) -> bool:
        return phenomenon != "agreement" or sum(map(len, found[distance])) + 1 < share

    for number in range(TRIES * size):
        if number == FIRST_TRIES and not full:
            break
        group = MAKERS[phenomenon](rng, meaning, source, target, wanted)
        texts = {text for one in group for text in (one.source, one.right)}
        if not group or texts & seen or len(texts) < 2 * len(group):
            continue
        place = group[0].distance if phenomenon == "agreement" else 0
        if sum(map(len, found[place])) + len(group) <= share:
            seen |= texts
            found[place].append(group)
            full += len(group)
            if full + len(group) > size:
                break
    made = [one for place in sorted(found) for group in found[place] for one in group]
    if not made:
        raise ValueError(f"contrastive: {target.code} does not show {phenomenon}, or corpus.lemmas is too small for it")
    return balanced(made)


def balanced(made: list[Contrast]) -> list[Contrast]:
    """Keeps as many with form A right and B wrong as the other way round, at every distance."""
    cells: dict[tuple[int, str, frozenset[str]], dict[tuple[str, str], list[Contrast]]] = {}
    for one in made:
        cell = cells.setdefault((one.distance, one.category, frozenset(one.forms)), {})
        cell.setdefault(one.forms, []).append(one)
    cached: set[int] = set()
    for cell in cells.values():
        number = min(map(len, cell.values())) if len(cell) == 2 else 0
        cached.update(id(one) for ones in cell.values() for one in ones[:number])
    return [one for one in made if id(one) in cached]


def _pronoun(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: Wanted) -> Group:
    """She pours water from the pitcher into the cup until it is full (the cup) or empty (the pitcher)."""
    drawn = meaning.draw(rng, "Pouring", 1)
    vessels = drawn.slots["source"], drawn.slots["goal"]
    first, second = (target.feature(vessel, "gender") for vessel in vessels)
    if first == second or None in (first, second):
        return []
    group: Group = []
    for poured_from, poured_into in (vessels, vessels[::-1]):
        for category in ("goal", "source"):
            state = meaning.concepts["full" if category == "goal" else "empty"][0]
            it, not_it = (poured_into, poured_from) if category == "goal" else (poured_from, poured_into)
            slots = {"source": poured_from, "goal": poured_into, "it": it, "adjective": _leaf(state)}
            body = Node(drawn.kind, {**drawn.slots, **slots}, drawn.features)
            said = _sentence(body)
            words = target.words(said)
            place = next(i for i, word in enumerate(words) if (body, "it") in word.origins)
            antecedent = _place(words, it.slots["noun"])
            wrong = words[place].other("gender", target.feature(not_it, "gender") or "")
            if wrong is None or wrong == words[place].text:
                return []
            distance = _words_between(words, antecedent, place)
            text = source.text(source.words(said))
            group.append(_replaced(text, target, words, place, wrong, category, distance))
    return group


def _sense(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: Wanted) -> Group:
    """They robbed the bank (Bank), they swam to the bank (Ufer): one of each, however they are told apart."""
    drawn = [meaning.draw(rng, "Telling", 1, rng.choice(["present", "past", "perfect"]), TIMED) for _ in range(2)]
    nouns = [clause.slots["object"].slots["noun"].concept for clause in drawn]
    spelt = [source.lexemes["noun", noun.name].forms if noun else None for noun in nouns]
    if nouns[0] is nouns[1] or spelt[0] != spelt[1]:
        return []
    # The senses meet in the same form of words, with the same article, so that only the senses differ.
    shared = drawn[0].slots["object"]
    group: Group = []
    for clause, noun, other in zip(drawn, nouns, reversed(nouns), strict=True):
        assert noun is not None
        assert other is not None
        pair = []
        for concept in (noun, other):
            phrase = Node("Phrase", {**shared.slots, "noun": _leaf(concept)}, shared.features, None, concept)
            pair.append(_sentence(Node("Clause", {**clause.slots, "object": phrase}, clause.features)))
        right, wrong = (target.words(said) for said in pair)
        if len(right) != len(wrong):
            return []
        differing = [i for i, (a, b) in enumerate(zip(right, wrong, strict=True)) if a.text != b.text]
        forms_ = tuple(" ".join(words[i].text for i in differing) for words in (right, wrong))
        verb = min(i for i, word in enumerate(right) if clause.slots["verb"] in word.origins)
        distance = _words_between(right, verb, differing[-1])
        category = source.lexemes["noun", noun.name].inherent["base"]
        said = source.text(source.words(pair[0]))
        forms = forms_[0], forms_[1]
        group.append(Contrast(said, target.text(right), target.text(wrong), category, distance, forms))
    return group if group[0].forms == group[1].forms[::-1] and group[0].distance == group[1].distance else []


def _agreement(rng: random.Random, meaning: Meaning, source: Language, target: Language, wanted: Wanted) -> Group:
    """The keys that the man found lay on the table: one key, several keys, and the same verb form in the source."""
    meaning.likely = {"relative": rng.choice([0.1, 0.5, 0.8]), "time": rng.choice([0.2, 0.6])}
    reported = rng.random() < 0.5
    drawn = meaning.draw(rng, "Reported", 4) if reported else meaning.draw(rng, "Clause", 4, "past", TIMED)
    meaning.likely = {}
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
        said = _sentence(drawn)
        words = target.words(said)
        places = [
            i
            for i, word in enumerate(words)
            if finite & set(word.origins) and word.other("number", opposite) != word.text
        ]
        if len(places) != 1:
            return []
        wrong = words[places[0]].other("number", opposite)
        noun = _place(words, phrase.slots["noun"])
        distance = _words_between(words, noun, places[0])
        if wrong is None or places[0] < noun or distance > LARGEST_DISTANCE or not wanted(distance):
            return []
        sources = source.words(said)
        verbs.add(tuple(word.text for word in sources if finite & set(word.origins)))
        if len(verbs) > 1:
            return []
        category = f"depth {clause.slots['subject'].depth()}"
        group.append(_replaced(source.text(sources), target, words, places[0], wrong, category, distance))
    return group if group[0].distance == group[1].distance else []


def _order(rng: random.Random, meaning: Meaning, source: Language, target: Language, _: Wanted) -> Group:
    """The man sleeps because (weil: verb last) or for (denn: verb second) the dog sees the cat."""
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
        verb = drawn.slots["second"].slots["verb"]
        places = [_finite(target.words(said), drawn.slots["second"], verb) for said in (right, wrong)]
        good, bad = (target.text(target.words(said)) for said in (right, wrong))
        if good == bad:
            return []
        category = f"{first.name}/{second.name}"
        distance = abs(places[0] - places[1])
        group.append(Contrast(source.text(source.words(right)), good, bad, category, distance, (form, other)))
    return group if group[0].distance == group[1].distance else []


MAKERS: dict[str, Maker] = {"pronoun": _pronoun, "sense": _sense, "agreement": _agreement, "order": _order}


def _sentence(body: Node) -> Node:
    if body.kind == "Clause":
        body = Node("Statement", {"clause": body}, {})
    return Node("Sentence", {"body": body}, {})


def _leaf(concept: Concept) -> Node:
    return Node(concept.group, {}, {}, concept, concept)


def _place(words: list[Word], origin: Node) -> int:
    return next(i for i, word in enumerate(words) if origin in word.origins)


def _finite(words: list[Word], clause: Node, verb: Node) -> int:
    """Where the clause's finite verb stands: the word of it that depends on number."""
    origins = {verb, clause.slots.get("modal")}
    return next(i for i, w in enumerate(words) if origins & set(w.origins) and w.values and "number" in _names(w))


def _names(word: Word) -> list[str]:
    return [name for name, _ in word.lexeme.features] if word.lexeme else []


def _words_between(words: list[Word], first: int, second: int) -> int:
    """Words between two places, without punctuation; im (in dem) counts as two, so that siblings stay level."""
    start, end = sorted((first, second))
    return sum(len(word.origins) for word in words[start + 1 : end])


def _replaced(
    source: str,
    target: Language,
    words: list[Word],
    place: int,
    form: str,
    category: str,
    distance: int,
) -> Contrast:
    wrong = [*words[:place], Word(form, "", ()), *words[place + 1 :]]
    forms = words[place].text, form
    return Contrast(source, target.text(words), target.text(wrong), category, distance, forms)
