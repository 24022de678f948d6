"""A job that takes seconds: a few hundred sentence pairs in files, a Transformer with a few thousand weights."""

from __future__ import annotations

import random
from pathlib import Path

FILE = Path(__file__).parents[2] / "experiments" / "transformer.yaml"
WORDS = {
    "man": "Mann",
    "dog": "Hund",
    "bird": "Vogel",
    "car": "Wagen",
    "tree": "Baum",
    "table": "Tisch",
    "king": "König",
}
VERBS = {"sees": "sieht", "hears": "hört", "finds": "findet", "wants": "will"}


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        subject, object_, verb = rng.choice(list(WORDS)), rng.choice(list(WORDS)), rng.choice(list(VERBS))
        number = rng.randrange(100)
        found.append(
            (
                f"The {subject} {verb} a {object_} {number}.",
                f"Der {WORDS[subject]} {VERBS[verb]} {number} {WORDS[object_]}.",
            )
        )
    return found


def write_corpus(folder: Path) -> None:
    """Write the files train, val and test, each with the endings .en and .de."""
    for seed, (split, count) in enumerate({"train": 200, "val": 12, "test": 12}.items()):
        lines = pairs(count, seed)
        for side, language in enumerate(("en", "de")):
            (folder / f"{split}.{language}").write_text("".join(f"{pair[side]}\n" for pair in lines), encoding="utf-8")


def write_words(folder: Path) -> None:
    """Write the same files with targets of two words, too short for BLEU."""
    write_corpus(folder)
    for split in ("train", "val", "test"):
        lines = [line.split() for line in (folder / f"{split}.de").read_text(encoding="utf-8").splitlines()]
        (folder / f"{split}.de").write_text("".join(f"{line[1]} {line[2]}\n" for line in lines), encoding="utf-8")


def corpus_flags(folder: Path) -> list[str]:
    flags = ["--corpus.name", "files"]
    for split in ("train", "val", "test"):
        flags += [f"--corpus.{split}", f"[{folder}/{split}.en,{folder}/{split}.de]"]
    return flags


def flags(folder: Path, **changed: object) -> list[str]:
    """Return the flags of the job on the corpus in `folder`, tracked in `folder`/runs.

    Args:
        changed: Settings that differ from those below. A key has __ instead of a dot.
    """
    settings: dict[str, object] = {
        "text.vocabulary_size": 90,
        "model.width": 16,
        "model.inner": 32,
        "model.layers": 1,
        "model.heads": 2,
        "training.max_pairs": "null",
        "training.max_updates": 12,
        "training.batch_tokens": 300,
        "training.validations": 3,
        "decoding.beam": 2,
        "decoding.extra_length": 5,
        "machine.threads": 1,
        "tracking.folder": folder / "runs",
    }
    settings |= {key.replace("__", "."): value for key, value in changed.items()}
    return corpus_flags(folder) + [part for key, value in settings.items() for part in (f"--{key}", str(value))]
