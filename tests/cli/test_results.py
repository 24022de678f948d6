"""`bench suite` with results that other machines have finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.evaluation import first_losses
from bench.measures.other_code import FIRST_LOSSES_TAG
from bench.runs.results import MAX_BYTES
from bench.tracking.export import export_run
from bench.tracking.exported import Export
from bench.tracking.store import Store, TrackingSettings
from tests.helpers.command_line import flags_here, run_of

SUITE = "question: What is it?\nrows: [transformer-base]\nresults: results\n"


def test_a_suite_whose_jobs_are_in_the_results_only_prints_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = run_of(folder, 1), Store(TrackingSettings(None, str(folder / "runs")))
    assert json.loads(run.tags[FIRST_LOSSES_TAG]) == list(first_losses.first_losses("transformer-base"))
    exported = export_run(store, "runs", run.id, tmp_path / "results" / "one")
    assert sum(file.stat().st_size for file in exported.iterdir()) < MAX_BYTES
    sentences = (folder / "test.en").read_text().splitlines()
    texts = [file.read_bytes() for file in exported.iterdir()]
    texts += [content for one in Export(exported).exported.values() for content in one.files.values()]
    assert not any(sentence.encode() in text for sentence in sentences for text in texts)
    (tmp_path / "runs.yaml").write_text(SUITE)
    before = sorted(tmp_path.rglob("*"))
    flags = [flag.replace(str(folder), "/nowhere") for flag in flags_here(folder)]  # this machine has no text
    assert main(["suite", str(tmp_path / "runs.yaml"), *flags]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 jobs are in the results" in printed
    assert run.id[:8] in printed
    assert "‡" not in printed
    assert sorted(tmp_path.rglob("*")) == before
