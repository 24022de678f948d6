"""One language, defined by its data. It expresses a meaning as a sentence.

A template defines the order in which the slots of a node are expressed, and with which features:

    Phrase:
      gives: gender=noun.gender number person=third
      say: determiner(case number gender=noun.gender) noun(case number) relative(number gender=noun.gender)

    name(...)     the slot `name`; nothing if the slot is empty. a.b is the slot b of the slot a
    name^slot     the slot `name`, whose words express that slot, too; name^@word: and this function word
    <name>(...)   another template for the same node and its features, with these features added
    @name(...)    a function word of the language; @name^slot aligns it with that slot's words
    %a.b          the word in feature b of the slot a (a preposition that a verb governs)
    ","           punctuation, or any other text

Features: `case` passes on the feature of that name, `case=dat` sets it, `case=verb.case` takes it from a slot,
`number=.count` takes it from another feature of the node, and `gender=noun.gender|name.gender` takes the first that has
a value. `gives` defines the features of the node itself. In a list of
`{when: ..., say: ...}` the first entry whose condition holds is used. All parts of a condition, separated by spaces,
must hold: `tense=past`, `!tense=past`, `modal` (the slot is filled), `object.number=one`.

Spelling, where two words meet:

    punctuation: ", . ?"                                       the strongest of adjacent marks remains
    junctures: [{word: a, before: "[aeiou]", say: an}]         regular expressions of a whole word and of the next word
    fusions: [{of: preposition determiner, pairs: {in dem: im}}]   two words of these groups become one
    joined: "'$"                                               a word that matches is written without a space after it

A juncture can also depend on the previous word: {word: "-은", after: "[aeiou]$", say: "-는"}. Junctures come first, so
that a word that they change (French le: l') is not fused, and again after fusions. A word that begins with a hyphen is
a suffix, written without the hyphen and without a space before it. With `letters: decomposed` all regular expressions
and patterns see the letters of which characters are composed (Unicode NFD): the last consonant of a syllable is a
letter of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.data.corpora._grammar.meaning import Node
from bench.data.corpora._grammar.morphology import Lexeme, Morphology

Features = dict[str, str]
Realize = Callable[[Node, Features, "list[Word]"], None]
Condition = Callable[[Node, Features], bool]
ITEM = re.compile(r'"[^"]*"|[<@%]?[\w.]+>?(?:\^@?[\w.]+)?(?:\([^)]*\))?')


@dataclass(slots=True)
class Word:
    """A word of a sentence.

    Attributes:
        text: Its form.
        group: Its part of speech.
        origins: The parts of the meaning that it expresses. Words of two languages with a common origin are aligned.
        lexeme: The lexeme of the form; None for punctuation and fused words.
        values: Values of the lexeme's features.
        suffix: Whether it is written without a space before it.
    """

    text: str
    group: str
    origins: tuple[Any, ...]
    lexeme: Lexeme | None = None
    values: tuple[str, ...] = ()
    suffix: bool = False

    def other(self, feature: str, value: str) -> str | None:
        """The form of the word with another value of one feature; None if the form does not depend on the feature."""
        names = [name for name, _ in self.lexeme.features] if self.lexeme else []
        if feature not in names or self.lexeme is None:
            return None
        values = tuple(value if name == feature else old for name, old in zip(names, self.values, strict=True))
        return " ".join(self.lexeme.forms[values])


class Language:
    """Templates, lexicon and spelling of one language."""

    def __init__(self, code: str, data: Mapping[str, Any]):
        self.code = code
        self._is_decomposed = data.get("letters") == "decomposed"
        data = _decomposed(data) if self._is_decomposed else data
        morphology = Morphology(data["features"], data["paradigms"])
        self.lexemes: dict[tuple[str, str], Lexeme] = {
            (group, name): morphology.lexeme(group, name, entry)
            for group, words in data["lexicon"].items()
            for name, entry in words.items()
        }
        self.function_words: dict[str, Lexeme] = {}
        for name, entry in data["words"].items():
            group = name if isinstance(entry, str) else entry.get("group", name)
            self.function_words[name] = morphology.lexeme(group, name, entry)
        spelling = data["spelling"]
        self.punctuation = {mark: strength for strength, mark in enumerate(spelling["punctuation"].split())}
        self.fusions: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
        for entry in spelling.get("fusions", ()):
            first, second = entry["of"].split()
            splits = {pair: pair.split() for pair in entry["pairs"]}
            self.fusions[first, second] = {(one, two): entry["pairs"][pair] for pair, (one, two) in splits.items()}
        self.junctures = [
            (
                re.compile(entry["word"]),
                re.compile(entry["before"]).match if "before" in entry else re.compile(entry["after"]).search,
                "before" in entry,
                entry["say"],
            )
            for entry in spelling.get("junctures", ())
        ]
        self.joined = re.compile(spelling["joined"]) if "joined" in spelling else None
        self._template_features: dict[str, dict[str, Callable[[Node, Features], str | None]]] = {}
        self._templates: dict[str, Realize] = {}
        for name, template in data["templates"].items():
            cases = (
                template
                if isinstance(template, list)
                else [template if isinstance(template, dict) else {"say": template}]
            )
            self._template_features[name] = {}
            for case in cases:
                self._template_features[name] |= dict(self._features(case.get("gives", "")))
            self._templates[name] = self._cases(cases)

    def words(self, meaning: Node) -> list[Word]:
        """The words and punctuation marks of the sentence that expresses a meaning."""
        words: list[Word] = []
        self._templates[meaning.kind](meaning, {}, words)
        return self._spell(words)

    def text(self, words: list[Word]) -> str:
        """The sentence as text, with a capital first letter and without spaces before punctuation marks."""
        text, joined = "", True
        for word in words:
            text += word.text if joined or word.suffix or word.text in self.punctuation else f" {word.text}"
            joined = bool(self.joined and self.joined.search(word.text))
        return text[:1].upper() + text[1:]

    def lexeme(self, node: Node) -> Lexeme:
        """The lexeme for the concept of a node."""
        assert node.concept is not None
        try:
            return self.lexemes[node.concept.group, node.concept.name]
        except KeyError:
            raise ValueError(
                f"languages/{self.code}.yaml: the lexicon has no {node.concept.group} for {node.concept.name}; add it"
            ) from None

    def feature(self, node: Node, name: str) -> str | None:
        """A feature of a node: from the meaning, from its word in this language, or from `gives` of its template."""
        if name in node.features:
            return node.features[name]
        if node.concept is not None:
            return self.lexeme(node).inherent.get(name)
        lookup = self._template_features.get(node.kind, {}).get(name)
        return lookup(node, {}) if lookup else None

    def _spell(self, words: list[Word]) -> list[Word]:
        """The words after spelling rules: only the strongest of adjacent marks, changes at junctures, fused words."""
        spelled: list[Word] = []
        for word in words:
            if spelled and word.text in self.punctuation and spelled[-1].text in self.punctuation:
                if self.punctuation[word.text] > self.punctuation[spelled[-1].text]:
                    spelled[-1] = word
                continue
            spelled.append(word)
        if self.junctures:
            self._change_junctures(spelled)
        if self.fusions:
            spelled = self._fuse(spelled)
            self._change_junctures(spelled)
        for word in spelled:
            word.suffix = word.text.startswith("-")
            word.text = unicodedata.normalize("NFC", word.text.removeprefix("-"))
        return spelled

    def _change_junctures(self, words: list[Word]) -> None:
        """Changes words before or after certain other words, such as a before a vowel."""
        for first, second in pairwise(words):
            for pattern, fits, is_before, replacement in self.junctures:
                word, neighbour = (first, second) if is_before else (second, first)
                if (match := pattern.fullmatch(self._letters(word.text))) and fits(self._letters(neighbour.text)):
                    word.text = match.expand(replacement)

    def _letters(self, text: str) -> str:
        """The text as regular expressions see it."""
        return unicodedata.normalize("NFD", text) if self._is_decomposed else text

    def _fuse(self, words: list[Word]) -> list[Word]:
        """The words, with one word for each pair that the language fuses."""
        fused: list[Word] = []
        for word in words:
            previous = fused[-1] if fused else None
            pairs = self.fusions.get((previous.group, word.group)) if previous else None
            if previous and pairs and (previous.text, word.text) in pairs:
                text = pairs[previous.text, word.text]
                fused[-1] = Word(text, previous.group, previous.origins + word.origins)
            else:
                fused.append(word)
        return fused

    def _path(self, path: str) -> Callable[[Node], Node | None]:
        """A function that follows a path of slots from a node; it returns None if a slot is empty."""
        names = path.split(".")

        def follow(node: Node) -> Node | None:
            found: Node | None = node
            for name in names:
                found = found.slots.get(name) if found else None
            return found

        return follow

    def _lookup(self, path: str) -> Callable[[Node, Features], str | None]:
        """A function that finds the feature at the end of a path of slots, or of the first of several with a value."""
        if "|" in path:
            lookups = [self._lookup(one) for one in path.split("|")]
            return lambda node, features: next((v for find in lookups if (v := find(node, features)) is not None), None)
        slots, _, name = path.rpartition(".")
        if slots:
            follow = self._path(slots)

            def inner(node: Node, features: Features) -> str | None:
                found = follow(node)
                return self.feature(found, name) if found else None

            return inner

        def own(node: Node, features: Features) -> str | None:
            return features[name] if name in features else self.feature(node, name)

        return own

    def _features(self, text: str) -> list[tuple[str, Callable[[Node, Features], str | None]]]:
        """Parses features such as `case gender=noun.gender person=third`.

        Returns each name with a function that computes its value: `case` is taken from the features that the caller
        passed, `noun.gender` is looked up in the meaning, and `third` is the value itself.
        """
        found: list[tuple[str, Callable[[Node, Features], str | None]]] = []
        for part in text.split():
            name, equals, value = part.partition("=")
            if equals and "." not in value:
                found.append((name, lambda node, features, value=value: value))
            else:
                found.append((name, self._lookup(value or name)))
        return found

    def _condition(self, text: str) -> Condition:
        """The condition of a `when` entry."""
        tests: list[Condition] = []
        for part in text.split():
            negated = part.startswith("!")
            path, equals, value = part.lstrip("!").partition("=")
            if equals:
                lookup, values = self._lookup(path), frozenset(value.split("|"))
                tests.append(lambda n, f, lookup=lookup, values=values, no=negated: (lookup(n, f) in values) != no)
            else:
                follow = self._path(path)
                tests.append(lambda n, f, follow=follow, no=negated: (follow(n) is not None) != no)
        return lambda node, features: all(test(node, features) for test in tests)

    def _cases(self, cases: Sequence[Mapping[str, str]]) -> Realize:
        compiled = [(self._condition(case.get("when", "")), self._sequence(case.get("say", ""))) for case in cases]
        if len(compiled) == 1 and "when" not in cases[0]:
            return compiled[0][1]

        def realize(node: Node, features: Features, words: list[Word]) -> None:
            for holds, realize_case in compiled:
                if holds(node, features):
                    realize_case(node, features, words)
                    return

        return realize

    def _sequence(self, text: str) -> Realize:
        assert not ITEM.sub("", text).strip(), f"languages/{self.code}.yaml: cannot read {text!r}"
        items = [self._item(item) for item in ITEM.findall(text)]

        def realize(node: Node, features: Features, words: list[Word]) -> None:
            for item in items:
                item(node, features, words)

        return realize

    def _item(self, text: str) -> Realize:
        if text[0] == '"':
            literal = text[1:-1]
            return lambda node, features, words: words.append(Word(literal, "", ()))
        name, _, arguments = text.rstrip(")").partition("(")
        passed = self._features(arguments)
        if name[0] == "<":
            return self._template_call(name[1:-1], passed)
        if name[0] == "@":
            return self._function_word(name[1:], passed)
        if name[0] == "%":
            return self._governed(name[1:])
        name, _, also = name.partition("^")
        follow = self._path(name)

        def realize(node: Node, features: Features, words: list[Word]) -> None:
            slot = follow(node)
            if slot is None:
                return
            slot_features = {key: value for key, lookup in passed if (value := lookup(node, features)) is not None}
            if slot.concept is None:
                self._templates[slot.kind](slot, slot_features, words)
                return
            self._append_form(self.lexeme(slot), slot_features, slot, words)

        return self._expressing(also, realize) if also else realize

    def _expressing(self, path: str, realize: Realize) -> Realize:
        """`realize`, with words that also express the slot at `path`, or the function word of the node after @."""
        follow = self._path(path)

        def realize_both(node: Node, features: Features, words: list[Word]) -> None:
            start = len(words)
            realize(node, features, words)
            origin = (node, path[1:]) if path[0] == "@" else follow(node)
            for word in words[start:]:
                word.origins += (origin,) if origin else ()

        return realize_both

    def _template_call(self, name: str, passed: list[tuple[str, Any]]) -> Realize:
        def realize(node: Node, features: Features, words: list[Word]) -> None:
            added = {key: value for key, lookup in passed if (value := lookup(node, features)) is not None}
            self._templates[name](node, {**features, **added} if added else features, words)

        return realize

    def _function_word(self, text: str, passed: list[tuple[str, Any]]) -> Realize:
        name, _, path = text.partition("^")
        lexeme = self.function_words[name]
        follow = self._path(path) if path else None

        def realize(node: Node, features: Features, words: list[Word]) -> None:
            slot_features = {key: value for key, lookup in passed if (value := lookup(node, features)) is not None}
            origin = (follow(node) if follow else None) or (node, name)
            self._append_form(lexeme, slot_features, origin, words)

        return realize

    def _governed(self, path: str) -> Realize:
        slot, _, name = path.rpartition(".")
        follow = self._path(slot)

        def realize(node: Node, features: Features, words: list[Word]) -> None:
            found = follow(node)
            for form in (self.feature(found, name) or "").split() if found else ():
                words.append(Word(form, name, (found,)))

        return realize

    def _append_form(self, lexeme: Lexeme, features: Features, origin: Any, words: list[Word]) -> None:
        """Append the form with these features to `words`; a feature without a value has its unmarked value."""
        values = tuple([features.get(name, unmarked) for name, unmarked in lexeme.features])
        if values not in lexeme.forms:
            missing = " ".join(f"{name}={value}" for (name, _), value in zip(lexeme.features, values, strict=True))
            raise ValueError(f"languages/{self.code}.yaml: {lexeme.name} has no form for {missing}; add it")
        for text in lexeme.forms[values]:
            words.append(Word(text, lexeme.group, (origin,), lexeme, values))


def _decomposed(data: Any) -> Any:
    """Data of which every text is decomposed into letters."""
    if isinstance(data, Mapping):
        return {_decomposed(key): _decomposed(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_decomposed(value) for value in data]
    return unicodedata.normalize("NFD", data) if isinstance(data, str) else data
