"""Every metric once: name, unit, direction, printed label and format. Reports, the terminal and tests read this list.

To add a metric:
1. compute it where it belongs (a file of bench/measures/) and return it as a `Measure`;
2. call that in the function of bench/evaluation/evaluate.py whose topic it is (`score_test_sets`, `training_costs`,
   `decoding_costs`, ...);
3. give it an entry in `METRICS` and a line in docs/metrics.md; tests/measures/test_metric_registry.py compares the two.
A metric with a label also needs the label, and its printed unit if it has one, in every other language
(reports/text/languages/). With `in_every_row` it gets lines in the CSV, and with `column_group` a column in the
comparison table; no other file has to be edited.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

Format = Literal["0.1", "0.001", "significant", "power of ten", "duration", "count"]
ColumnGroup = Literal["cost", "speed", "memory"]


@dataclass(frozen=True)
class Metric:
    """What is known of a metric before it is measured.

    Attributes:
        name: As in docs/metrics.md and in MLflow. Parts in capitals stand for something that differs: PHENOMENON, N.
        unit: Unit of the stored number.
        better: Which direction is better; empty where neither is.
        label: Its English name in reports; empty if no report prints it.
        printed_unit: English unit in the headings of reports; empty if the heading needs none.
        scale: How many stored units make one printed unit.
        format: One digit or three digits after the point, three significant digits, a power of ten, a duration, or a
            whole number.
        score: Whether each test set has its own value, stored as TEST/NAME.
        in_every_row: Whether the CSV has a line of it for every row, and the report says why where it was not measured.
        column_group: Which group of columns of the comparison table it is in, if it has a column of its own after the
            latency; the page opens a group with one button.
        print_provenance: Whether the experimental setup prints how it was measured.
        in_mlflow: Whether it is an MLflow metric of a job. The others are only in the job's table measures.json. The UI
            makes a column and a chart of every metric; a job has at most 40, curves and system metrics included.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", ""] = ""
    label: str = ""
    printed_unit: str = ""
    scale: float = 1.0
    format: Format = "significant"
    score: bool = False
    in_every_row: bool = False
    column_group: ColumnGroup | Literal[""] = ""
    print_provenance: bool = False
    in_mlflow: bool = False


def _score(
    name: str,
    better: Literal["higher", "lower"],
    label: str,
    print_provenance: bool = False,
    in_mlflow: bool = False,
) -> Metric:
    """A score of translations, between 0 and 100, which every row has on every test set."""
    return Metric(
        name,
        "percent",
        better,
        label,
        format="0.1",
        score=True,
        in_every_row=True,
        print_provenance=print_provenance,
        in_mlflow=in_mlflow,
    )


def _percent(
    name: str, better: Literal["higher", "lower", ""] = "", label: str = "", in_mlflow: bool = False
) -> Metric:
    return Metric(name, "percent", better, label, format="0.1", in_mlflow=in_mlflow)


