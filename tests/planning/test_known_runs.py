"""The speed of a job from finished runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.experiment.spec import Experiment
from tests.helpers.known_runs import HERE, known, run


def test_updates_and_the_rest_of_a_run(experiment: Experiment) -> None:
    rate = known(run(experiment)).rate(experiment, HERE, None)
    assert rate is not None
    assert (rate.seconds_per_pair, rate.other_seconds) == pytest.approx((0.1, 50))
    assert (rate.source, rate.memory_bytes, rate.joules_per_pair) == ("run", 7e6, None)
    assert rate.detail == "run 00000000 of table"


@pytest.mark.parametrize(
    "tags",
    [
        {"threads": "2"},
        {"hardware.cpu": "cpu B"},
        {"hardware.gpu": "H100"},
        {"processes": "8"},
        {"row": "lstm"},
        {"preset": "paper"},
    ],
)
def test_runs_of_another_row_or_machine_do_not_count(experiment: Experiment, tags: dict[str, str]) -> None:
    assert known(run(experiment, tags=tags)).rate(experiment, HERE, None) is None


def test_runs_of_another_model_do_not_count(experiment: Experiment) -> None:
    wider = replace(experiment, model=replace(experiment.model, width=experiment.model.width * 2))
    assert known(run(experiment)).rate(wider, HERE, None) is None


def test_a_run_on_another_corpus_is_scaled_by_its_tokens_and_named(experiment: Experiment) -> None:
    runs = known(run(experiment, tags={"corpus": "other-en-de"}))
    assert runs.rate(experiment, HERE, None) is None
    rate = runs.rate(experiment, HERE, target_tokens_per_pair=40)  # the run's pairs have 200 x 100 / 1000 = 20
    assert rate is not None
    assert rate.seconds_per_pair == pytest.approx(0.2)
    assert rate.detail.endswith("on other-en-de")


def test_a_run_that_was_interrupted_takes_the_usual_time_beside_its_updates(experiment: Experiment) -> None:
    runs = known(*(run(experiment, number, seconds) for number, seconds in enumerate((150, 160, 9000))))
    rate = runs.rate(experiment, HERE, None)
    assert rate is not None
    assert rate.other_seconds == pytest.approx(60), "the median of 50, 60 and, for 8,900, the usual 60"


def test_a_slower_preset_is_not_taken_for_an_interruption(experiment: Experiment) -> None:
    quick = [run(experiment, number, 120, tags={"preset": "quick"}) for number in range(5)]
    rate = known(run(experiment, 7, seconds=600), run(experiment, 8, seconds=620), *quick).rate(experiment, HERE, None)
    assert rate is not None
    assert rate.other_seconds == pytest.approx(510)


def test_an_ensemble_takes_only_the_time_of_its_evaluation(experiment: Experiment) -> None:
    ensemble = replace(experiment, ensemble=replace(experiment.ensemble, of="transformer-base"))
    rate = known(run(ensemble, seconds=30, tags={"members": "a, b"})).rate(ensemble, HERE, None)
    assert rate is not None
    assert (rate.seconds_per_pair, rate.other_seconds) == (0, 30)


def test_a_run_of_an_earlier_version_lacks_a_setting_that_is_null_here(experiment: Experiment) -> None:
    experiment = replace(experiment, training=replace(experiment.training, batch_pairs=None))
    older = run(experiment)
    del older.params["training.batch_pairs"]
    assert known(older).rate(experiment, HERE, None) is not None
    paired = replace(experiment, training=replace(experiment.training, batch_pairs=32))
    assert known(older).rate(paired, HERE, None) is None
