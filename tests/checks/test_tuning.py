"""`bench tuned` and `bench verify tuning`: recipes come from the trials of an equal search, or the exit code is 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.checks import tuning
from bench.cli.main import main
from bench.experiment import tuned
from bench.experiment.tuned import Trial, read_trials, read_tuned, write_trials
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.sweep import equal_search, recipes
from bench.sweep.settings import Sweep
from tests.helpers import tiny_search, tiny_sweep


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the only equal search, of the only two rows."""
    tiny_search.use_folder(tmp_path, monkeypatch)
    monkeypatch.setattr(tuning, "EXPERIMENTS", tmp_path)
    files = {row: path for row, path in tuning.row_files().items() if row in tiny_search.ROWS}
    monkeypatch.setattr(tuning, "row_files", lambda: files)
    tiny_search.write(tmp_path)
    return tmp_path


def finish(folder: Path, scores: dict[str, list[float]]) -> None:
    """Writes finished trials: row -> the scores of its points, in their order."""
    sweep = Sweep.read(folder / "tune-demo.yaml")
    for row, values in scores.items():
        jobs = equal_search.trial_experiments(sweep, row)
        write_trials(
            "demo",
            [
                Trial(row, number, "COMPLETE", bleu, 2.0, 300, 1001, jobs[number][1].job_hash, "abc", jobs[number][0])
                for number, bleu in enumerate(values)
            ],
        )


SCORES = {"mlp": [30.0, 50.0, 40.0, 50.0], "perceptron": [20.0, 10.0, 15.0, 12.0]}


