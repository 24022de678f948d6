"""Language-independent meanings: concepts, and the rules that combine them.

A meaning is a tree of `Node`. Its grammar is data (languages/meaning.yaml): concepts with semantic classes, which
restrict how concepts combine, and rules whose slots are filled from left to right. A slot is one of

    verb: transitive                          a concept of the category `transitive`
    noun: noun(is~class, count~'count')       a concept whose field `is` shares a class with the parameter `class`
    object: Phrase(verb.object)               a rule of `Phrase`, its parameter set to the field `object` of the verb
    it: "&object"                             the node that is already in the slot `object`
    tense: [present, past]                    a feature, one of several values ({present: 2, past: 3} with weights)

`name?0.3` is filled with probability 0.3. `costs: 1` subtracts one from the depth, which limits recursion. `as: Phrase`
makes languages treat the node as a Phrase. `head` names the slot whose concept represents the whole node.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

Classes = frozenset[str]


@dataclass(frozen=True, eq=False, slots=True)
class Concept:
    """The meaning of a word. `fields` has sets of semantic classes, such as the possible objects of a verb."""

    name: str
    category: str
    group: str
    fields: Mapping[str, Classes]
    weight: float = 1
    label: str | None = None


@dataclass(eq=False, slots=True)
class Node:
    """A part of a meaning: a concept (`concept` is set), or a rule with its slots filled."""

    kind: str
    slots: dict[str, Node]
    features: dict[str, str]
    concept: Concept | None = None
    head: Concept | None = None
    label: str | None = None
    costs: int = 0

    def walk(self: Node) -> Iterator[Node]:
        """The node and all nodes below it, each once, even if several slots refer to it."""
        seen: set[Node] = set()
        pending = [self]
        while pending:
            node = pending.pop()
            if node not in seen:
                seen.add(node)
                yield node
                pending.extend(node.slots.values())

    def depth(self) -> int:
        """The sum of costs along the most expensive branch: the nesting depth of clauses."""
        return self.costs + max((slot.depth() for slot in self.slots.values()), default=0)


@dataclass(frozen=True)
class Step:
    """How one slot is filled."""

    slot: str
    probability: float
    target: str
    arguments: tuple[tuple[str, str], ...] = ()
    values: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One way to build a symbol."""

    steps: tuple[Step, ...]
    weight: float
    costs: int
    head: str | None
    label: str | None
    kind: str


class DeadEndError(Exception):
    """No concept fits a required slot after the choices made so far."""


@dataclass
class Symbol:
    """All rules of one name, with the names of its parameters."""

    name: str
    parameters: tuple[str, ...]
    rules: list[Rule] = field(default_factory=list)


Scope = dict[str, Any]


