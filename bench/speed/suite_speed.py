"""`bench speed decode --suite FILE`: the times of translation of every row of a suite, for its report.

They are measured one after another on this machine, so that the rows can be compared, and kept among the results of
the suite (bench/tracking/speeds.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.data.encoded_pairs import truncate
from bench.experiment.job_data import JobData, model_of
from bench.experiment.spec import Experiment
from bench.measures import latency
from bench.measures.measure import Measure
from bench.runs.results import Results
from bench.runs.suite import Suite
from bench.system import formatting, terminal
from bench.system.facts import COMMIT, environment_tags
from bench.system.visible_text import visible_line
from bench.tracking.speeds import TOGETHER, RowSpeed, Speeds

TIMES = ("latency_", "sentences_per_s", "tokens_per_s")
"""How the names of the measures begin that are kept."""

COLUMNS = (("latency_p50_ms", "latency p50 (ms)"), ("latency_p95_ms", "p95 (ms)"), ("sentences_per_s", "sentences/s"))


def run(path: Path, flags: Sequence[str], seconds: float, note: Callable[[str], None]) -> bool:
    """Measures every row of a suite on each of its corpora; ensembles, too. Returns False if a row failed.

    The file is written only if all rows were measured: times of two machines in one table would not be comparable.

    Args:
        path: The file of the suite, which names a folder of results.
        flags: Settings from the command line.
        seconds: For each row and corpus.
        note: Prints progress.

    Raises:
        ValueError: a setting is invalid, or the suite names no results.
    """
    suite = Suite.read(path)
    results = Results.of(path, suite.results)
    if results is None:
        raise ValueError(
            f"{path}: results: is not set, so there is no folder for the times of its rows; name one, such as "
            f"results: ../reports/results/{path.stem}/runs"
        )
    # With members of ensembles: their row is in the report, too, even if the suite does not name it.
    seeds: dict[tuple[str, str], list[Experiment]] = {}
    for experiment in suite.experiments(flags):
        seeds.setdefault((experiment.row, experiment.corpus_name), []).append(experiment)
    found: list[RowSpeed] = []
    machine: dict[str, str] = {}
    for number, ((row, corpus), experiments) in enumerate(seeds.items(), start=1):
        note(f"[{number}/{len(seeds)}] decode {row} {corpus}")
        try:
            measures, machine = _measured(experiments[0], seconds)
            found.append(RowSpeed(row, corpus, [each.job_hash for each in experiments], measures))
        except RuntimeError as error:  # out of memory, and CUDA's errors; an invalid setting would be that of all rows
            note(visible_line(f"{row}: {' '.join(str(error).split())}"))
    speeds = Speeds(path.stem, machine, found)
    _print_table(speeds)
    if len(found) < len(seeds):
        terminal.say(f"{len(seeds) - len(found)} of {len(seeds)} rows were not measured, so nothing was written")
        return False
    terminal.say(f"{speeds.where}; reports of these results have these times now: {speeds.write(results.folder)}")
    return True


def _measured(experiment: Experiment, seconds: float) -> tuple[list[Measure], dict[str, str]]:
    """The times of a row with initial weights, and the machine."""
    device = experiment.machine.device
    with experiment.machine.applied():
        job_data = JobData.of(experiment)
        model = model_of(experiment, job_data).to(device).eval()
        test = next(iter(job_data.corpus.tests.values()))
        targets, _ = truncate(job_data.vocabularies.target.encode(test.targets), job_data.max_length)
        measures = latency.measure(
            model,
            job_data.sources(test),
            targets,
            experiment.decoding,
            seconds,
            free_running=False,
            cuda_graphs=experiment.machine.cuda_graphs,
        )
        machine = environment_tags(device)
    return [
        replace(measure, provenance=f"{TOGETHER}, commit {machine[COMMIT][:8]}; {measure.provenance}")
        for measure in measures
        if measure.metric.startswith(TIMES)
    ], machine


def _print_table(speeds: Speeds) -> None:
    lines = []
    for row in speeds.rows:
        of = {measure.metric: measure for measure in row.measures}
        values = [of[name].value for name, _ in COLUMNS]
        numbers = ["—" if value is None else formatting.significant(value) for value in values]
        noise = "NOISY" if any(measure.noisy for measure in row.measures) else "quiet"
        lines.append([row.row, row.corpus, *numbers, noise])
    headings = [(heading, "right") for _, heading in COLUMNS]
    terminal.table([("row", "left"), ("corpus", "left"), *headings, ("noise", "left")], lines)
