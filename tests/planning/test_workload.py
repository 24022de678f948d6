"""The lengths that a plan is made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.data.corpus import CorpusSettings
from bench.experiment.job_data import JobData
from bench.experiment.spec import Experiment
from bench.planning.workload import Workload, assumed, workload_of


def test_the_batches_have_the_shapes_of_those_of_the_job(experiment: Experiment, workload: Workload) -> None:
    real, planned = JobData.of(experiment).train, workload.batches(experiment)
    assert planned.batches_per_epoch == real.batches_per_epoch
    for ours, theirs in zip(planned.epoch(0), real.epoch(0), strict=True):
        assert planned.local_part(ours).shapes == real.local_part(theirs).shapes
    assert workload.vocabulary == (90, 90)
    assert [len(lengths[0]) for lengths in (workload.validation, *workload.tests.values())] == [12, 12]
    assert workload.provenance == ""


def test_a_corpus_that_is_not_here_is_assumed_and_not_downloaded(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MULTI30K", raising=False)
    found = workload_of(replace(experiment, corpus=CorpusSettings(name="multi30k-en-de")))
    assert found.provenance.startswith("assumed: the corpus is not on this machine; sentences of 25 subwords")
    assert found.target_tokens_per_pair == 25
    characters = replace(experiment.text, kind="characters", max_length=400)
    assert assumed(characters).target_tokens_per_pair == 125
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_an_error(experiment: Experiment) -> None:
    with pytest.raises(ValueError, match=r"corpus\.path: there is no folder"):
        workload_of(replace(experiment, corpus=CorpusSettings(name="multi30k-en-de", path="/missing")))