class Meaning:
    """The concepts in use and the rules. Draws random meanings and counts all possible ones."""

    def __init__(self, data: Mapping[str, Any], concepts: list[Concept]):
        self.concepts: dict[str, list[Concept]] = {category: [] for category in data["concepts"]}
        for concept in concepts:
            self.concepts[concept.category].append(concept)
        self.slot_probabilities: dict[str, float] = {}  # overrides the probability of optional slots
        self.classes = expand_classes(data["classes"])
        self.symbols: dict[str, Symbol] = {}
        for heading, rules in data["rules"].items():
            name, arguments = _call(heading)
            self.symbols[name] = Symbol(
                name, tuple(value for _, value in arguments), [_rule(name, rule) for rule in rules]
            )
        self._candidates: dict[tuple[Any, ...], tuple[list[Concept], list[float]]] = {}
        self._choices: dict[tuple[Any, ...], tuple[list[Rule], list[float]]] = {}
        self._counts: dict[tuple[Any, ...], Counter[Concept | None]] = {}

    def draw(self, rng: random.Random, symbol: str, depth: int, *arguments: str | Classes) -> Node:
        """A random meaning.

        Args:
            rng: Source of random numbers.
            symbol: Name of the rules for the root.
            depth: Largest nesting depth of clauses.
            arguments: Arguments of the symbol.

        Raises:
            ValueError: no such meaning can be built from the concepts in use.
        """
        for _ in range(1000):
            try:
                return self._expand(rng, symbol, arguments, depth)
            except DeadEndError:
                continue
        raise ValueError(f"corpus.lemmas: too few words to build {symbol}; raise corpus.lemmas")

    def count(self, symbol: str, depth: int) -> int:
        """The exact number of different meanings."""
        return sum(self._count(symbol, (), depth).values())

    def _expand(self, rng: random.Random, name: str, arguments: tuple[Any, ...], depth: int) -> Node:
        rules, weights = self._rules(name, arguments, depth)
        if not rules:
            raise DeadEndError
        rule = rules[bisect(weights, rng.random() * weights[-1])]
        scope: Scope = dict(zip(self.symbols[name].parameters, arguments, strict=True))
        slots: dict[str, Node] = {}
        features: dict[str, str] = {key: value for key, value in scope.items() if isinstance(value, str)}
        for step in rule.steps:
            probability = self.slot_probabilities.get(step.slot, step.probability) if step.probability < 1 else 1
            if probability < 1 and (
                rng.random() >= probability or not self._reachable(step, scope, depth - rule.costs)
            ):
                continue
            if step.values:
                features[step.slot] = scope[step.slot] = step.values[bisect(step.weights, rng.random())]
            elif step.target == "&":
                slots[step.slot] = scope[step.slot] = self._referenced(scope, step)
            elif step.target in self.symbols:
                values = self._argument_values(step, scope)
                slots[step.slot] = scope[step.slot] = self._expand(rng, step.target, values, depth - rule.costs)
            else:
                candidates, sums = self._fit(step, scope)
                if candidates:
                    concept = candidates[bisect(sums, rng.random() * sums[-1])]
                    slots[step.slot] = scope[step.slot] = Node(concept.group, {}, {}, concept, concept, concept.label)
                elif step.probability == 1:
                    raise DeadEndError
        head = slots[rule.head].head if rule.head in slots else None
        return Node(rule.kind, slots, features, None, head, rule.label, rule.costs)

    def _rules(self, name: str, arguments: tuple[Any, ...], depth: int) -> tuple[list[Rule], list[float]]:
        """The applicable rules with cumulative weights.

        A rule applies if the depth allows it and each required slot that depends only on the arguments has a concept.
        """
        key = (name, arguments, depth)
        if key not in self._choices:
            symbol = self.symbols[name]
            scope = dict(zip(symbol.parameters, arguments, strict=True))
            rules = [
                rule
                for rule in symbol.rules
                if rule.costs <= depth
                and all(
                    self._fit(step, scope)[0]
                    for step in rule.steps
                    if step.target in self.concepts
                    and step.probability == 1
                    and all(path[0] == "'" or path in scope for _, path in step.arguments)
                )
            ]
            self._choices[key] = rules, list(accumulate(rule.weight for rule in rules))
        return self._choices[key]

    def _reachable(self, step: Step, scope: Scope, depth: int) -> bool:
        """Whether an optional slot can be filled."""
        if step.target not in self.symbols:
            return True
        return bool(self._rules(step.target, self._argument_values(step, scope), depth)[0])

    def _argument_values(self, step: Step, scope: Scope) -> tuple[Any, ...]:
        return tuple([self._value(path, scope, passed=True) for _, path in step.arguments])

    def _referenced(self, scope: Scope, step: Step) -> Node:
        node = scope[step.arguments[0][1]]
        assert isinstance(node, Node)
        return node

    def _fit(self, step: Step, scope: Scope) -> tuple[list[Concept], list[float]]:
        """The concepts that fit a slot, with cumulative weights."""
        required = tuple(self._value(path, scope) for _, path in step.arguments)
        key = (step.target, step.arguments, required)
        if key not in self._candidates:
            candidates = [
                concept
                for concept in self.concepts[step.target]
                if all(
                    name.startswith("!") != bool(concept.fields[name.lstrip("!")] & classes)
                    for (name, _), classes in zip(step.arguments, required, strict=True)
                )
            ]
            self._candidates[key] = candidates, list(accumulate(concept.weight for concept in candidates))
        return self._candidates[key]

    def _value(self, path: str, scope: Scope, *, passed: bool = False) -> Any:
        """The classes of an argument: 'human', a parameter, a feature or verb.object.

        With `passed`, a feature is returned as a string, to be passed on to another symbol.
        """
        if path[0] == "'":
            return self.classes.get(path[1:-1], frozenset({path[1:-1]}))
        name, _, inner = path.partition(".")
        value = scope[name]
        if isinstance(value, Node):
            value = value.head
        if inner:
            assert isinstance(value, Concept), f"{name} has no word at its head"
            return value.fields[inner]
        return frozenset({value}) if isinstance(value, str) and not passed else value

    def _count(self, name: str, arguments: tuple[Any, ...], depth: int) -> Counter[Concept | None]:
        """The number of meanings of a symbol, separately for each concept that can be its head.

        Separately, because the slots that a rule fills after the head may depend on which concept the head is.
        """
        key = (name, arguments, depth)
        if key not in self._counts:
            total: Counter[Concept | None] = Counter()
            for rule in self.symbols[name].rules:
                if rule.costs <= depth:
                    scope: Scope = dict(zip(self.symbols[name].parameters, arguments, strict=True))
                    total.update(self._count_steps(rule, 0, scope, depth - rule.costs))
            self._counts[key] = total
        return self._counts[key]

    def _count_steps(self, rule: Rule, index: int, scope: Scope, depth: int) -> Counter[Concept | None]:
        if index == len(rule.steps):
            head = scope.get(rule.head or "")
            return Counter({head.head if isinstance(head, Node) else None: 1})
        step = rule.steps[index]
        needed = step.slot == rule.head or any(
            path.partition(".")[0] == step.slot for later in rule.steps[index + 1 :] for _, path in later.arguments
        )
        options: Counter[Any] = Counter()
        if step.values:
            options.update(step.values)
        elif step.target == "&":
            options[self._referenced(scope, step).head] = 1
        elif step.target in self.symbols:
            options.update(self._count(step.target, self._argument_values(step, scope), depth))
        else:
            options.update(self._fit(step, scope)[0])
        total: Counter[Concept | None] = Counter()
        if not needed:
            times = sum(options.values()) + (step.probability < 1)
            if times:
                for head, number in self._count_steps(rule, index + 1, scope, depth).items():
                    total[head] += number * times
            return total
        assert step.probability == 1, f"{step.slot}: a slot that others depend on cannot be optional"
        for option, times in options.items():
            filled = option if isinstance(option, str) else Node("", {}, {}, option, option)
            for head, number in self._count_steps(rule, index + 1, {**scope, step.slot: filled}, depth).items():
                total[head] += number * times
        return total


