"""Synthetic runs for the tests of reports. They are written through the store like real runs, in a second or two."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pandas as pd
import pytest

from bench.measures import metric_registry, quality
from bench.measures.measure import Measure
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store
from reports.gathering.context import Context
from reports.gathering.gather_runs import gather

# MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates and a column selector that pandas 3 deprecates.
quiet_mlflow = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:For backward compatibility, 'str' dtypes"),
]

HOSTILE = "<script>alert('x')</script> | a & b \\ $x$ *c* _d_ {e} 50% #1 שלום עולם 😀"
UNSAFE = "a\x00b\x02c\x1b[31m\ufffed\u202ee"
"""Characters that end the process of the drawing library, that XML or UTF-8 forbids, or that act as commands."""

UNSAFE_SHOWN = "a␀b␂c␛[31m\ufffdd\ufffde"
REFERENCES = [f"Der Koch sieht die Kanne Nummer {number} auf dem Tisch." for number in range(40)]
SOURCES = [f"The cook sees pitcher number {number} on the table." for number in range(40)]
REFERENCES[0], SOURCES[0] = f"Ein Satz {HOSTILE}", f"A sentence {HOSTILE}"


@dataclass
class Synthetic:
    """A run to be written. Every `wrong`-th sentence is translated wrongly; it is a probed run if `probed`.

    With `best_at` it stores that the weights of this validation (0 is the first, -1 the last) were the best.
    `costs` are further measures of the metric registry.
    """

    row: str
    name: str
    year: int
    wrong: int
    flops: float
    seed: int = 1
    corpus: str = "toy-en-de"
    status: str = "FINISHED"
    reason: str = ""
    latency: float | None = 12.5
    tags: dict[str, str] = field(default_factory=dict)
    probed: bool = False
    validations: int = 2
    best_at: int | None = None
    costs: dict[str, float] = field(default_factory=dict)

    def hypotheses(self) -> list[str]:
        """The translations of the test set."""
        lines = list(REFERENCES)
        for number in range(self.seed - 1, len(lines), self.wrong):
            lines[number] = f"Eine Frau trinkt Wasser. {HOSTILE if number < self.wrong else ''}".strip()
        return lines

    def write(self, store: Store, suite: str, parent: str | None) -> str:
        """Writes the run and returns its id."""
        tags = {
            "row": self.row,
            "name": self.name,
            "year": str(self.year),
            "paper": f"Author {self.year}",
            "family": "attention" if self.year == 2017 else "recurrent",
            "note": "",
            "direction": self.corpus[-5:],
            "corpus": self.corpus,
            "preset": "demo",
            "seed": str(self.seed),
            "job_hash": f"{self.row}-{self.corpus}-{self.seed}",
            "data": '{"train": "ab12"}',
            **self.tags,
        }
        writer = store.begin(suite, f"{self.row} {self.corpus}", tags, parent)
        writer.params({"training.max_pairs": 64000, "decoding.beam": 5})
        if self.status != "FINISHED":
            writer.tag({"reason": self.reason})
            writer.finish(self.status)
            return writer.id
        lines, updates = self.hypotheses(), range(10, 10 * self.validations + 1, 10)
        writer.table({"source": SOURCES, "reference": REFERENCES, "hypothesis": lines}, "hypotheses/test.json")
        tokenizer = self.tags.get("bleu_tokenizer", "13a")
        measured = [quality.statistics(lines, REFERENCES, name, tokenizer) for name in quality.metrics_of(tokenizer)]
        writer.statistics(measured, "test")
        scores = [
            Measure(f"test/{m.metric}", m.value, m.unit, m.low, m.high, f"{m.provenance}; beam 5, alpha 1.0")
            for m in (quality.mean_with_interval([one]) for one in measured)
        ]
        latency = Measure(
            "latency_p50_ms", self.latency, "ms", provenance="3 sentences" if self.latency else "no clock"
        )
        writer.measures(
            [
                *scores,
                Measure("params", 1_234_567, "parameters"),
                Measure("train_flops", self.flops, "FLOP", provenance="closed form"),
                Measure("wall_s", 61.0, "s"),
                Measure("validation_loss", 1.25, "nats/token"),
                Measure("validation_loss_shuffled_sources", 3.5, "nats/token"),
                latency,
                *(probes(self.wrong) if self.probed else []),
                *(Measure(name, value, metric_registry.metric(name).unit) for name, value in self.costs.items()),
                *([Measure("best_update", updates[self.best_at], "updates")] if self.best_at is not None else []),
            ]
        )
        if self.probed:
            writer.text(json.dumps(CORPUS_STATS), "corpus_stats.json")
            writer.text(json.dumps(ATTENTION), "attention/a-sentence.json")
        by_chrf = self.tags.get("validation_score") == "validation_chrf"
        points = [
            point
            for update in updates
            for part in (update / self.validations / 10,)
            for point in (
                (update, "train/flops", self.flops * part),
                (update, "train/seconds", update * 3.0),
                (update, "validation/bleu", 40 * part),
                *([(update, "validation/chrf", 50 * part)] if by_chrf else []),
                (update, "validation/loss", 3 - part),
            )
        ]
        writer.frame(pd.DataFrame(points, columns=["update", "name", "value"]), "curves.parquet")
        writer.finish("FINISHED")
        return writer.id


def probes(wrong: int) -> list[Measure]:
    """Metrics of groups of sentences, contrasts and alignment."""
    values = {
        "test/bleu/length/1-5": 90.0,
        "test/bleu/length/6-10": 90.0 - wrong,
        "test/bleu/depth/0": 80.0,
        "deeper/bleu/depth/2": 20.0,
        "contrastive/pronoun": 75.0,
        "contrastive/pronoun/1": 80.0,
        "contrastive/pronoun/4": 70.0,
        "target_only/pronoun": 60.0,
        "target_only/pronoun/1": 61.0,
        "target_only/pronoun/4": 59.0,
        "aer": 30.0 + wrong,
        "aer_diagonal": 50.0,
    }
    return [Measure(name, value, "percent", value - 2, value + 2, "40 sentences") for name, value in values.items()]


SIDE = {
    "language": "en",
    "words": 300,
    "distinct_words": 40,
    "mean": 7.5,
    "median": 7,
    "p99": 12,
    "longest": 14,
    "coverage": 0.98,
}
CORPUS_STATS = {
    "name": "toy-en-de",
    "splits": [
        {"name": name, "pairs": 40, "sha256": "ab", "source": SIDE, "target": SIDE, "duplicates": 1, "faults": {}}
        for name in ("train", "test")
    ],
    "overlaps": [
        {"split": "test", "other_split": "train", "pairs": 3, "sources": 3, "targets": 4, "near_duplicates": 5}
    ],
    "thorough": True,
}
ATTENTION = {
    "source": "A b",
    "translation": "Ein b",
    "attention": [
        {"kind": "encoder", "rows": ["A"], "columns": ["A"], "maps": [[[[1.0]]]]},
        {
            "kind": "cross",
            "rows": ["Ein", "'\\]<b>", "</s>"],
            "columns": ["A", "<script>", "</s>"],
            "maps": [
                [
                    [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]],
                    [[0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]],
                ]
            ],
        },
    ],
}


def sweep(store: Store, row: str, scored: bool = True) -> None:
    """Writes a study of four trials. One failed and has no score; with `scored` false no trial measured BLEU."""
    goals = {
        "goals": "validation_bleu, latency_p50_ms" if scored else "validation_loss",
        "best.training.optimizer.lr": "0.00312345",
        "best.run": "abc",
    }
    tags = {"row": row, "corpus": "toy-en-de", "preset": "demo", **goals}
    study = RunWriter(store.client, store.start_parent("tuning", tags, study=row if scored else f"{row} by loss"))
    columns = {
        "trial": [0, 1, 2, 3, 3],  # the last trial lost its first attempt
        "pairs": [1000, 1000, 1000, 600, 1000],
        "validation_bleu": [10.0, 30.0, None, None, 20.0] if scored else [None] * 5,
        "latency_p50_ms": [5.0, 9.0, None, None, 30.0],
        "settings": [json.dumps({"training.optimizer.lr": lr}) for lr in (0.001, 0.00312345, 9.0, 0.1, 0.1)],
        "best": [True, True, False, False, False],
    }
    study.table(columns, "trials.json")
    study.text(json.dumps({"training.optimizer.lr": 0.75}), "importance.json")
    study.finish("FINISHED")


def tuned(
    store: Store, suite: str, row: str, debt: float | None, granted: float | None = 8000.0, no_search: bool = False
) -> None:
    """Writes what a suite stores about the tuning of a row; without `no_search`, its settings come from a sweep."""
    tags = {"row": row, "corpus": "toy-en-de", "preset": "demo"}
    study = RunWriter(store.client, store.start_parent("tuning", tags, study=f"{row} of {suite}"))
    study.finish("FINISHED")
    got = {"sweep": "tuning", "study": study.id, "granted": granted, "spent": 6000.0, "debt": debt}
    got |= {"no_search": no_search}
    own = RunWriter(store.client, store.start_parent(suite, {}))
    own.tag({"tuning": json.dumps({row: got})})
    points = [{"budget": 1000.0, "best": 10.0, "low": 5.0, "high": 20.0}]
    own.text(json.dumps({"expected": {row: points}}), "best_so_far.json")


def suite(store: Store, name: str, runs: list[Synthetic], rows: str, baseline: str) -> list[str]:
    """Writes a suite and returns the ids of its runs. `rows` are row ids separated by commas."""
    tags = {"question": f"Which is best? {HOSTILE}", "rows": rows, "baseline": baseline}
    parent = store.start_parent(name, tags)
    return [run.write(store, name, parent) for run in runs]


def odd(store: Store) -> Context:
    """One direction and seed; a failed row, a row without runs, two rows with the same translations, a hostile name."""
    runs = [
        Synthetic("plain", f"Plain {HOSTILE}", 2014, 2, 1e12, latency=None, tags={"note": HOSTILE}),
        Synthetic("twin", "Twin", 2015, 2, 2e12),
        Synthetic("broken", "Broken", 2016, 2, 1e12, status="FAILED", reason=f"Diverged: {HOSTILE}"),
        Synthetic("best", "Transformer (base)", 2017, 20, 4e12, probed=True),
    ]
    sweep(store, "best")
    suite(store, "odd", runs, "plain,twin,broken,absent,best", "best")
    return gather(store, "odd", "http://127.0.0.1:5000/")


def level(store: Store) -> Context:
    """Two directions and two seeds; no significant difference; a repeated run; an interrupted seed."""
    runs = [
        Synthetic("one", "One", 2014, 2, 9e12),  # replaced by the next run
        Synthetic("one", "One", 2014, 8, 1e12),
        Synthetic("one", "One", 2014, 8, 1e12, seed=2),
        Synthetic("two", "Two", 2017, 8, 2e12),
        Synthetic("two", "Two", 2017, 8, 2e12, seed=2),
        Synthetic("two", "Two", 2017, 8, 2e12, seed=3, status="KILLED", reason="SIGTERM: saved"),
        Synthetic("two", "Two", 2017, 9, 3e12, corpus="toy-en-fr"),
    ]
    suite(store, "level", runs, "one,two", "two")
    return gather(store, "level")
