"""`bench tuned` and `bench verify tuning`: recipes are written from the trials of an equal search, and chosen again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.experiment.loading import member_row, resolve, row_files
from bench.experiment.tuned import Trial, Tuned, read_trials, read_tuned, recipes_path
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.sweep import equal_search, recipes
from bench.sweep.settings import Sweep
from bench.system import terminal


def write(path: Path) -> bool:
    """Writes the recipes of an equal search and prints them. Returns True if every row has finished its trials.

    Args:
        path: The file of the search.

    Raises:
        ValueError: the file is no equal search, or no row has finished.
    """
    sweep = Sweep.read(path)
    if not sweep.rows:
        raise ValueError(
            f"{path}: no equal search, because it names no rows; use one such as experiments/tune-demo.yaml"
        )
    for row in sweep.rows:  # the trials of another search must not become recipes
        equal_search.finished_trials(sweep, row, equal_search.trial_experiments(sweep, row))
    tuned = recipes.choose(sweep, path.stem)
    if not tuned.rows:
        raise ValueError(f"{path}: no row has finished its {sweep.trials} trials; run first: bench sweep {path}")
    file = recipes.write_recipes(sweep.preset, tuned)
    columns = [("row", "left"), ("trial", "right"), ("validation BLEU", "right")]
    terminal.table(
        columns, [[row, str(recipe.trial), f"{recipe.validation_bleu:.1f}"] for row, recipe in tuned.rows.items()]
    )
    unfinished = [row for row in sweep.rows if row not in tuned.rows]
    if unfinished:
        terminal.say(f"no recipe, because trials remain: {', '.join(unfinished)}; continue with bench sweep {path}")
    terminal.say(str(file))
    return not unfinished


def show(preset: str | None) -> bool:
    """Prints for every row of a preset whether its recipe comes from an equal search. Returns True if all do.

    Args:
        preset: The preset; None for all whose equal search has begun. The others have no recipes that could be wrong.

    Raises:
        ValueError: the preset has no equal search.
    """
    searches = {path.stem: Sweep.read(path) for path in sorted(EXPERIMENTS.glob("tune-*.yaml"))}
    chosen = {name: sweep for name, sweep in searches.items() if preset in (None, sweep.preset)}
    if not chosen:
        known = ", ".join(sweep.preset for sweep in searches.values())
        raise ValueError(
            f"--preset: {preset} has no equal search in {EXPERIMENTS.name}/tune-*.yaml; there are: {known}"
        )
    results = []
    for name, sweep in chosen.items():
        if preset is None and not read_trials(sweep.preset) and not read_tuned(sweep.preset):
            terminal.say(
                f"preset {sweep.preset}: its equal search {name} has not begun, so it has the settings of the "
                "architectures' files"
            )
        else:
            results.append(_show_search(name, sweep))
    return all(results)


def _show_search(name: str, sweep: Sweep) -> bool:
    """Prints the table of one search. Returns True if every row of its preset has a recipe from it."""
    if equal_search.rows_to_wait_for(sweep):
        terminal.say(
            f"preset {sweep.preset}: no recipe from the equal search {name}, because its space needs the recipes of "
            f"all rows at preset {sweep.around}; finish that search first"
        )
        return False
    every, tuned = read_trials(sweep.preset), read_tuned(sweep.preset)
    of_preset = [row for row, path in row_files().items() if not member_row(path, row)]
    lines, faulty, edges = [], 0, []
    again = recipes.choose(sweep, name)
    for row in dict.fromkeys([*sweep.rows, *of_preset, *(tuned.rows if tuned else ())]):
        trials = [trial for trial in every if trial.row == row]
        faults = _row_faults(sweep, row, trials, tuned, again)
        faulty += bool(faults)
        scores = {trial.number: trial.validation_bleu for trial in trials}
        best = again.rows.get(row)
        numbers = [
            "none" if score is None else f"{score:.1f}" for score in (scores.get(0), best and best.validation_bleu)
        ]
        lines.append(
            [
                row,
                str(len(trials)),
                numbers[0],
                str(best.trial) if best else "none",
                numbers[1],
                f"{recipes.near_best(trials)} of {len(trials)}" if best else "",
                "; ".join(faults) or "equal",
            ]
        )
        if best and not faults:
            edges += [(f"{row}: {edge}", presses) for edge, presses in recipes.at_edge(sweep, trials)]
    columns = [("row", "left"), ("trials", "right"), ("BLEU of the default", "right"), ("best trial", "right")]
    terminal.table([*columns, ("BLEU of the best", "right"), ("near it", "right"), ("", "left")], lines)
    terminal.say(
        f"near it: trials with at least {recipes.NEAR:.0%} of the best BLEU; where they are few, better settings may "
        "have been missed"
    )
    for edge, presses in edges:
        advice = (
            "the three best trials lie at this end, so add trials beyond it for all rows (extensions:)"
            if presses
            else "likely by chance: it counts only if the three best trials lie at this end"
        )
        terminal.say(f"at the edge of the space: {edge}; {advice}")
    corpus = resolve(row_files()[sweep.rows[0]], preset=sweep.preset, row=sweep.rows[0]).corpus_name
    general = _general_faults(tuned, again)
    for fault in general:
        terminal.say(f"{recipes_path(sweep.preset)}: {fault}")
    terminal.say(
        f"preset {sweep.preset}: {len(lines)} rows, {faulty} without a recipe from the equal search {name}: "
        f"{sweep.trials} trials of {again.budget:,} sentence pairs of {corpus} for every row, seed {sweep.seed}; "
        "BLEU of the validation set in percent. Other corpora and directions of the preset use the same recipes."
    )
    return not faulty and not general


def _general_faults(tuned: Tuned | None, again: Tuned) -> list[str]:
    """The differences between the file of recipes and the search that concern all rows."""
    if tuned is None:
        return [f"file not found; run bench sweep experiments/{again.search}.yaml, then bench tuned with that file"]
    return [
        f"{what} is {getattr(tuned, what)}, but {getattr(again, what)} by the search and its trials; write the file "
        f"again with bench tuned experiments/{again.search}.yaml, or restore what was changed"
        for what in ("search", "trials", "budget", "seed", "trials_sha256")
        if getattr(tuned, what) != getattr(again, what)
    ]


def _row_faults(sweep: Sweep, row: str, trials: Sequence[Trial], tuned: Tuned | None, again: Tuned) -> list[str]:
    """Why the recipe of a row does not come from the equal search; empty if it does."""
    if row not in sweep.rows:
        return ["not a row of the search"]
    jobs = equal_search.trial_experiments(sweep, row)
    if faults := equal_search.trial_faults(trials, jobs):
        return faults
    if len(trials) != sweep.trials:
        return [f"{len(trials)} of {sweep.trials} trials"]
    best = again.rows.get(row)
    if best is None:
        return ["every trial diverged"]
    if tuned is None or row not in tuned.rows:
        return ["no recipe"]
    if tuned.rows[row] != best:
        return [f"the recipe is not that of the best trial, {best.trial}"]
    used, (_, job) = resolve(row_files()[row], preset=sweep.preset, row=row), jobs[best.trial]
    training = replace(used.training, max_pairs=job.training.max_pairs)
    if replace(used, seed=job.seed, training=training).job_hash != job.job_hash:
        return ["the preset has other settings than the best trial"]
    return []
