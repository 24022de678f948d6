"""The follower processes of a distributed run: `python -m bench.runs.ddp_follower`, or the command on other nodes."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import restored
from bench.experiment.spec import Experiment
from bench.training.checkpoints import Interrupted, Signals
from bench.training.distributed import Rendezvous, master_address, start_followers
from bench.training.trainer import Curve, Status, train
from bench.training.validation import Score
from models.parts.translator import Translator


def follow(experiment: Experiment, place: Rendezvous) -> None:
    """Trains with process 0, then translates its part of the test sets.

    Raises:
        ValueError: process 0 is not there, or sees a checkpoint that this process does not.
    """
    with experiment.machine.applied(), Signals().installed() as signals:
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data)
        with signals.deferred(), place.join(experiment.machine.device) as group:
            trained = train(
                model,
                job_data.train,
                experiment.training,
                experiment.machine,
                seed=experiment.seed,
                folder=Path(group.broadcast("")),
                signals=signals,
                text=job_data.vocabularies.target.decode,
                score=_not_here,
                flush=_nothing,
                resumed=_nothing,
                report=_nothing,
                group=group,
            )
            model.load_state_dict(trained.weights)
            group.serve_translation(model.to(experiment.machine.device))


def follow_elsewhere(experiment: Experiment, node: int) -> None:
    """All processes of machine `node` (from 1) of a run whose process 0 is on machine 0."""
    machine = experiment.machine
    host, port = master_address()
    first = Rendezvous(node * machine.devices, machine.processes, host, port)
    with start_followers(range(first.rank + 1, first.rank + machine.devices), first, experiment.settings):
        follow(experiment, first)


def _not_here(model: Translator) -> Score:
    raise AssertionError("process 0 validates")


def _nothing(news: Curve | Status) -> None:
    """Process 0 tracks and reports."""


def _end_with_the_leader() -> None:
    """Reads until the standard input is closed: by the leader at its end, by the system if the leader is killed."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a buffer would be locked when the interpreter ends
    os._exit(1)


def main() -> int:
    told = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_leader, daemon=True).start()
    try:
        follow(restored(told["settings"]), Rendezvous(**told["place"]))
    except Interrupted:
        pass
    except ValueError as error:
        print(f"process {told['place']['rank']}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
