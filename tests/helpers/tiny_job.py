"""The smallest job there is: a few hundred sentence pairs in files, a Transformer of a few thousand weights."""

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
DEEDS = {"sees": "sieht", "hears": "hört", "finds": "findet", "wants": "will"}


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        who, what, deed = rng.choice(list(WORDS)), rng.choice(list(WORDS)), rng.choice(list(DEEDS))
        number = rng.randrange(100)
        found.append(
            (f"The {who} {deed} a {what} {number}.", f"Der {WORDS[who]} {DEEDS[deed]} {number} {WORDS[what]}.")
        )
    return found


def write_corpus(folder: Path) -> None:
    """train, val and test, each .en and .de."""
    for seed, (split, count) in enumerate({"train": 200, "val": 12, "test": 12}.items()):
        lines = pairs(count, seed)
        for side, language in enumerate(("en", "de")):
            (folder / f"{split}.{language}").write_text("".join(f"{pair[side]}\n" for pair in lines), encoding="utf-8")


def corpus_flags(folder: Path) -> list[str]:
    flags = ["--corpus.name", "files"]
    for split in ("train", "val", "test"):
        flags += [f"--corpus.{split}", f"[{folder}/{split}.en,{folder}/{split}.de]"]
    return flags


def flags(folder: Path, **changed: object) -> list[str]:
    """Flags of the job on the corpus in `folder`, tracked in `folder`/runs. `changed` has __ for the dot of a key."""
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
