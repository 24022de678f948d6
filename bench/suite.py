"""Many experiments, one table: every row of a suite on every corpus with every seed.

A suite's file names its rows and what they share; its name is the file's stem and the MLflow experiment. What is
finished is skipped, what was interrupted continues, what fails is said and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import terminal
from bench.experiment import Experiment, architectures, choose, read_typed, resolve
from bench.job import Outcome, run
from bench.material import Material
from bench.tracking import Store


@dataclass
class Suite:
    """A table to be made.

    Attributes:
        question: What the table is to answer, in one sentence.
        rows: Row ids, in the order of the table.
        preset: The preset of every row.
        corpora: Corpora, one a direction; empty for the preset's own.
        seeds: Seeds of every row.
        baseline: Row that the others are compared with; the last one if empty.
        settings: Settings of every row, above its own (groups such as training, decoding, text, corpus).
    """

    question: str = ""
    rows: list[str] = field(default_factory=list)
    preset: str = "demo"
    corpora: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    baseline: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Suite:
        """Raises ValueError, one line, for an unknown key, a wrong type or an unknown row."""
        suite = read_typed(path, cls)
        known = list(architectures())
        for row in [*suite.rows, *([suite.baseline] if suite.baseline else [])]:
            choose("row", row, known, path)
        if not suite.rows:
            raise ValueError(f"{path}: rows: names no row; there are: {', '.join(known)}")
        return suite

    def experiments(self, flags: Sequence[str]) -> list[Experiment]:
        """Every job of the suite, a corpus after the other; ensembles come last, behind all of their members."""
        files = architectures()
        layers = [{"corpus": {"name": name}} for name in self.corpora] or [{}]
        rows = [
            resolve(
                files[row],
                preset=self.preset,
                row=row,
                suite=[self.settings, layer, {"seed": seed}],
                flags=flags,
            )
            for layer in layers
            for seed in self.seeds
            for row in self.rows
        ]
        ensembles = [experiment for experiment in rows if experiment.members]
        singles = [experiment for experiment in rows if not experiment.members]
        singles += [member for ensemble in ensembles for member in ensemble.members]
        return [*{single.job: single for single in singles}.values(), *ensembles]


def finished(store: Store, suite: str, experiment: Experiment) -> bool:
    return any(run.status == "FINISHED" for run in store.find(suite, experiment.job)[:1])


def distinct(experiments: Sequence[Experiment]) -> list[Experiment]:
    """One experiment for each different text."""
    found: dict[str, Experiment] = {}
    for experiment in experiments:
        found.setdefault(repr((experiment.corpus, experiment.text, experiment.training.batch_tokens)), experiment)
    return list(found.values())


def unequal(experiments: Sequence[Experiment]) -> list[str]:
    """In what rows of one table differ although they should not: budget, text, decoder. One line each."""
    lines = []
    for group, keys in (
        ("training", ("max_pairs", "max_updates", "max_flops", "max_seconds", "validations", "average")),
        ("text", ("kind", "vocabulary_size", "joint", "max_length")),
        ("decoding", ("beam", "alpha", "extra_length")),
    ):
        for key in keys:
            values: dict[str, list[str]] = {}
            for experiment in experiments:
                rows = values.setdefault(str(getattr(getattr(experiment, group), key)), [])
                if experiment.row not in rows:
                    rows.append(experiment.row)
            if len(values) > 1:
                usual = max(values, key=lambda value: len(values[value]))
                lines += [
                    f"{', '.join(rows)}: {group}.{key} {value}, the others {usual}"
                    for value, rows in values.items()
                    if value != usual
                ]
    return lines


def run_suite(path: Path, suite: Suite, flags: Sequence[str], again: bool) -> list[Outcome]:
    """Runs every job of the suite that is not finished.

    Raises:
        ValueError: a setting is wrong; nothing has been run.
        Interrupted: a signal came; what ran is saved.
    """
    experiments = suite.experiments(flags)
    name = path.stem
    for line in unequal(experiments):
        terminal.say(f"not equal: {line}")
    store = Store(experiments[0].tracking)
    for experiment in distinct([e for e in experiments if again or not finished(store, name, e)]):
        Material.of(experiment)  # text and vocabulary can be made, or there is one line and nothing on the disk
    description = f"{suite.question}\n\nRows: {', '.join(suite.rows)}. Preset: {suite.preset}. Seeds: {suite.seeds}."
    tags = {"mlflow.note.content": description, "question": suite.question}
    parent = store.parent(name, tags | {"rows": ",".join(suite.rows), "baseline": suite.baseline or suite.rows[-1]})
    outcomes = []
    status = "KILLED"
    try:
        for number, experiment in enumerate(experiments, 1):
            terminal.say(f"[{number}/{len(experiments)}] {experiment.name}")
            try:
                outcomes.append(run(experiment, store, name, parent=parent, again=again))
            except Exception as error:  # one row's failure must not cost the others; it is said, tracked and counted
                terminal.say(f"  failed: {type(error).__name__}: {error}")
                outcomes.append(Outcome(experiment, None, [], "failed"))
        status = "FAILED" if any(outcome.run is None for outcome in outcomes) else "FINISHED"
    finally:
        store.end(parent, status)
    return outcomes
