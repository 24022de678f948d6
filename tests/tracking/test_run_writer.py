"""What is written to a run: any text is stored, and unsafe characters in it are made visible."""

from __future__ import annotations

from pathlib import Path

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
