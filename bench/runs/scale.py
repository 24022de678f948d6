"""A scaling study: every row at several sizes and budgets, so that curves can be compared instead of points.

The sizes of a row are in the file of its architecture (`rows.ROW.sizes`). The recipe of the row's preset is carried to
other sizes by power laws of the number of parameters, and `rate_checks` try other learning rates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from bench.experiment.fairness import setting_differences
from bench.experiment.loading import resolve, row_files, sizes_of
from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import check_known, read_yaml
from bench.runs.suite import Suite
from bench.tracking import ui_view
from bench.tracking.reading import STUDY_FILE, STUDY_TAG
from bench.tracking.store import Store

RATE = "training.optimizer.lr"

BUDGETS = tuple(f"training.{limit}" for limit in ("max_pairs", "max_updates", "max_flops", "max_seconds"))
"""Settings that end a training. A study sets the first; the others would make budgets equal."""

DIGITS = 4
"""Significant digits of a setting that a rule computes, so that it is the same on every machine."""


@dataclass
class Replicates:
    """Further seeds at the smallest sizes, from which the noise between runs is estimated.

    Attributes:
        sizes: Number of sizes, from the smallest.
        seeds: Further seeds of their budgets.
        most_pairs: The largest of these budgets; None for all.
    """

    sizes: int = 2
    seeds: list[int] = field(default_factory=list)
    most_pairs: int | None = None


@dataclass
class RateCheck:
    """Runs with other learning rates than that of the rule.

    Attributes:
        pairs: Their budget, one of those of the study.
        factors: Learning rate / that of the rule.
        sizes: Row -> size; empty for all rows at their largest size.
    """

    pairs: int
    factors: list[float]
    sizes: dict[str, str] = field(default_factory=dict)

    def size(self, row: str, sizes: Sequence[str]) -> str | None:
        """The size, of those of a row from the smallest, at which the row is checked; None: it is not."""
        return self.sizes.get(row) if self.sizes else sizes[-1]


@dataclass
class Direct:
    """Runs of two rows with the same training FLOPs, to confirm on one side of a crossing which row is ahead there.

    Attributes:
        flops: Training FLOPs of each run.
        sizes: Row -> size, of two rows.
        seeds: Those of both rows; empty for the first of the study.
    """

    flops: float
    sizes: dict[str, str]
    seeds: list[int] = field(default_factory=list)


@dataclass
class Scale(Suite):
    """The rows, sizes and budgets of one study. It is a suite whose rows have several sizes.

    Attributes:
        pairs: Budgets in sentence pairs, ascending. Each has runs of its own, whose schedule ends there: a validation
            in the middle of a schedule is no end point (docs/scaling.md).
        most_pairs: Size -> its largest budget; other sizes have all. A best size is compared at a cost only if its runs
            had the budget that it costs, so small sizes need larger budgets than large ones.
        rules: Setting -> exponent p. At a size with N multiplied parameters it is the value of the preset's recipe x
            (N / N of the preset)^p. A row without such a setting does without it.
        replicates: Further seeds of the smallest sizes.
        rate_checks: Runs with other learning rates. They are no points of curves.
        direct: Pairs of runs that confirm crossings. They are no points of curves.
    """

    command: ClassVar[str] = "scale"

    pairs: list[int] = field(default_factory=list)
    most_pairs: dict[str, int] = field(default_factory=dict)
    rules: dict[str, float] = field(default_factory=dict)
    replicates: Replicates = field(default_factory=Replicates)
    rate_checks: list[RateCheck] = field(default_factory=list)
    direct: list[Direct] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Scale:
        """Reads the file of a study. Raises ValueError for an unknown key, a wrong type, or values that do not fit."""
        study = super().read(path)
        if not study.pairs or study.pairs != sorted(set(study.pairs)) or study.pairs[0] < 1:
            raise ValueError(f"{path}: pairs: {study.pairs}; expected budgets in sentence pairs, ascending")
        if len(study.corpora) != 1:
            raise ValueError(f"{path}: corpora: a study has one corpus, because curves of one plot must share it")
        for key in ("sweeps", "baseline", "more_seeds"):
            if getattr(study, key):
                raise ValueError(f"{path}: {key}: has no effect in a scaling study; remove it")
        if study.rate_checks and RATE not in study.rules:
            raise ValueError(
                f"{path}: rate_checks: check a rule for {RATE}, but rules: has none; add it, or remove the key"
            )
        for check in study.rate_checks:
            for row in check.sizes:
                check_known("row", row, study.rows, path)
        for row in study.rows:
            study._check_budgets(path, row, list(sizes_of(row_files()[row], row)))
        for direct in study.direct:
            study._check_direct(path, direct)
        for key in (*BUDGETS, *study.rules):
            if key in flatten(study.settings):
                raise ValueError(f"{path}: settings: {key}: has no effect, because the study sets it; remove it")
        return study

    def _check_budgets(self, path: Path, row: str, sizes: Sequence[str]) -> None:
        """Raises ValueError if a budget is none of the study's, or a size is none of the row's."""
        for size in self.most_pairs:
            check_known(f"size of {row}", size, list(sizes), path)
        named = {f"most_pairs: {size}": pairs for size, pairs in self.most_pairs.items()}
        if self.replicates.most_pairs is not None:
            named["replicates: most_pairs"] = self.replicates.most_pairs
        named |= {f"rate_checks: pairs: {check.pairs}": check.pairs for check in self.rate_checks}
        for key, pairs in named.items():
            if pairs not in self.pairs:
                raise ValueError(
                    f"{path}: {key}: {pairs} is no budget of the study; expected one of "
                    f"{', '.join(map(str, self.pairs))}"
                )
        for check in self.rate_checks:
            if (size := check.size(row, sizes)) is None:
                continue
            check_known(f"size of {row}", size, list(sizes), path)
            if check.pairs > (most := self.most_pairs.get(size, self.pairs[-1])):
                raise ValueError(
                    f"{path}: rate_checks: pairs: {check.pairs} is more than the largest budget of {row} {size}, "
                    f"{most}; lower it, or raise most_pairs: {size}"
                )

    def _check_direct(self, path: Path, direct: Direct) -> None:
        """Raises ValueError if a direct pair is not of two rows of the study at sizes of theirs."""
        for row, size in direct.sizes.items():
            check_known("row", row, self.rows, path)
            check_known(f"size of {row}", size, list(sizes_of(row_files()[row], row)), path)
        if len(direct.sizes) != 2 or direct.flops <= 0:
            raise ValueError(
                f"{path}: direct: expected the training FLOPs, above 0, and the sizes of two rows, such as "
                "{flops: 1e12, sizes: {lstm: S, bahdanau: S}}"
            )

    def experiments(
        self, flags: Sequence[str], best: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Experiment]:
        """All jobs, budget by budget, so that a study that is stopped has the whole curve of small budgets.

        Raises:
            ValueError: a setting is invalid, a row has no sizes, or a flag would give all jobs the same size or budget.
        """
        given = {flag.partition("=")[0].removeprefix("--") for flag in flags}
        for key in sorted(given & {"seed", "about.size", *BUDGETS, *self.rules, *self._settings_of_sizes()}):
            raise ValueError(
                f"--{key}: would be the same for all jobs, but the study sets it for each; remove the flag"
            )
        for key in sorted(self._settings_of_sizes() & flatten(self.settings).keys()):
            raise ValueError(f"settings: {key}: has no effect, because the sizes of the rows set it; remove it")
        ladders = {row: self._ladder(row, flags) for row in self.rows}
        for ladder in ladders.values():
            self._check(ladder[0])
        smoothings = {row: ladder[0].training.label_smoothing for row, ladder in ladders.items()}
        if len(set(smoothings.values())) > 1:
            shown = ", ".join(f"{row} {smoothing:g}" for row, smoothing in smoothings.items())
            raise ValueError(
                f"settings: training.label_smoothing: rows differ ({shown}), but the excess loss compares rows "
                "with equal smoothing only; set it for all rows"
            )
        found: list[Experiment] = []
        for pairs in self.pairs:
            for ladder in ladders.values():
                for number, size in enumerate(ladder):
                    if pairs > self.most_pairs.get(size.about.size, pairs):
                        continue
                    again = number < self.replicates.sizes and pairs <= (self.replicates.most_pairs or pairs)
                    more = self.replicates.seeds if again else []
                    found += [_job(size, pairs, seed) for seed in dict.fromkeys([*self.seeds, *more])]
                for check in self.rate_checks:
                    if check.pairs == pairs:
                        found += self._checking_jobs(check, ladder)
        found += [job for direct in self.direct for job in self._direct_jobs(direct, ladders)]
        return list({job.job_hash: job for job in found}.values())

    def _checking_jobs(self, check: RateCheck, ladder: Sequence[Experiment]) -> list[Experiment]:
        """The jobs that check the learning rate of one row."""
        checked = check.size(ladder[0].row, [size.about.size for size in ladder])
        sizes = [size for size in ladder if size.about.size == checked]
        return [_job(size, check.pairs, self.seeds[0], factor) for size in sizes for factor in check.factors]

    def _direct_jobs(self, direct: Direct, ladders: Mapping[str, Sequence[Experiment]]) -> list[Experiment]:
        """The jobs of a direct pair: those of the row that is first in the study, then those of the other."""
        sizes = [next(of for of in ladders[row] if of.about.size == direct.sizes[row]) for row in direct.sizes]
        return [
            replace(size, training=replace(size.training, max_pairs=None, max_flops=direct.flops), seed=seed)
            for size in sorted(sizes, key=lambda size: self.rows.index(size.row))
            for seed in direct.seeds or self.seeds[:1]
        ]

    def describe(self, experiments: Sequence[Experiment], parent: str, store: Store) -> None:
        """Writes the file and the tag of a study: its rules, its sizes, and the job hash of every run."""
        sizes: dict[str, dict[str, Any]] = {row: {} for row in self.rows}
        rates: dict[tuple[str, str], float] = {}
        jobs: list[dict[str, Any]] = []
        compared: dict[tuple[str, str, float], list[dict[str, Any]]] = {}  # of direct pairs, by row, size and FLOPs
        for job in experiments:  # the first job of a size has the learning rate of the rule
            rate, size = job.training.optimizer.lr, job.about.size
            rule = rates.setdefault((job.row, size), rate)
            sizes[job.row].setdefault(size, {"model": sizes_of(row_files()[job.row], job.row)[size], "rate": rule})
            factor = float(f"{rate / rule:.3g}")
            key = {"row": job.row, "size": size, "pairs": job.training.max_pairs, "seed": job.seed, "factor": factor}
            key["job_hash"] = job.job_hash
            if flops := job.training.max_flops:
                compared.setdefault((job.row, size, flops), []).append(key)
            else:
                jobs.append(key)
        pairs = [
            {
                "flops": one.flops,
                "runs": [
                    run
                    for row in self.rows
                    if row in one.sizes
                    for run in compared[row, one.sizes[row], one.flops]
                    if run["seed"] in (one.seeds or self.seeds[:1])
                ],
            }
            for one in self.direct
        ]
        content = {"rules": self.rules, "sizes": sizes, "jobs": jobs, "direct": pairs}
        store.describe_parent(parent, {STUDY_TAG: "true"}, json.dumps(content), STUDY_FILE)

    def view(self, scores: Sequence[str], experiment: str, parent: str) -> tuple[str, str]:
        """The runs by their loss: curves are compared by it, and BLEU is 0 for the smallest budgets."""
        return ui_view.study_view(scores[0]), ui_view.study_description(self.question, experiment, parent)

    def differences(self, experiments: Sequence[Experiment]) -> list[str]:
        """The shared settings in which rows differ at one budget."""
        of_budget = ([job for job in experiments if job.training.max_pairs == pairs] for pairs in self.pairs)
        return list(dict.fromkeys(line for jobs in of_budget for line in setting_differences(jobs)))

    def _settings_of_sizes(self) -> set[str]:
        """The settings of models that the sizes of the rows set."""
        sizes = (size for row in self.rows for size in sizes_of(row_files()[row], row).values())
        return {key for size in sizes for key in flatten({"model": size})}

    def _check(self, experiment: Experiment) -> None:
        """Raises ValueError if runs would not end with their schedule, or would see sentences twice."""
        schedule, corpus = experiment.training.schedule, experiment.corpus
        if not schedule.in_shares:
            raise ValueError(
                f"settings: training.schedule: {experiment.row} has the decay {schedule.decay}, which does not end "
                "with the budget, so its losses are no end points; set it to {warmup: 0, hold: 0, decay: linear}"
            )
        if experiment.corpus_name.startswith("grammar") and corpus.pairs < self.pairs[-1]:
            raise ValueError(
                f"settings: corpus.pairs: {corpus.pairs} is less than the largest budget, {self.pairs[-1]}, so "
                "sentences would repeat, and the law of loss does not hold then; set it to that or more"
            )

    def _ladder(self, row: str, flags: Sequence[str]) -> list[Experiment]:
        """The row at each of its sizes, from the smallest, with the recipe that the rules carry there."""
        path = row_files()[row]
        recipe = self._resolve(row, {}, flags)
        values, base = flatten(recipe.settings), multiplied_parameters(recipe)
        ladder: list[Experiment] = []
        counts: list[int] = []
        for name, model in sizes_of(path, row).items():
            layer = {"model": model, "about": {"size": name}}
            counts.append(multiplied_parameters(self._resolve(row, layer, flags)))
            ruled = {
                key: _rounded(values[key] * (counts[-1] / base) ** power)
                for key, power in self.rules.items()
                if values.get(key) is not None
            }
            ladder.append(self._resolve(row, {**layer, **ruled}, flags))
        if counts != sorted(set(counts)):
            shown = ", ".join(f"{count:,}" for count in counts)
            raise ValueError(f"{path}: rows.{row}.sizes: {shown} multiplied parameters; expected them ascending")
        return ladder

    def _resolve(self, row: str, layer: Mapping[str, Any], flags: Sequence[str]) -> Experiment:
        suite = [self.settings, {"corpus": {"name": self.corpora[0]}}, layer]
        return resolve(row_files()[row], preset=self.preset, row=row, suite=suite, flags=flags)


def is_study(path: Path) -> bool:
    """Whether a file has keys that a study has and a suite has not. Raises ValueError if it is no YAML file."""
    study, suite = ({each.name for each in fields(kind)} for kind in (Scale, Suite))
    return bool((study - suite) & read_yaml(path).keys())


def _job(size: Experiment, pairs: int, seed: int, factor: float = 1.0) -> Experiment:
    """One job of a row at one size. `factor`: learning rate / that of the rule."""
    training = replace(size.training, max_pairs=pairs)
    if factor != 1:
        optimizer = training.optimizer
        training = replace(training, optimizer=replace(optimizer, lr=_rounded(optimizer.lr * factor)))
    return replace(size, training=training, seed=seed)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def multiplied_parameters(experiment: Experiment) -> int:
    """The size of the experiment's model at the vocabularies that its text asks for; no weights are drawn."""
    with torch.device("meta"):
        return experiment.build(*experiment.text.sizes).multiplied_parameters()
