"""Equal searches: all rows of a preset try the same points with the same budget, and a recipe is the best of them.

A file such as experiments/tune-demo.yaml names the rows, the settings that all share, and one space. Trial 0 is a
common default; Optuna's sampler draws the other points once, for all rows, before any trial. Finished trials are in
experiments/tuned/<preset>-trials.csv (bench/experiment/tuned.py); recipes.py chooses from them.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from bench.experiment import search_space
from bench.experiment.loading import resolve, row_files
from bench.experiment.search_space import Range, Space
from bench.experiment.spec import RESULT_SETTINGS, Experiment
from bench.experiment.tuned import (
    COMPLETE,
    Trial,
    read_trials,
    read_tuned,
    recipes_path,
    trials_path,
)
from bench.experiment.yaml_layers import check_known, merge, nested_settings
from bench.sweep.settings import Sweep

Point = Mapping[str, Any]
"""Key of a setting -> its value in a trial."""

DIGITS = 3
"""Significant digits of a drawn value, so that it is the same on every machine and short in a file."""


# --- space and points -------------------------------------------------------------------------------------------------


def check_arguments(sweep: Sweep, path: Path, rows: Sequence[str], preset: str | None, trials: int | None) -> None:
    """Checks the flags of `bench sweep` against the file of an equal search.

    Raises:
        ValueError: a flag would make the search unequal.
    """
    for flag, value in (("preset", preset), ("trials", trials)):
        if value is not None and value != getattr(sweep, flag):
            raise ValueError(
                f"--{flag} {value}: {path} is an equal search, whose {flag} is {getattr(sweep, flag)} for every row; "
                "remove the flag, or change the file"
            )
    for row in rows:
        check_known("row", row, sweep.rows, path)


def space(sweep: Sweep) -> Space:
    """The space that all rows share: of every setting, the range from the lowest to the highest value it may have.

    Raises:
        ValueError: a range is invalid, or `around` names a preset that not all rows have a recipe of.
    """
    first, *others = [_first_space(sweep), *_extended_spaces(sweep)]
    found = {}
    for key, span in first.items():
        ends = [_ends(ranges[key]) for ranges in (first, *others)]
        found[key] = replace(span, low=min(low for low, _ in ends), high=max(high for _, high in ends))
    return found


def _extended_spaces(sweep: Sweep) -> list[Space]:
    """The space of each extension: its own ranges, and for other settings those of the search before it."""
    ranges = _first_space(sweep)
    return [{**ranges, **_numeric_ranges(sweep, extension.space)} for extension in sweep.extensions]


def _numeric_ranges(sweep: Sweep, entries: Mapping[str, Any]) -> Space:
    """The ranges of a space or an extension.

    Raises:
        ValueError: a range has no lowest and highest value, a condition, or in an extension another scale than in
            the space, so that one study could not hold all trials.
    """
    file = Path(f"tune-{sweep.preset}.yaml")
    ranges, whole = (search_space.parse_ranges(each, file) for each in (entries, sweep.space))
    for key, span in ranges.items():
        if span.choices or span.when:
            raise ValueError(
                f"{file}: space: {key}: an equal search draws numbers, without a condition; give low and high, and "
                "remove choices and when"
            )
        if (span.log, span.step) != (whole[key].log, whole[key].step):
            raise ValueError(f"{file}: extensions: {key}: log or step differs from that of space; set the same")
    return ranges


def _first_space(sweep: Sweep) -> Space:
    """The space without extensions.

    With `around`, each range reaches from the lowest to the highest value of that preset's recipes, and beyond them by
    a factor of two (logarithmic) or a quarter of the range in the file, but not below 0.
    """
    ranges = _numeric_ranges(sweep, sweep.space)
    if not sweep.around:
        return ranges
    narrowed = {}
    for key, span in ranges.items():
        values = _recipe_values(sweep, key)
        lowest, highest = _ends(span)
        beyond = (highest - lowest) / 4
        low, high = (
            (min(values) / 2, max(values) * 2) if span.log else (max(0.0, min(values) - beyond), max(values) + beyond)
        )
        narrowed[key] = (
            replace(span, low=math.floor(low), high=math.ceil(high))
            if span.is_integer
            else replace(span, low=_rounded(low), high=_rounded(high))
        )
    return narrowed


def _ends(span: Range) -> tuple[float | int, float | int]:
    assert span.low is not None
    assert span.high is not None
    return span.low, span.high


def first_point(sweep: Sweep) -> Point:
    """The common default. With `around`, the median of each setting over that preset's recipes."""
    if not sweep.around:
        return {key: sweep.first[key] for key in sweep.space}
    return {key: statistics.median_low(_recipe_values(sweep, key)) for key in sweep.space}


