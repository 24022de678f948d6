"""The follower processes of a distributed run: `python -m bench.runs.ddp_follower`, or the command on other nodes."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import experiment_from_settings
from bench.experiment.spec import Experiment
from bench.system import streams
from bench.training.checkpoints import Interrupted, Signals
from bench.training.distributed import Rendezvous, master_address, start_followers
from bench.training.trainer import TrainingHooks, train


def follow(experiment: Experiment, rendezvous: Rendezvous) -> None:
    """Train together with process 0, then translate a share of the test sets for it.

    Raises:
        ValueError: process 0 does not answer, or it sees a checkpoint that this process does not see.
    """
    with experiment.machine.applied(), Signals().installed() as signals:
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data)
        with signals.deferred(), rendezvous.join(experiment.machine.device) as group:
            result = train(
                model,
                job_data.train,
                experiment.training,
                experiment.machine,
                TrainingHooks(job_data.vocabularies.target.decode),
                seed=experiment.seed,
                folder=Path(group.broadcast("")),
                signals=signals,
                group=group,
            )
            model.load_state_dict(result.weights)
            group.serve_translation(model.to(experiment.machine.device))


def follow_elsewhere(experiment: Experiment, node: int) -> None:
    """Run all processes of machine `node` (from 1) of a run whose process 0 is on machine 0."""
    machine = experiment.machine
    host, port = master_address()
    rendezvous = Rendezvous(node * machine.devices, machine.processes, host, port)
    other_ranks = range(rendezvous.rank + 1, rendezvous.rank + machine.devices)
    with start_followers(other_ranks, rendezvous, experiment.settings):
        follow(experiment, rendezvous)


def _exit_with_leader() -> None:
    """Wait until standard input is closed, then exit. The leader closes it at its end; if it is killed, the system."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a buffer would be locked when the interpreter ends
    os._exit(1)


def main() -> int:
    streams.prepare()
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_with_leader, daemon=True).start()
    try:
        with streams.lasting_output():  # the output of process 0, whose reader may end while the run goes on
            follow(experiment_from_settings(request["settings"]), Rendezvous(**request["rendezvous"]))
    except Interrupted:
        pass
    except ValueError as error:
        print(f"process {request['rendezvous']['rank']}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
