"""The study of one row in an equal search: its points are planned, and its finished trials are kept in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import TrialState

from bench.experiment import search_space
from bench.experiment.spec import Experiment
from bench.experiment.tuned import COMPLETE, DIVERGED, Trial, write_trials
from bench.runs.job import NOT_A_NUMBER
from bench.sweep import equal_search
from bench.sweep.pareto_front import LOSS
from bench.sweep.settings import Sweep
from bench.sweep.study import Study


class EqualStudy(Study):
    """A study whose trials are the points of an equal search (equal_search.py), in their order; none is pruned.

    Attributes:
        planned: The points and jobs, in order.
    """

    may_draw_again = False  # a planned point is never replaced by a drawn one

    def __init__(self, sweep: Sweep, row: str, preset: str, flags: Sequence[str]) -> None:
        super().__init__(sweep, row, preset, flags)
        # A job that failed in an earlier command, such as with a full disk, is tried again: no row may lack a trial.
        self.failures_since = datetime.now()
        if self.selection.score != "bleu":
            raise ValueError(
                f"{row}: an equal search chooses recipes by validation BLEU, but here the weights are selected by "
                f"{self.selection.reason}; search on a corpus with longer targets"
            )

    def first_experiment(self, preset: str, row: str) -> Experiment:
        """The job of the common default. The preset is that of the search."""
        self.planned = equal_search.trial_experiments(self.sweep, row, self.flags)
        self.planned_hashes = [experiment.job_hash for _, experiment in self.planned]
        return self.planned[0][1]

    @property
    def prunes(self) -> bool:
        return False  # every trial has the same budget

    def experiment(self, values: Mapping[str, Any]) -> Experiment:
        return search_space.with_values(self.base, values)

    def read_space(self) -> search_space.Space:
        ranges = equal_search.space(self.sweep)
        return {key: ranges[key] for key in self.planned[0][0]}

    def first_values(self) -> dict[str, Any]:
        return dict(self.planned[0][0])

    def before_new_trial(self) -> None:
        """Enqueues the next planned point, unless an interrupted job waits."""
        planned = [number for number, job_hash in enumerate(self.planned_hashes) if job_hash not in self.jobs]
        if planned and not self.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.optuna_study.enqueue_trial(dict(self.planned[planned[0]][0]))

    def is_wanted(self, job_hash: str) -> bool:
        """Only planned points. Another driver may take the enqueued one, and then the sampler draws one nobody planned.

        The storage may also have jobs of an earlier version of the search's file.
        """
        return job_hash in self.planned_hashes

    def save_finished(self) -> None:
        """Adds the finished trials to the preset's file, so that a kill loses none."""
        write_trials(self.base.preset, self.finished_trials())

    def add_first_trials(self) -> None:
        """Adds the trials of the preset's file that have not ended in the storage, or failed there for another reason.

        Raises:
            ValueError: a trial of the file is of another search.
        """
        distributions = {key: equal_search.distribution(span) for key, span in self.space.items()}
        for trial in equal_search.finished_trials(self.sweep, self.base.row, self.planned):
            known = self.jobs.get(trial.job_hash)
            if known and (known.state == "COMPLETE" or (known.state == "FAILED" and trial.state == DIVERGED)):
                continue
            attributes = {"job_hash": trial.job_hash, "attempt": 1, "pairs": trial.pairs, "commit": trial.commit}
            if trial.state == COMPLETE:
                values = {"validation_bleu": trial.validation_bleu, LOSS: trial.validation_loss}
                attributes |= {"reason": "", "values": values}
            else:
                attributes |= {"reason": f"failed: {NOT_A_NUMBER}", "failed": True}
            self.optuna_study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.COMPLETE if trial.state == COMPLETE else TrialState.FAIL,
                    value=trial.validation_bleu,
                    params=dict(trial.settings),
                    distributions=distributions,
                    user_attrs=attributes,
                )
            )
        self.refresh()

    def finished_trials(self) -> list[Trial]:
        """The trials that count as finished on every machine: those that are complete, and those that diverged.

        A job that failed for another reason, such as too little memory, may succeed on another machine.
        """
        found = []
        for number, (point, experiment) in enumerate(self.planned):
            job = self.jobs.get(self.planned_hashes[number])
            for attempt in job.attempts if job else ():
                complete = attempt.state == TrialState.COMPLETE
                if complete or attempt.user_attrs["reason"].startswith(f"failed: {NOT_A_NUMBER}"):
                    found.append(
                        Trial(
                            self.base.row,
                            number,
                            COMPLETE if complete else DIVERGED,
                            attempt.value if complete else None,
                            attempt.user_attrs["values"][LOSS] if complete else None,
                            round(attempt.user_attrs["pairs"] or 0),
                            experiment.seed,
                            self.planned_hashes[number],
                            attempt.user_attrs.get("commit", ""),
                            point,
                        )
                    )
                    break
        return found
