"""What is written to a run: any text, with unsafe characters made visible, and data sets that others write, too."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.store.tracking import sqlalchemy_store

from tests.helpers.synthetic_runs import UNSAFE, UNSAFE_SHOWN
from tests.helpers.tracking_folder import new_store


def test_unsafe_characters_are_visible_in_tables_tags_and_params(tmp_path: Path) -> None:
    store = new_store(tmp_path / "runs")
    writer = store.begin("suite", "a run", {"job_hash": "abc", "name": UNSAFE})
    texts = [UNSAFE, "half a pair: \ud800", "Größe, 😀, नमस्ते"]
    writer.table({"source": texts, "reference": texts, "hypothesis": texts, "n": [1, None, 2]}, "hypotheses/test.json")
    writer.tag({"reason": UNSAFE})
    writer.params({"corpus.train": UNSAFE})
    (run,) = store.runs("suite")
    shown = [UNSAFE_SHOWN, "half a pair: \ufffd", "Größe, 😀, नमस्ते"]
    assert list(store.hypotheses(run, "test")["hypothesis"]) == shown
    assert run.tags["reason"] == run.tags["name"] == UNSAFE_SHOWN
    assert run.params["corpus.train"] == UNSAFE_SHOWN


def test_two_runs_log_a_data_set_for_the_first_time_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run writes between MLflow's look for the data set and its own addition, where an id is drawn."""
    store = new_store(tmp_path / "runs")
    first, second = (store.begin("suite", name, {"job_hash": name}) for name in ("first", "second"))
    drawn: list[uuid.UUID] = []

    def draw() -> uuid.UUID:
        drawn.append(uuid.uuid4())
        if len(drawn) == 1:
            second.datasets({"train": "ab" * 32}, "corpus", {"train": "{}"})
        return drawn[-1]

    monkeypatch.setattr(sqlalchemy_store, "uuid", SimpleNamespace(uuid4=draw))
    first.datasets({"train": "ab" * 32}, "corpus", {"train": "{}"})
    assert len(drawn) > 1
    for writer in (first, second):
        inputs = writer.client.get_run(writer.id).inputs
        assert inputs is not None
        assert [(one.dataset.name, one.dataset.digest) for one in inputs.dataset_inputs] == [
            ("corpus/train", "ab" * 16)
        ]