def expand_classes(classes: Mapping[str, str]) -> dict[str, Classes]:
    """Name -> the classes it stands for. A definition can use names that are defined before it."""
    known: dict[str, Classes] = {}
    for name, parts in classes.items():
        known[name] = frozenset().union(*(known.get(part, frozenset({part})) for part in parts.split()))
    return known


def concepts_of(data: Mapping[str, Any]) -> list[Concept]:
    """All concepts in order of frequency. Every prefix of the list has the categories in the same proportions."""
    classes = expand_classes(data["classes"])
    ranked: list[tuple[float, Concept]] = []
    for category, entry in data["concepts"].items():
        defaults = {name: default for name, _, default in (part.partition("=") for part in entry["fields"])}
        for rank, (name, text) in enumerate(entry["words"].items()):
            parts = [part.strip() for part in (text or "").split("/")] + [""] * len(defaults)
            fields = {
                key: frozenset().union(*(classes.get(value, frozenset({value})) for value in (part or default).split()))
                for (key, default), part in zip(defaults.items(), parts, strict=False)
            }
            weight = entry.get("weights", {}).get(name, 1)
            concept = Concept(name, category, entry.get("group", category), fields, weight, entry.get("label"))
            ranked.append((rank / len(entry["words"]), concept))
    return [concept for _, concept in sorted(ranked, key=lambda pair: pair[0])]


def _call(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """noun(is~class, count~'count') -> noun, ((is, class), (count, 'count'))"""
    match = re.fullmatch(r"(\w+|&)\s*(?:\((.*)\))?", text)
    assert match, text
    arguments = [part.strip() for part in (match[2] or "").split(",") if part.strip()]
    pairs = ((*part.split("~"), "")[:2] if "~" in part else ("", part) for part in arguments)
    return match[1], tuple((name, path) for name, path in pairs)


def _rule(name: str, data: Mapping[str, Any]) -> Rule:
    """One rule of the symbol `name`, parsed from its data."""
    steps = []
    for key, value in data.items():
        if key in ("weight", "costs", "head", "label", "as"):
            continue
        slot, _, probability = key.partition("?")
        fill_probability = float(probability or 1)
        if isinstance(value, str):
            target, arguments = _call(f"&({value[1:]})" if value[0] == "&" else value)
            steps.append(Step(slot, fill_probability, target, arguments))
        else:
            weights = value if isinstance(value, dict) else dict.fromkeys(value, 1)
            total = sum(weights.values())
            sums = tuple(weight / total for weight in accumulate(weights.values()))
            steps.append(Step(slot, fill_probability, "", (), tuple(weights), (*sums[:-1], 1.0)))
    return Rule(
        tuple(steps),
        data.get("weight", 1),
        data.get("costs", 0),
        data.get("head"),
        data.get("label"),
        data.get("as", name),
    )