METRICS = (
    # In every row of the CSV, in this order.
    _score("bleu", "higher", "BLEU", print_provenance=True, in_mlflow=True),
    _score("chrf", "higher", "chrF2"),
    _score("ter", "lower", "TER"),
    Metric("params", "parameters", "", "Parameters", "M", 1e6, in_every_row=True, in_mlflow=True),
    Metric(
        "train_flops",
        "FLOP",
        "lower",
        "Training FLOPs, counted",
        "FLOP",
        format="power of ten",
        in_every_row=True,
        print_provenance=True,
        in_mlflow=True,
    ),
    Metric(
        "executed_flops",
        "FLOP",
        "lower",
        "Executed FLOPs",
        "FLOP",
        format="power of ten",
        in_every_row=True,
        in_mlflow=True,
    ),
    Metric(
        "clock_flops",
        "FLOP",
        "lower",
        "Clock estimate",
        "FLOP",
        format="power of ten",
        in_every_row=True,
        print_provenance=True,
        in_mlflow=True,
    ),
    Metric("energy_j", "J", "lower", "Energy", "J", in_every_row=True, print_provenance=True, in_mlflow=True),
    Metric(
        "latency_p50_ms", "ms", "lower", "Latency p50", "ms", in_every_row=True, print_provenance=True, in_mlflow=True
    ),
    Metric("latency_p95_ms", "ms", "lower", "Latency p95", "ms", in_every_row=True, in_mlflow=True),
    Metric(
        "sentences_per_s",
        "1/s",
        "higher",
        "Throughput",
        "sentences/s",
        in_every_row=True,
        column_group="speed",
        print_provenance=True,
        in_mlflow=True,
    ),
    Metric(
        "peak_memory_bytes",
        "bytes",
        "lower",
        "Peak memory",
        "MiB",
        2**20,
        in_every_row=True,
        column_group="memory",
        print_provenance=True,
        in_mlflow=True,
    ),
    Metric(
        "wall_s",
        "s",
        "lower",
        "Wall time",
        format="duration",
        in_every_row=True,
        column_group="cost",
        print_provenance=True,
        in_mlflow=True,
    ),
    # In other tables and plots of a report.
    Metric("bleu_13a", "percent", "higher", "BLEU, 13a", format="0.1", score=True),
    Metric("bleu_shuffled_references", "percent", "", "BLEU, shuffled references", format="0.1", score=True),
    Metric("truncated", "sentences", "", "Sources cut to the length limit", format="count", score=True),
    Metric("params_core", "parameters", "", "Parameters outside embeddings and softmax", "M", 1e6),
    Metric(
        "validation_loss",
        "nats/token",
        "lower",
        "Validation loss",
        "nats/token",
        format="0.001",
        print_provenance=True,
        in_mlflow=True,
    ),
    Metric(
        "validation_loss_shuffled_sources",
        "nats/token",
        "",
        "Validation loss, shuffled sources",
        "nats/token",
        format="0.001",
    ),
    _percent("validation_bleu", "higher", "Validation BLEU", in_mlflow=True),
    _percent("validation_chrf", "higher", "Validation chrF2", in_mlflow=True),
    _percent("aer", "lower", "Alignment error rate", in_mlflow=True),
    _percent("aer_diagonal", "", "Alignment error rate of the diagonal"),
    _percent("contrastive", "higher", "Accuracy on contrasts", in_mlflow=True),
    _percent("target_only", "", "Accuracy on contrasts, target only"),
    Metric("pairs", "sentence pairs", "", "Sentence pairs", format="count", in_mlflow=True),
    Metric("updates", "updates", "", "Updates", format="count", in_mlflow=True),
    # In the CSV, in MLflow and on the terminal only.
    Metric("validation_excess_loss", "nats/token", "lower", format="0.001", in_mlflow=True),
    _percent("contrastive/PHENOMENON", "higher"),
    _percent("contrastive/PHENOMENON/DISTANCE", "higher"),
    _percent("target_only/..."),
    _percent("bleu_lowercase", "higher"),
    _percent("bleu_tokenised", "higher"),
    _percent("bleu_compound_split", "higher"),
    _percent("bleu_ko_mecab", "higher"),
    _percent("bleu_characters", "higher"),
    _percent("TEST/bleu/length/WORDS", "higher"),
    _percent("TEST/bleu/depth/CLAUSES", "higher"),
    _percent("deeper/bleu/depth/CLAUSES", "higher"),
    _percent("deeper/bleu/longer", "higher"),
    _percent("validation_gleu", "higher"),
    Metric("best_update", "updates", format="count", in_mlflow=True),
    Metric("repeated_updates", "updates", format="count"),
    Metric("repeated_s", "s", "lower", format="duration"),
    Metric("params_multiplied", "parameters", scale=1e6),
    Metric("target_tokens", "tokens", format="count"),
    Metric("target_tokens_per_s", "tokens/s", "higher"),
    Metric("decoding_flops", "FLOP/sentence", "lower", format="power of ten"),
    Metric("experts_per_token", "1"),
    _percent("overhead", "lower"),
    Metric("ceiling_flops_per_s", "FLOP/s", "higher", format="power of ten"),
    Metric("mfu", "1", "higher", in_mlflow=True),
    Metric("latency_pN_ms", "ms", "lower"),
    Metric("latency_free_pN_ms", "ms", "lower"),
    Metric("latency_first_token_ms", "ms", "lower"),
    Metric("latency_per_token_ms", "ms", "lower"),
    Metric("sentences_per_s_bN", "1/s", "higher"),
    Metric("tokens_per_s_bN", "1/s", "higher"),
    Metric("sentences_per_s_free_b32", "1/s", "higher"),
    Metric("memory_weights_bytes", "bytes", "lower", scale=2**20),
    Metric("memory_training_bytes", "bytes", "lower", scale=2**20),
    Metric("best/GOAL", "the goal's"),
)

IN_EVERY_ROW = tuple(metric.name for metric in METRICS if metric.in_every_row)
OWN_COLUMNS = tuple(metric.name for metric in METRICS if metric.column_group)
TEST_SET_SCORES = tuple(metric.name for metric in METRICS if metric.score and metric.unit == "percent")
PRINTED_PROVENANCE = tuple(metric.name for metric in METRICS if metric.print_provenance)
LABELLED = tuple(metric.name for metric in METRICS if metric.label)

_BY_NAME = {metric.name: metric for metric in METRICS}


@functools.cache
def find(name: str) -> Metric | None:
    """The entry of a stored name, such as latency_p50_ms, test/bleu or contrastive/pronoun/3; None if it has none."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    of_pattern = next((metric for metric in METRICS if _pattern(metric.name).fullmatch(name)), None)
    return of_pattern or _BY_NAME.get(name.rpartition("/")[2])  # a score of a test set


def metric(name: str) -> Metric:
    """The entry of a stored name; one with three significant digits and no unit if it has none."""
    return find(name) or Metric(name, "")


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    """Capitals stand for any text without a slash, and the points of `target_only/...` for any text."""
    parts = re.split(r"([A-Z]+|\.\.\.)", name)
    return re.compile("".join({"...": ".+"}.get(p, "[^/]+") if n % 2 else re.escape(p) for n, p in enumerate(parts)))


def in_registry_order(names: set[str]) -> list[str]:
    """Names sorted: metrics with a label first, in the order of the registry, then the others by name."""
    return sorted(names, key=lambda name: (LABELLED.index(name) if name in LABELLED else len(LABELLED), name))
