"""The file of a suite: every row of one table, on every corpus, with every seed.

The stem of the file is the name of the suite and of its MLflow experiment. `run_suite` runs its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from bench.experiment.fairness import setting_differences
from bench.experiment.loading import member_row, read_typed, resolve, row_files
from bench.experiment.spec import Experiment, flatten
from bench.experiment.yaml_layers import check_known
from bench.tracking import ui_view
from bench.tracking.store import Store


@dataclass
class Suite:
    """The rows of one table.

    Attributes:
        question: The question that the table answers, in one sentence.
        rows: Row ids, in the order of the table.
        preset: The preset of every row.
        corpora: Names of corpora; every row is trained on each. Empty for the corpus of the preset.
        seeds: Seeds of every row.
        more_seeds: Row -> further seeds of this row.
        baseline: Id of the row that the others are compared with; the last row if empty.
        settings: Settings of every row, which override its own (groups such as training, decoding, text, corpus).
        sweeps: Row -> name of the sweep whose best settings it takes. They override the settings of the row, and
            `settings` overrides them.
        results: Folder of the runs that other machines have finished, relative to the folder of the file; they are not
            run again (docs/mlflow.md). Empty for none.
    """

    command: ClassVar[str] = "suite"
    """The command of `bench` that runs the file."""

    question: str = ""
    rows: list[str] = field(default_factory=list)
    preset: str = "demo"
    corpora: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    more_seeds: dict[str, list[int]] = field(default_factory=dict)
    baseline: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    results: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a suite's file. Raises ValueError for an unknown key, a wrong type or an unknown row."""
        suite = read_typed(path, cls)
        files = row_files()
        known = list(files)
        for row in [*suite.rows, *([suite.baseline] if suite.baseline else []), *suite.sweeps]:
            check_known("row", row, known, path)
        if not suite.rows:
            raise ValueError(f"{path}: rows: the list is empty; name at least one of: {', '.join(known)}")
        if suite.results and suite.sweeps:
            raise ValueError(
                f"{path}: results: cannot be combined with sweeps, whose best settings are in the store of one "
                "machine; write them under settings:, or remove one of the keys"
            )
        members = {member_row(files[row], row) for row in suite.rows}
        for row in suite.sweeps:
            if row not in members | set(suite.rows):
                raise ValueError(
                    f"{path}: sweeps: {row}: has no effect, because the suite trains no row {row}; add it to rows:, or "
                    "remove it"
                )
        for row in suite.more_seeds:
            check_known("row", row, suite.rows, path)
        for key, own in (("seed", "seeds"), ("corpus.name", "corpora")):
            if key in flatten(suite.settings) and getattr(suite, own):
                raise ValueError(
                    f"{path}: settings: {key}: has no effect, because {own} ({getattr(suite, own)}) overrides it; "
                    f"write the value under {own}: instead"
                )
        if not suite.seeds:
            raise ValueError(
                f"{path}: seeds: the list is empty; name at least one seed, or leave the key out for seed 1"
            )
        return suite

    def experiments(
        self, flags: Sequence[str], best: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Experiment]:
        """All jobs of the suite, corpus by corpus. Each ensemble comes right after its members.

        So it is evaluated before they are exported, because an export has no weights.

        Args:
            best: Row -> best settings, found by its sweep. An ensemble takes those of its members.

        Raises:
            ValueError: a setting is invalid, or --seed would give all jobs the same seed.
        """
        if "--seed" in {flag.partition("=")[0] for flag in flags}:
            raise ValueError(f"--seed: a suite trains each row with the seeds {self.seeds}; set others with --seeds")
        files, best = row_files(), best or {}
        layers = [{"corpus": {"name": name}} for name in self.corpora] or [{}]
        seeds_of = {row: dict.fromkeys([*self.seeds, *self.more_seeds.get(row, [])]) for row in self.rows}
        jobs: list[Experiment] = []
        for layer in layers:
            resolved = {
                row: resolve(
                    files[row],
                    preset=self.preset,
                    row=row,
                    suite=[
                        best.get(row) or best.get(member_row(files[row], row)) or {},
                        self.settings,
                        layer,
                        {"seed": min(seeds)},  # the smallest one is checked, and the others are set below
                    ],
                    flags=flags,
                )
                for row, seeds in seeds_of.items()
            }
            for seed in dict.fromkeys(seed for seeds in seeds_of.values() for seed in seeds):
                for row in self.rows:
                    if seed in seeds_of[row]:
                        job = replace(resolved[row], seed=seed)
                        jobs += [*job.members, job]
        return list({job.job_hash: job for job in jobs}.values())

    def describe(self, experiments: Sequence[Experiment], parent: str, store: Store) -> None:
        """Writes to the run of the suite what its report needs besides the description of the table."""

    def view(self, scores: Sequence[str], experiment: str, parent: str) -> tuple[str, str]:
        """The view of the jobs in the MLflow UI, and the description of their experiment."""
        return ui_view.suite_view(scores), ui_view.suite_description(self.question, experiment, parent)

    def differences(self, experiments: Sequence[Experiment]) -> list[str]:
        """The settings that all rows should share and do not, one line each."""
        return setting_differences(experiments)
