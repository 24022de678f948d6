"""How many jobs to run at the same time on this machine: the rule behind `--workers auto`.

A small model does not keep several cores busy: its threads wait for each other at every operation. So many small jobs
with one thread each finish sooner than the same jobs one after another with all threads. A large model is faster with
all of them, and needs the memory for itself. The numbers behind the rule are in docs/planning.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import psutil
import torch

from bench.experiment.spec import Experiment
from bench.runs.worker_backend import LocalBackend
from bench.system import terminal
from bench.system.machine import available_cores, visible_gpus

PARAMETERS_PER_THREAD = 1e7
"""Multiplied parameters of a model for each of its threads."""

WORKER_BYTES = 2 * 2**30
"""Memory of a worker with a small model, with a margin: those of the demo have 0.9 to 1.0 GB."""

BYTES_PER_PARAMETER = 16
"""A parameter in training: its weight, gradient and two numbers of the optimizer, in fp32."""


def automatic_backend(jobs: Sequence[Experiment]) -> LocalBackend:
    """The workers of `--workers auto` for these jobs; prints how many they are."""
    count = automatic_workers(jobs)
    terminal.say(f"--workers auto: {count} {'job' if count == 1 else 'jobs'} at a time")
    return LocalBackend(count)


def automatic_workers(jobs: Sequence[Experiment]) -> int:
    """How many of these jobs to run at the same time.

    On GPUs one for each GPU. On a CPU a job gets one thread for every PARAMETERS_PER_THREAD of the median model, or
    `machine.threads`, and as many jobs run as there are cores for them. There are never more workers than jobs that
    train, nor more than fit into the free memory with the largest model. A run over several devices is alone. Limits
    of a container are not seen.
    """
    trained = [job for job in jobs if not job.members]
    if not trained or any(job.machine.processes > 1 for job in trained):
        return 1
    if any(job.machine.device.type == "cuda" for job in trained):
        return max(1, min(len(visible_gpus()), len(trained)))
    models = {repr((job.architecture, job.model, job.text)): job for job in trained}
    sizes = {model: model_sizes(job) for model, job in models.items()}
    wanted = []
    for job in trained:
        multiplied, _ = sizes[repr((job.architecture, job.model, job.text))]
        wanted.append(job.machine.threads or math.ceil(multiplied / PARAMETERS_PER_THREAD))
    cores, threads = available_cores(), max(1, round(statistics.median(wanted)))
    needed = WORKER_BYTES + BYTES_PER_PARAMETER * max(parameters for _, parameters in sizes.values())
    return max(1, min(cores // threads, int(psutil.virtual_memory().available // needed), len(trained)))


def model_sizes(job: Experiment) -> tuple[int, int]:
    """(multiplied parameters, all parameters) of the model, with vocabularies of the size in the settings.

    The text may have fewer words or characters. Settings that no model can be built with count as 0: the check of the
    job, which follows, reports them.
    """
    try:
        with torch.device("meta"):
            model = job.build(*job.text.sizes)
    except (RuntimeError, ValueError):
        return 0, 0
    return model.multiplied_parameters(), model.parameter_counts()[0]
