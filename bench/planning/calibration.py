"""Measures the speed of a row on this machine: a few updates and translations with random weights and random tokens.

Sentences have the lengths of the job's corpus, and outputs have the lengths of the references, as after training. With
several workers, other processes compute at the same time (`neighbours`), because jobs that share a machine slow each
other down.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.decoding import beam_search
from bench.decoding.beam_search import DecodingSettings
from bench.evaluation.evaluate import mean_loss
from bench.experiment.job_data import VALIDATION_SENTENCES
from bench.experiment.spec import Experiment
from bench.measures import latency
from bench.measures.energy import Energy
from bench.planning.rate import Rate
from bench.planning.workload import Lengths, Workload, random_pairs, random_sentences
from bench.system.machine import bf16_fallback
from bench.training.plain_update import plain_update
from models.parts.translator import Translator

WARM_UP, UPDATES, SECONDS = 3, 12, 4.0
"""Updates that are not timed; updates that are timed, and the seconds after which no other one starts."""

SENTENCES = 64
"""Sentences that are translated greedily, and with the beam, to time validations and tests."""

TRACKING_S = 5.0
"""Seconds of one job for tracking, scores, corpus statistics and the rate of matrix products: assumed, not measured."""

NEIGHBOUR = """
import os, sys, threading, torch
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
torch.set_num_threads(int(sys.argv[1]))
torch.set_default_device(sys.argv[2])
layer = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
x = torch.randn(32, 24, 128)
print("ready", flush=True)
while True:
    layer(x).sum().backward()
