"""How often the grammar corpus leaves a translation open: equal source sentences with different target sentences.

    python -m bench.checks.ambiguity en de --draws 60000

A model cannot have a lower loss than the entropy of the target given the source. Both sentences are functions of one
meaning, so the target is open only where two meanings have the same source sentence (English "read" is present or
past). The share is estimated from pairs of draws with the same source: it is the probability that their targets differ.
Few lemmas and no relative clauses make sentences repeat; longer sentences repeat too rarely to be compared.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.data.corpora.grammar import MIN_LEMMAS, Grammar
from bench.system import formatting, streams, terminal

SEED = 1
EXAMPLES = 5


@dataclass(frozen=True)
class Ambiguity:
    """Targets of equal sources.

    Attributes:
        draws: Meanings drawn.
        pairs: Pairs of draws with the same source.
        differing: Those of them whose targets differ.
        words: Mean number of target words.
        examples: Sources with more than one target.
    """

    draws: int
    pairs: int
    differing: int
    words: float
    examples: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def probability(self) -> float:
        """That two draws with the same source have different targets."""
        return self.differing / self.pairs if self.pairs else math.nan

    @property
    def entropy_per_word(self) -> float:
        """Entropy of the target given the source, in nats per word, if every open source has two equal readings.

        Then the share of open sources is twice the probability that two draws differ, and each has ln 2 nats.
        """
        return 2 * self.probability * math.log(2) / self.words


def measure(source: str, target: str, draws: int, lemmas: int = MIN_LEMMAS, depth: int = 0) -> Ambiguity:
    """Draw meanings with a fixed seed and compare the targets of equal sources.

    Raises:
        ValueError: a language is unknown, or the number of lemmas is out of its range.
    """
    grammar, rng = Grammar(source, target, lemmas, depth), random.Random(SEED)
    targets: defaultdict[str, Counter[str]] = defaultdict(Counter)
    words = 0
    for _ in range(draws):
        sentence, translation = grammar.texts(grammar.draw(rng))
        targets[sentence][translation] += 1
        words += len(translation.split())
    pairs = sum(found.total() * (found.total() - 1) // 2 for found in targets.values())
    same = sum(count * (count - 1) // 2 for found in targets.values() for count in found.values())
    examples = [(sentence, tuple(sorted(found))) for sentence, found in targets.items() if len(found) > 1]
    return Ambiguity(draws, pairs, pairs - same, words / draws, tuple(examples[:EXAMPLES]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the share and some examples. Exit code 2: bad arguments."""
    streams.prepare()
    parser = argparse.ArgumentParser(
        prog="python -m bench.checks.ambiguity", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("source", help="language of the source: en, de, fr or ko")
    parser.add_argument("target", help="language of the target")
    parser.add_argument("--draws", type=int, default=60_000, help="meanings to draw (default: 60000, two minutes)")
    known = parser.parse_args(arguments)
    try:
        found = measure(known.source, known.target, known.draws)
    except ValueError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    terminal.say(
        f"{known.source}-{known.target}: {found.draws:,} draws, {found.pairs:,} pairs with the same source; the "
        f"targets of {found.differing:,} differ ({formatting.percent(found.probability)}); about "
        f"{found.entropy_per_word:.4f} nats per word of {found.words:.1f} words"
    )
    for sentence, translations in found.examples:
        terminal.say(f"  {sentence}  {' | '.join(translations)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
