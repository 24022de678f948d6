"""The calibration of a row on this machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from bench.experiment.spec import Experiment
from bench.planning.calibration import NEIGHBOUR, TRACKING_S, Calibration, calibrate, neighbours, rate_of
from bench.planning.workload import Workload


def test_a_calibration_measures_updates_and_translations(experiment: Experiment, workload: Workload) -> None:
    measured = calibrate(experiment, workload, threads=1, seconds=0.1)
    assert measured.updates >= 1
    assert measured.spread >= 0
    assert min(measured.seconds_per_token, measured.greedy_s, measured.beam_s, measured.loss_s) > 0


def test_the_seconds_of_a_job(experiment: Experiment, workload: Workload) -> None:
    """12 sentences are validated 3 + 1 times and tested once; there are no contrasts."""
    measured = Calibration(0.01, 5, 0.1, None, greedy_s=1.0, beam_s=10.0, loss_s=0.1)
    rate = rate_of(measured, experiment, workload)
    assert rate.seconds_per_pair == pytest.approx(0.01 * workload.target_tokens_per_pair)
    validations = 4 * 12 * 1.1 + 12 * 0.1
    assert rate.other_seconds == pytest.approx(validations + 12 * 10 + 9 + TRACKING_S)
    trial = rate_of(measured, experiment, workload, is_trial=True, is_timed=False)
    assert trial.other_seconds == pytest.approx(validations + TRACKING_S)
    timed = rate_of(measured, experiment, workload, is_trial=True)
    assert timed.other_seconds == pytest.approx(validations + TRACKING_S + 9)


def test_processes_share_the_pairs(experiment: Experiment, workload: Workload) -> None:
    measured = Calibration(0.01, 5, 0.1, 0.2, greedy_s=1.0, beam_s=10.0, loss_s=0.1)
    alone = rate_of(measured, experiment, workload)
    eight = rate_of(measured, replace(experiment, machine=replace(experiment.machine, devices=8)), workload)
    assert eight.seconds_per_pair == pytest.approx(alone.seconds_per_pair / 8)
    assert eight.joules_per_pair == alone.joules_per_pair, "eight devices for an eighth of the time"
    assert eight.detail == "5 updates of one process, times 8 on this machine"


def test_reward_costs_samples(experiment: Experiment, workload: Workload) -> None:
    reward = replace(experiment.training.reward, share=0.5, samples=4)
    rewarded = replace(experiment, training=replace(experiment.training, reward=reward))
    measured = Calibration(0.01, 5, 0.1, None, greedy_s=1.0, beam_s=10.0, loss_s=0.1)
    plain = rate_of(measured, experiment, workload).seconds_per_pair
    assert rate_of(measured, rewarded, workload).seconds_per_pair == pytest.approx(plain + 0.5 * 4 * (1 + plain))
    metered = rate_of(replace(measured, joules_per_token=0.2), rewarded, workload)
    assert metered.joules_per_pair == pytest.approx(20 * metered.seconds_per_pair), "20 W, as in the updates"


def test_neighbours_end_with_the_block() -> None:
    before = set(psutil.Process().children())  # the worker of the tests has others of its own
    with neighbours(1, 1, "cpu"):
        (neighbour,) = set(psutil.Process().children()) - before
        assert neighbour.is_running()
    assert set(psutil.Process().children()) <= before


def test_a_neighbour_ends_with_the_process_that_started_it() -> None:
    """After a kill, nobody can end it, but the system closes its input."""
    command = [sys.executable, "-c", NEIGHBOUR, "1", "cpu"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdin
        assert neighbour.stdout
        try:
            assert neighbour.stdout.readline() == b"ready\n"
            neighbour.stdin.close()
            assert neighbour.wait(30) == 0
        finally:
            neighbour.kill()
