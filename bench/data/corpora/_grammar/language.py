"""One language, from its data: puts a meaning into words.

A template says in which order a node's slots are spoken, and with which features:

    Phrase:
      gives: gender=noun.gender number person=third
      say: determiner(case number gender=noun.gender) noun(case number) relative(number gender=noun.gender)

    name(...)     the slot `name`; nothing if the meaning leaves it empty. a.b is the slot b of the slot a
    <name>(...)   another template, over the same node and its features, with these features added
    @name(...)    a function word of the language; @name^slot aligns it with that slot's words
    %a.b          the word that the feature b of the slot a holds (a preposition that a verb governs)
    ","           punctuation, or any other text

Among the features, `case` passes on the one of that name, `case=dat` sets it, `case=verb.case` takes it from a slot
and `number=.count` from another feature of the node. A list of `{when: ..., say: ...}` is tried from the top:
`tense=past`, `!tense=past`, `modal` (the slot is filled) and `object.number=one`, joined by blanks, must all hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.data.corpora._grammar.meaning import Node
from bench.data.corpora._grammar.morphology import Lexeme, Morphology

Features = dict[str, str]
Speak = Callable[[Node, Features, "list[Word]"], None]
Condition = Callable[[Node, Features], bool]
ITEM = re.compile(r'"[^"]*"|[<@%]?[\w.]+>?(?:\^[\w.]+)?(?:\([^)]*\))?')


@dataclass(slots=True)
class Word:
    """A word of a sentence. Words of two languages with a common origin are translations of each other."""

    text: str
    group: str
    origins: tuple[Any, ...]
    lexeme: Lexeme | None = None
    values: tuple[str, ...] = ()

    def other(self, feature: str, value: str) -> str | None:
        """The same word with another value of one feature; None if its form does not depend on it."""
        names = [name for name, _ in self.lexeme.features] if self.lexeme else []
        if feature not in names or self.lexeme is None:
            return None
        values = tuple(value if name == feature else old for name, old in zip(names, self.values, strict=True))
        return " ".join(self.lexeme.forms[values])


class Language:
    """Templates, words and spelling of one language."""

    def __init__(self, code: str, data: Mapping[str, Any]):
        self.code = code
        morphology = Morphology(data["features"], data["paradigms"])
        self.lexemes: dict[tuple[str, str], Lexeme] = {
            (group, name): morphology.lexeme(group, name, entry)
            for group, words in data["lexicon"].items()
            for name, entry in words.items()
        }
        self.function_words: dict[str, Lexeme] = {}
        for name, entry in data["words"].items():
            self.function_words[name] = morphology.lexeme(entry.get("group", name), name, entry)
        spelling = data["spelling"]
        self.punctuation = {mark: strength for strength, mark in enumerate(spelling["punctuation"].split())}
        self.fusions: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
        for entry in spelling.get("fusions", ()):
            first, second = entry["of"].split()
            splits = {pair: pair.split() for pair in entry["pairs"]}
            self.fusions[first, second] = {(one, two): entry["pairs"][pair] for pair, (one, two) in splits.items()}
        self.junctures = [
            (entry["word"], re.compile(entry["before"]), entry["say"]) for entry in spelling.get("junctures", ())
        ]
        self._given: dict[str, dict[str, Callable[[Node, Features], str | None]]] = {}
        self._templates: dict[str, Speak] = {}
        for name, template in data["templates"].items():
            cases = (
                template
                if isinstance(template, list)
                else [template if isinstance(template, dict) else {"say": template}]
            )
            self._given[name] = {}
            for case in cases:
                self._given[name] |= dict(self._features(case.get("gives", "")))
            self._templates[name] = self._cases(cases)

    def words(self, meaning: Node) -> list[Word]:
        """The sentence as words and punctuation marks."""
        words: list[Word] = []
        self._templates[meaning.kind](meaning, {}, words)
        return self._spell(words)

    def text(self, words: list[Word]) -> str:
        """The sentence as it is written."""
        text = "".join(word.text if word.text in self.punctuation else f" {word.text}" for word in words).strip()
        return text[:1].upper() + text[1:]

    def lexeme(self, node: Node) -> Lexeme:
        assert node.concept is not None
        try:
            return self.lexemes[node.concept.group, node.concept.name]
        except KeyError:
            raise ValueError(f"languages/{self.code}.yaml: no {node.concept.group} for {node.concept.name}") from None

    def feature(self, node: Node, name: str) -> str | None:
        """A feature of a node: of the meaning itself, of its word in this language, or as its template gives it."""
        if name in node.features:
            return node.features[name]
        if node.concept is not None:
            return self.lexeme(node).inherent.get(name)
        given = self._given.get(node.kind, {}).get(name)
        return given(node, {}) if given else None

    def _spell(self, words: list[Word]) -> list[Word]:
        spelt: list[Word] = []
        for word in words:
            previous = spelt[-1] if spelt else None
            if previous and word.text in self.punctuation and previous.text in self.punctuation:
                if self.punctuation[word.text] > self.punctuation[previous.text]:
                    spelt[-1] = word
                continue
            pairs = self.fusions.get((previous.group, word.group)) if previous else None
            if previous and pairs and (previous.text, word.text) in pairs:
                text = pairs[previous.text, word.text]
                spelt[-1] = Word(text, previous.group, previous.origins + word.origins)
                continue
            for text, before, say in self.junctures:
                if previous and previous.text == text and before.match(word.text):
                    previous.text = say
            spelt.append(word)
        return spelt

    def _path(self, path: str) -> Callable[[Node], Node | None]:
        """The node that a path of slots leads to."""
        names = path.split(".")

        def follow(node: Node) -> Node | None:
            found: Node | None = node
            for name in names:
                found = found.slots.get(name) if found else None
            return found

        return follow

    def _lookup(self, path: str) -> Callable[[Node, Features], str | None]:
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
        """`case gender=noun.gender person=third`: names, and how to find their values."""
        found: list[tuple[str, Callable[[Node, Features], str | None]]] = []
        for part in text.split():
            name, equals, value = part.partition("=")
            if equals and "." not in value:
                found.append((name, lambda node, features, value=value: value))
            else:
                found.append((name, self._lookup(value or name)))
        return found

    def _condition(self, text: str) -> Condition:
        tests: list[Condition] = []
        for part in text.split():
            negated = part.startswith("!")
            path, equals, value = part.lstrip("!").partition("=")
            if equals:
                look, values = self._lookup(path), frozenset(value.split("|"))
                tests.append(lambda n, f, look=look, values=values, no=negated: (look(n, f) in values) != no)
            else:
                follow = self._path(path)
                tests.append(lambda n, f, follow=follow, no=negated: (follow(n) is not None) != no)
        return lambda node, features: all(test(node, features) for test in tests)

    def _cases(self, cases: Sequence[Mapping[str, str]]) -> Speak:
        compiled = [(self._condition(case.get("when", "")), self._sequence(case.get("say", ""))) for case in cases]
        if len(compiled) == 1 and "when" not in cases[0]:
            return compiled[0][1]

        def speak(node: Node, features: Features, words: list[Word]) -> None:
            for holds, say in compiled:
                if holds(node, features):
                    say(node, features, words)
                    return

        return speak

    def _sequence(self, text: str) -> Speak:
        assert not ITEM.sub("", text).strip(), f"languages/{self.code}.yaml: cannot read {text!r}"
        items = [self._item(item) for item in ITEM.findall(text)]

        def speak(node: Node, features: Features, words: list[Word]) -> None:
            for item in items:
                item(node, features, words)

        return speak

    def _item(self, text: str) -> Speak:
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
        follow = self._path(name)

        def speak(node: Node, features: Features, words: list[Word]) -> None:
            slot = follow(node)
            if slot is None:
                return
            given = {key: value for key, look in passed if (value := look(node, features)) is not None}
            if slot.concept is None:
                self._templates[slot.kind](slot, given, words)
                return
            self._say(self.lexeme(slot), given, slot, words)

        return speak

    def _template_call(self, name: str, passed: list[tuple[str, Any]]) -> Speak:
        def speak(node: Node, features: Features, words: list[Word]) -> None:
            more = {key: value for key, look in passed if (value := look(node, features)) is not None}
            self._templates[name](node, {**features, **more} if more else features, words)

        return speak

    def _function_word(self, text: str, passed: list[tuple[str, Any]]) -> Speak:
        name, _, path = text.partition("^")
        lexeme = self.function_words[name]
        follow = self._path(path) if path else None

        def speak(node: Node, features: Features, words: list[Word]) -> None:
            given = {key: value for key, look in passed if (value := look(node, features)) is not None}
            origin = (follow(node) if follow else None) or (node, name)
            self._say(lexeme, given, origin, words)

        return speak

    def _governed(self, path: str) -> Speak:
        slot, _, name = path.rpartition(".")
        follow = self._path(slot)

        def speak(node: Node, features: Features, words: list[Word]) -> None:
            found = follow(node)
            for form in (self.feature(found, name) or "").split() if found else ():
                words.append(Word(form, name, (found,)))

        return speak

    def _say(self, lexeme: Lexeme, features: Features, origin: Any, words: list[Word]) -> None:
        """Append the form that agrees; a feature that nobody passed on has its unmarked value."""
        values = tuple([features.get(name, unmarked) for name, unmarked in lexeme.features])
        if values not in lexeme.forms:
            wanted = " ".join(f"{name}={value}" for (name, _), value in zip(lexeme.features, values, strict=True))
            raise ValueError(f"languages/{self.code}.yaml: {lexeme.name} has no form for {wanted}")
        for text in lexeme.forms[values]:
            words.append(Word(text, lexeme.group, (origin,), lexeme, values))