"""
"""The program of a neighbour: the updates of a small Transformer. It ends when its input is closed, also by a kill."""


@dataclass(frozen=True)
class Calibration:
    """The measured speed of a row.

    Attributes:
        seconds_per_token: Seconds of updates for a target token.
        updates: Number of timed updates.
        spread: (90 % quantile - 10 % quantile) / median of the seconds per target token of single updates.
        joules_per_token: Joules of updates for a target token; None without a readable counter.
        greedy_s: Seconds to translate a sentence greedily, in batches.
        beam_s: Seconds to translate a sentence with the beam of the job, in batches.
        loss_s: Seconds to compute the loss of a pair, without gradients.
    """

    seconds_per_token: float
    updates: int
    spread: float
    joules_per_token: float | None
    greedy_s: float
    beam_s: float
    loss_s: float


@contextlib.contextmanager
def neighbours(count: int, threads: int, device: str) -> Iterator[None]:
    """While the block runs, `count` other processes compute with `threads` threads each, as other workers would.

    Args:
        device: The device on which they compute, such as cpu or cuda:0.
    """
    command = [sys.executable, "-c", NEIGHBOUR, str(threads), device]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def calibrate(experiment: Experiment, workload: Workload, threads: int, seconds: float = SECONDS) -> Calibration:
    """Times updates and translations of the row on the device of its settings.

    Args:
        seconds: For the timed updates; the whole calibration takes a few times as long.

    Raises:
        ValueError: the settings are invalid, or the device is missing.
    """
    machine, device = replace(experiment.machine, threads=threads), experiment.machine.device
    draw = np.random.default_rng(experiment.seed)
    with machine.applied(), bf16_fallback(device, experiment.training.precision == "bf16-mixed"):
        torch.manual_seed(experiment.seed)
        model = experiment.build(*workload.vocabulary)
        model.optimization = experiment.training
        model.to(device)
        tokens, took, joules = [0], [0.0], None
        if not experiment.members:
            tokens, took, joules = _updates(model, experiment, workload, seconds)
        validation = _some(workload.validation, SENTENCES)
        tests = _some(_joined(list(workload.tests.values())), SENTENCES)
        greedy = DecodingSettings(beam=1, alpha=0.0, batch_sentences=128)
        pairs = random_pairs(validation, workload.vocabulary, draw)
        began = time.perf_counter()
        mean_loss(model, pairs, experiment.training.batch_tokens)
        loss_s = (time.perf_counter() - began) / len(pairs)
        greedy_s = _translation_s(model, validation, workload, greedy, draw)
        beam_s = _translation_s(model, tests, workload, experiment.decoding, draw)
    each = np.array(took) / np.maximum(1, tokens)
    middle = float(np.median(each))
    spread = float(np.quantile(each, 0.9) - np.quantile(each, 0.1)) / middle if middle else 0.0
    total = max(1, sum(tokens))
    per_token = None if joules is None else joules / total
    updates = 0 if experiment.members else len(took)
    return Calibration(sum(took) / total, updates, spread, per_token, greedy_s, beam_s, loss_s)


def _updates(
    model: Translator, experiment: Experiment, workload: Workload, seconds: float
) -> tuple[list[int], list[float], float | None]:
    """Target tokens and seconds of each timed update, and the joules of all of them."""
    settings, device = experiment.training, model.device
    if settings.precision == "64-true":
        model.double()
    batches = iter(workload.batches(experiment).train_dataloader())
    make = plain_update(model.train(), batches, settings.precision, settings.clip)

    def update() -> int:
        batch = make()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return sum(batch.target.lengths_B)

    began = time.perf_counter()
    for _ in range(WARM_UP):
        update()
        if time.perf_counter() - began > seconds:  # one update of a paper's size can take minutes on a CPU
            break
    energy = Energy()
    energy.open(device)
    energy.skip()
    tokens, took, began = list[int](), list[float](), time.perf_counter()
    while not took or (len(took) < UPDATES and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        tokens.append(update())
        took.append(time.perf_counter() - start)
    energy.poll()
    return tokens, took, energy.measure().value


def _translation_s(
    model: Translator, lengths: Lengths, workload: Workload, settings: DecodingSettings, draw: np.random.Generator
) -> float:
    """Seconds to translate one of these sentences, in batches, to an output as long as its reference."""
    sources = random_sentences(lengths[0], workload.vocabulary[0], draw)
    ids = [part[:-1].tolist() for part in np.split(sources.ids, sources.ends[:-1])]
    plain = replace(settings, pos_unk="keep")
    began = time.perf_counter()
    beam_search.translate(model, ids, plain, forced_lengths=lengths[1].tolist())
    return (time.perf_counter() - began) / len(ids)


def _joined(parts: Sequence[Lengths]) -> Lengths:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _some(lengths: Lengths, count: int) -> Lengths:
    """At most `count` pairs, evenly spaced."""
    chosen = np.linspace(0, len(lengths[0]) - 1, min(count, len(lengths[0]))).astype(int)
    return lengths[0][chosen], lengths[1][chosen]


def rate_of(
    measured: Calibration,
    experiment: Experiment,
    workload: Workload,
    *,
    is_trial: bool = False,
    is_timed: bool = True,
) -> Rate:
    """The rate of a job, from the calibration of its row.

    Args:
        is_trial: Whether the job is a trial of a sweep, which translates no test set and is not probed.
        is_timed: Whether the latency of the job is measured.
    """
    training = experiment.training
    validation_pairs = min(VALIDATION_SENTENCES, len(workload.validation[0]))
    scored = validation_pairs * (measured.greedy_s + measured.loss_s)
    validations = (0 if experiment.members else training.validations) + 1  # the last one scores the chosen weights
    other = validations * scored + validation_pairs * measured.loss_s  # and its loss with shuffled sources
    if not is_trial:
        other += sum(len(lengths[0]) for lengths in workload.tests.values()) * measured.beam_s
        other += len(workload.contrasts[0]) * measured.loss_s
    if is_timed:
        other += latency.SECONDS
    per_pair = update = measured.seconds_per_token * workload.target_tokens_per_pair
    if training.reward.share:  # each source is sampled and trained on several times
        sampling = training.reward.samples * (measured.greedy_s + per_pair)
        per_pair += training.reward.share * sampling
    joules = measured.joules_per_token
    joules_per_pair = None if measured.updates else 0.0  # an ensemble is not trained
    if joules is not None and update:  # sampling is taken to need the power of updates
        joules_per_pair = joules * workload.target_tokens_per_pair * per_pair / update
    work = f"{measured.updates} update{'s' * (measured.updates > 1)}" if measured.updates else "translations"
    processes = experiment.machine.processes
    if processes > 1:
        work += f" of one process, times {processes}"  # what they lose by waiting for each other is not known
    return Rate(
        per_pair / processes,
        other + TRACKING_S,
        joules_per_pair,
        None,
        "calibration",
        f"{work} on this machine",
        measured.spread or None,
    )
