"""The registry of metrics and docs/metrics.md list the same metrics with the same units and directions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.measures import metric_registry
from reports.text.catalogue import languages, load_catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def documented() -> dict[str, tuple[str, str]]:
    """Name -> (unit, direction or "?") of every metric in docs/metrics.md. Learning curves are no metrics."""
    found = {}
    section = ""
    for line in PAGE.splitlines():
        section = line if line.startswith("#") else section
        if not line.startswith("| `") or "curve" in section:
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([^`]+)`", cells[0])
        units = cells[1].split(", ") if "," in cells[1] else [cells[1]] * len(names)
        better = cells[2] if cells[2] in ("higher", "lower", "") else "?"
        found |= {name: (unit, better) for name, unit in zip(names, units, strict=True)}
    return found


def test_every_documented_metric_is_registered_and_every_registered_one_documented():
    names = [metric.name for metric in metric_registry.METRICS]
    assert len(names) == len(set(names))
    assert documented().keys() == set(names)


def test_documentation_and_registry_agree_on_unit_and_direction():
    for name, (unit, better) in documented().items():
        metric = metric_registry.metric(name)
        assert unit == metric.unit, name
        assert better in ("?", metric.better), name


def test_the_documentation_lists_the_metrics_of_mlflow():
    """One paragraph names them, so that a reader knows which numbers are columns of the UI."""
    paragraph = next(part for part in PAGE.split("\n\n") if part.startswith("**MLflow metrics of a job:**"))
    listed = set(re.findall(r"`([^`]+)`", paragraph))
    assert listed == {metric.name for metric in metric_registry.METRICS if metric.in_mlflow}


def test_every_label_is_translated():
    for language in languages():
        texts = load_catalogue(language).texts
        assert {f"metric.{name}" for name in metric_registry.LABELLED} <= texts.keys()


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("bleu", "bleu"),
        ("test/bleu", "bleu"),
        ("latency_p90_ms", "latency_pN_ms"),
        ("latency_p50_ms", "latency_p50_ms"),
        ("test/bleu/length/1-5", "TEST/bleu/length/WORDS"),
        ("contrastive/pronoun/3", "contrastive/PHENOMENON/DISTANCE"),
        ("target_only/pronoun/3", "target_only/..."),
        ("train/lr", None),
    ],
)
def test_a_stored_name_is_found_by_its_pattern(stored: str, name: str | None):
    metric = metric_registry.find(stored)
    assert (metric.name if metric else None) == name


def test_metrics_with_a_label_are_sorted_before_others():
    assert metric_registry.in_registry_order({"zeta", "updates", "alpha", "bleu"}) == [
        "bleu",
        "updates",
        "alpha",
        "zeta",
    ]