def verify(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    return main(["verify", "tuning", "--preset", "demo"]), capsys.readouterr().out


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_the_recipe_of_a_row_is_its_best_trial(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(folder, SCORES)
    assert main(["tuned", str(folder / "tune-demo.yaml")]) == 0
    recipes = read_tuned("demo")
    assert recipes
    assert (recipes.search, recipes.trials, recipes.budget, recipes.seed) == ("tune-demo", 4, 300, 1001)
    assert {row: (recipe.trial, recipe.validation_bleu) for row, recipe in recipes.rows.items()} == {
        "mlp": (1, 50.0), "perceptron": (0, 20.0),
    }  # fmt: skip
    point, _ = equal_search.trial_experiments(Sweep.read(folder / "tune-demo.yaml"), "mlp")[1]
    settings = recipes.rows["mlp"].settings
    assert settings["training"]["optimizer"]["lr"] == point["training.optimizer.lr"]
    assert settings["training"]["batch_pairs"] == 64
    assert "max_pairs" not in settings["training"], "the budget of a trial is no part of a recipe"
    code, printed = verify(capsys)
    assert code == 0, printed
    assert printed.count("equal ") + printed.count("equal\n") >= 2
    near = {line.split()[0]: line.split()[-4:-1] for line in printed.splitlines() if line.endswith(" equal")}
    assert near == {"mlp": ["3", "of", "4"], "perceptron": ["1", "of", "4"]}, "40 is 80 % of 50"
    assert "2 rows, 0 without a recipe from the equal search tune-demo: 4 trials of 300 sentence pairs" in printed


def test_changes_by_hand_set_the_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(folder, SCORES)
    assert main(["tuned", str(folder / "tune-demo.yaml")]) == 0
    recipes, trials, search = tuned.recipes_path("demo"), tuned.trials_path("demo"), folder / "tune-demo.yaml"
    unchanged = {path: path.read_text() for path in (recipes, trials, search)}
    lr = str(equal_search.points(Sweep.read(search))[1]["training.optimizer.lr"])
    second, third = (next(line for line in trials.read_text().splitlines() if f"mlp,{n}," in line) for n in (1, 2))
    for path, old, new, message in (
        (recipes, f"lr: {lr}", "lr: 0.009", "the recipe is not that of the best trial, 1"),
        (recipes, "trial: 1\n", "trial: 3\n", "the recipe is not that of the best trial, 1"),
        (recipes, "validation_bleu: 20.0", "validation_bleu: 25.0", "the recipe is not that of the best trial, 0"),
        (recipes, "trials: 4", "trials: 16", "trials is 16, but 4 by the search and its trials"),
        (trials, "mlp,2,COMPLETE,40.0", "mlp,2,COMPLETE,60.0", "the recipe is not that of the best trial, 2"),
        (trials, "mlp,2,COMPLETE,40.0", "mlp,2,COMPLETE,41.0", "trials_sha256 is"),  # the winner stays the same
        (trials, f",{lr},", ",0.009,", "trial 1 has other settings than this search"),
        (trials, ",300,", ",150,", "trial 0 has not used its budget"),
        (trials, "perceptron,3,", "perceptron,4,", "trial 4 is none of the 4 of this search"),
        (trials, third, second, "trial 1 is in the file 2 times"),  # merged from two machines
        (search, "high: 0.02", "high: 0.04", "trial 1 has other settings than this search"),
        (search, "rows: [mlp, perceptron]", "rows: [mlp]", "not a row of the search"),
    ):  # fmt: skip
        edit(path, old, new)
        code, printed = verify(capsys)
        assert (code, message in printed) == (1, True), (new, printed)
        for restored, text in unchanged.items():
            restored.write_text(text)
    assert verify(capsys)[0] == 0


def test_a_preset_that_overrides_its_recipe_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(folder, SCORES)
    assert main(["tuned", str(folder / "tune-demo.yaml")]) == 0
    resolve = tuning.resolve
    monkeypatch.setattr(tuning, "resolve", lambda *a, **named: resolve(*a, **named, flags=["--training.clip=0.5"]))
    code, printed = verify(capsys)
    assert (code, printed.count("the preset has other settings than the best trial")) == (1, 2)


def test_an_unfinished_search_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "tune-demo.yaml"
    code, printed = verify(capsys)
    assert code == 1
    assert printed.count("0 of 4 trials") == 2
    assert "demo.yaml: file not found; run bench sweep experiments/tune-demo.yaml, then bench tuned" in printed
    finish(folder, {"mlp": SCORES["mlp"][:3]})
    assert main(["tuned", str(path)]) == 2
    assert "no row has finished its 4 trials; run first: bench sweep" in capsys.readouterr().err
    finish(folder, {"mlp": SCORES["mlp"]})
    assert main(["tuned", str(path)]) == 1
    assert "no recipe, because trials remain: perceptron; continue with bench sweep" in capsys.readouterr().out
    recipes = read_tuned("demo")
    assert recipes
    assert list(recipes.rows) == ["mlp"]
    code, printed = verify(capsys)
    assert (code, "2 rows, 1 without a recipe" in printed) == (1, True)


@pytest.mark.parametrize(
    ("trials", "places", "presses"),
    [
        (16, (15, 12, 13), True),
        (16, (15, 14, 11), False),
        (6, (5, 3, 4), True),  # a quarter of 6 values is one value, but the rule asks for three
        (6, (5, 4, 2), False),
    ],
)
def test_a_best_trial_at_the_edge_counts_if_the_next_ones_lie_there_too(
    folder: Path, capsys: pytest.CaptureFixture[str], trials: int, places: tuple[int, ...], presses: bool
) -> None:
    path = tiny_search.write(folder, **{"trials: 4": f"trials: {trials}"})
    rates = [point["training.optimizer.lr"] for point in equal_search.points(Sweep.read(path))]
    by_rate = sorted(range(trials), key=lambda number: rates[number])
    leading = [by_rate[place] for place in places]
    scores = [90.0 - 10 * leading.index(number) if number in leading else 10.0 for number in range(trials)]
    finish(folder, dict.fromkeys(SCORES, scores))
    assert main(["tuned", str(path)]) == 0
    code, printed = verify(capsys)
    assert code == 0, "the search was equal, even if it should be repeated with a wider range"
    edges = [line for line in printed.splitlines() if line.startswith("at the edge")]
    advice = (
        "the three best trials lie at this end, so add trials beyond it for all rows (extensions:)"
        if presses
        else "likely by chance: it counts only if the three best trials lie at this end"
    )
    assert [line for line in edges if "lr" in line] == [
        f"at the edge of the space: {row}: training.optimizer.lr {max(rates):g} is the highest of its {trials} values; "
        + advice
        for row in SCORES
    ]
    assert not [line for line in edges if "lowest" in line and "lr" not in line], "a limit of 0 cannot be moved"


def test_an_edge_does_not_count_with_fewer_than_three_scores(folder: Path) -> None:
    path = tiny_search.write(folder, **{"trials: 4": "trials: 6"})
    sweep = Sweep.read(path)
    finish(folder, {"mlp": [10.0] * 6})
    by_rate = sorted(read_trials("demo"), key=lambda trial: trial.settings["training.optimizer.lr"])
    by_rate[0] = replace(by_rate[0], validation_bleu=20.0)
    trials = [replace(trial, state="DIVERGED", validation_bleu=None) for trial in by_rate[2:]]
    low = [(edge, presses) for edge, presses in recipes.at_edge(sweep, [*by_rate[:2], *trials]) if "lr" in edge]
    assert low == [
        (f"training.optimizer.lr {by_rate[0].settings['training.optimizer.lr']:g} is the lowest of its 6 values", False)
    ]


def test_a_preset_without_a_search_and_one_that_waits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "tuning", "--preset", "paper"]) == 2
    assert "--preset: paper has no equal search in" in capsys.readouterr().err
    assert main(["verify", "sizes", "--preset", "demo"]) == 2
    assert "--preset: bench verify sizes checks all presets; remove the flag" in capsys.readouterr().err
    path = tiny_search.write(folder)
    tiny_search.write(folder, "tune-next", **{"preset: demo": "preset: multi30k-cpu\naround: demo"})
    assert main(["verify", "tuning", "--preset", "multi30k-cpu"]) == 1
    printed = capsys.readouterr().out
    assert "preset multi30k-cpu: no recipe from the equal search tune-next, because its space needs" in printed
    finish(folder, SCORES)
    assert main(["tuned", str(path)]) == 0
    capsys.readouterr()
    assert main(["verify", "tuning"]) == 0, "a search that has not begun has no recipe that could be wrong"
    printed = capsys.readouterr().out
    assert "preset multi30k-cpu: its equal search tune-next has not begun" in printed
    assert "2 rows, 0 without a recipe from the equal search tune-demo" in printed
    assert main(["tuned", str(EXPERIMENTS / "sweep.yaml")]) == 2
    assert "no equal search, because it names no rows" in capsys.readouterr().err