def _recipe_values(sweep: Sweep, key: str) -> list[float]:
    """The values of a setting in the recipes of the preset `around`."""
    recipes = read_tuned(sweep.around)
    if missing := rows_to_wait_for(sweep):
        raise ValueError(
            f"around: {sweep.around}: {recipes_path(sweep.around)} has no recipe of {', '.join(missing)}; finish that "
            f"search first, then run: bench tuned experiments/tune-{sweep.around}.yaml"
        )
    assert recipes
    layers = (recipes.rows[row].settings for row in sweep.rows)
    values = [value for layer in layers if (value := _value(layer, key)) is not None]
    if not values:
        raise ValueError(
            f"around: {sweep.around}: no recipe in {recipes_path(sweep.around)} has {key}; remove it from space, or "
            "remove around"
        )
    return values


def rows_to_wait_for(sweep: Sweep) -> list[str]:
    """The rows without the recipe at the preset `around` that the space depends on; empty without `around`."""
    recipes = read_tuned(sweep.around) if sweep.around else None
    return [row for row in sweep.rows if sweep.around and (recipes is None or row not in recipes.rows)]


def _value(layer: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        layer = layer.get(name, {})
    return None if layer == {} else layer


def points(sweep: Sweep) -> list[Point]:
    """The points that all rows try, in order: the common default, those of the sampler, and those of each extension.

    Raises:
        ValueError: the default is outside the space.
    """
    ranges, first = _first_space(sweep), first_point(sweep)
    for key, span in ranges.items():
        if not span.contains(first[key]):
            raise ValueError(
                f"first: {key}: {first[key]} is not in the space of tune-{sweep.preset}.yaml; change it, or widen the "
                "range"
            )
    # 0 and 0.0 are the same value, but two job hashes; Optuna returns the second.
    first = {key: value if ranges[key].is_integer else float(value) for key, value in first.items()}
    found = [first, *_drawn(sweep, ranges, first, sweep.trials - sweep.extended_trials - 1, sweep.seed)]
    for number, (extension, extended) in enumerate(zip(sweep.extensions, _extended_spaces(sweep), strict=True), 1):
        lowest = {key: span.low for key, span in extended.items()}
        # Of another seed, so that the settings that keep their range get other values than in the trials before.
        found += _drawn(sweep, extended, lowest, extension.trials, sweep.seed + number)
    return found


def _drawn(sweep: Sweep, ranges: Space, known: Point, number: int, seed: int) -> list[Point]:
    """Points of the sampler.

    They are drawn in a study of their own, in which a trial is complete: a quasi-random sampler takes its space from
    the first trial and draws at random until there is one, so points drawn while jobs run would depend on their order.

    Args:
        known: The point of that trial.
        number: How many points are drawn.
        seed: Of the sampler.
    """
    chosen = {key: distribution(span) for key, span in ranges.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = sweep.sampler.create(optuna.samplers, "sampler", seed=seed)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        study.add_trial(optuna.trial.create_trial(params=dict(known), distributions=chosen, value=0.0))
        drawn = [study.ask(chosen).params for _ in range(number)]
    return [{key: point[key] if ranges[key].is_integer else _rounded(point[key]) for key in ranges} for point in drawn]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def distribution(span: Range) -> BaseDistribution:
    """The range as Optuna's distribution."""
    low, high = _ends(span)
    if span.is_integer:
        return IntDistribution(int(low), int(high), log=span.log, step=int(span.step or 1))
    return FloatDistribution(low, high, log=span.log, step=span.step)


# --- the trials of a row ----------------------------------------------------------------------------------------------


def recipe_settings(sweep: Sweep, point: Point) -> dict[str, Any]:
    """The layer of settings of a trial: those that all rows share, and the values of its point."""
    return merge(sweep.settings, nested_settings(point))


def trial_experiments(sweep: Sweep, row: str, flags: Sequence[str] = ()) -> list[tuple[Point, Experiment]]:
    """Every trial of a row: its point, without the settings that the architecture does not have, and its job.

    Args:
        flags: Settings of machine, tracking and paths.

    Raises:
        ValueError: a setting is invalid, or a flag changes the job.
    """

    def base(flags: Sequence[str]) -> Experiment:
        budget = {"training": {"max_pairs": sweep.trial_pairs}} if sweep.trial_pairs else {}
        layers = [sweep.settings, budget, {"seed": sweep.seed}]
        return resolve(row_files()[row], preset=sweep.preset, row=row, suite=layers, flags=flags, tuned=False)

    experiment = base(flags)
    if experiment.training.max_pairs is None:
        raise ValueError(f"trial_pairs: the preset {sweep.preset} has no budget in sentence pairs; set trial_pairs")
    changed = [flag for flag in flags if flag.removeprefix("--").startswith((*RESULT_SETTINGS, "seed"))]
    if changed and experiment.job_hash != base([]).job_hash:
        raise ValueError(
            f"{changed[0]}: the trials of an equal search have the settings of its file; remove the flag, or set the "
            "value under settings: for all rows"
        )
    present = {key for key in sweep.space if _has_setting(experiment, key)}
    for key in (key for key in sweep.space if key not in present):
        others = (resolve(row_files()[other], preset=sweep.preset, row=other, tuned=False) for other in sweep.rows)
        if not any(_has_setting(other, key) for other in others):
            raise ValueError(
                f"space: {key}: no row of tune-{sweep.preset}.yaml has this setting; correct or remove it; "
                "bench run FILE --settings lists all"
            )
    of_row: list[Point] = [{key: value for key, value in point.items() if key in present} for point in points(sweep)]
    found = [(point, search_space.with_values(experiment, point)) for point in of_row]
    first: dict[str, int] = {}
    for number, (_, job) in enumerate(found):
        if (same := first.setdefault(job.job_hash, number)) != number:
            raise ValueError(
                f"space: trials {same} and {number} of {row} have the same settings, so the search of "
                f"tune-{sweep.preset}.yaml has fewer points than trials; remove step from a range, widen it, or lower "
                "trials"
            )
    return found


def _has_setting(experiment: Experiment, key: str) -> bool:
    """Whether the row has this setting. Only settings of `model` differ between rows; another must exist."""
    try:
        search_space.setting_value(experiment, key)
    except ValueError:
        if key.startswith("model."):
            return False
        raise
    return True


def trial_faults(trials: Sequence[Trial], jobs: Sequence[tuple[Point, Experiment]]) -> list[str]:
    """The differences between the finished trials of a row and the trials that the search gives it, in words.

    A job hash covers all settings, so a trial of another budget, another model size or another vocabulary differs too.
    """
    found = []
    count = Counter(trial.number for trial in trials)
    found += [f"trial {number} is in the file {times} times" for number, times in count.items() if times > 1]
    for trial in trials:
        if not 0 <= trial.number < len(jobs):
            found.append(f"trial {trial.number} is none of the {len(jobs)} of this search")
            continue
        point, experiment = jobs[trial.number]
        if trial.job_hash != experiment.job_hash or trial.seed != experiment.seed or trial.settings != point:
            found.append(f"trial {trial.number} has other settings than this search")
        elif trial.state == COMPLETE and (
            trial.validation_bleu is None or trial.pairs < (experiment.training.max_pairs or 0)
        ):
            found.append(f"trial {trial.number} has not used its budget, or has no score")
    return found


def finished_trials(sweep: Sweep, row: str, jobs: Sequence[tuple[Point, Experiment]]) -> list[Trial]:
    """The finished trials of a row in the preset's file.

    Raises:
        ValueError: a trial is not one of this search, so its score cannot be compared with the others.
    """
    found = [trial for trial in read_trials(sweep.preset) if trial.row == row]
    if faults := trial_faults(found, jobs):
        advice = (
            "keep one of the lines"
            if faults[0].endswith(" times")
            else "its file, the preset or the row has changed since: restore them, or delete the file to search again"
        )
        raise ValueError(f"{trials_path(sweep.preset)}: {row}: {faults[0]}; {advice}")
    return found
