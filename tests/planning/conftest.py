"""A tiny job on the corpus of tiny_job, and its workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.planning.workload import Workload, workload_of
from tests.helpers import tiny_job


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder: Path = tmp_path_factory.mktemp("plan")
    tiny_job.write_corpus(folder)
    return resolve(tiny_job.FILE, row="transformer-base", flags=tiny_job.flags(folder))


@pytest.fixture(scope="session")
def workload(experiment: Experiment) -> Workload:
    return workload_of(experiment)
