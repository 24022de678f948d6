"""`bench speed`: what is counted, another program in turn, and that one row's failure does not take the others'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.experiment.job_data import JobData
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.measures.latency import LatencyBenchmark
from bench.speed import against, decoding, training
from bench.speed.figure import Figure, Measurement, joined
from bench.tracking.store import Store, TrackingSettings
from models.parts.translator import Translator
from tests.helpers import tiny_job

# --- figures ----------------------------------------------------------------------------------------------------------


def test_median_and_spread() -> None:
    figure = Figure("pairs_per_s", [10.0, 12.0, 14.0, 16.0, 30.0])
    assert (figure.median, figure.spread, figure.is_time) == (14, (16 - 12) / 14, False)
    assert Figure("greedy_ms", [1.0]).is_time


@pytest.mark.parametrize(
    ("share", "samples", "quiet"), [(0.04, [10, 10.5], True), (0.06, [10, 10.5], False), (0.0, [10, 14], False)]
)
def test_a_measurement_is_quiet_within_the_limits(share: float, samples: list[float], quiet: bool) -> None:
    assert Measurement([Figure("pairs_per_s", samples)], share).quiet == quiet
    assert not Measurement([Figure("pairs_per_s", [10, 10])], None).quiet, "an unknown share is not quiet"


def test_the_spread_of_unequal_work_is_no_noise() -> None:
    tokens, pairs = Figure("target_tokens_per_s", [10, 10.5]), Figure("pairs_per_s", [10, 14], same_work=False)
    both = joined([Measurement([tokens, pairs], 0.0)] * 2)
    assert both.quiet
    assert both.noise == "quiet: others 0%, spread 5%"


def test_joined_measurements_have_all_samples_and_the_largest_noise() -> None:
    one, other = (Measurement([Figure("a_ms", [x]), Figure("b_ms", [2 * x])], x / 100) for x in (3.0, 5.0))
    both = joined([one, other])
    assert [(figure.name, figure.samples) for figure in both.figures] == [("a_ms", [3, 5]), ("b_ms", [6, 10])]
    assert both.other_share == 0.05


# --- training and decoding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_rates_of_training_are_of_real_tokens(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WINDOWS", 2)
    tiny_job.write_corpus(tmp_path)
    flags = ["--training.batch_pairs=8", "--training.batch_tokens=100000"]
    flags += tiny_job.flags(tmp_path, training__precision=precision, machine__accelerator="cpu")
    experiment = resolve(tiny_job.FILE, flags=flags, tuned=False)
    with training.prepared(experiment) as measure:
        found = measure(0.0)
    rates = {figure.name: figure.samples for figure in found.figures}
    assert {len(samples) for samples in rates.values()} == {2}
    for tokens, pairs, updates in zip(
        *(rates[f"{of}_per_s"] for of in ("target_tokens", "pairs", "updates")), strict=True
    ):
        assert pairs / updates == pytest.approx(8), "each update has 8 pairs"
        assert 6 < tokens / pairs < 40, "tokens of a sentence, without padding"
    assert 0 < float(found.facts["mfu"] or 0) < 1


@pytest.mark.parametrize("length", [None, 3])
def test_decoding_writes_outputs_of_fixed_length(
    length: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[tuple[int, int, int, list[int]]]()

    def recorded(self: LatencyBenchmark, sources: list[list[int]], lengths: list[int], batch: int = 1) -> float:
        calls.append((self.settings.beam, len(sources), batch, list(lengths)))
        return 2.0 * len(sources)

    monkeypatch.setattr(LatencyBenchmark, "time_ms", recorded)
    tiny_job.write_corpus(tmp_path)
    experiment = resolve(tiny_job.FILE, flags=tiny_job.flags(tmp_path, decoding__beam=3), tuned=False)
    with decoding.prepared(experiment, length) as measure:
        found = measure(0.0)
    single = [call for call in calls if call[2] == 1]
    batched = [call for call in calls if call[2] == 64]
    assert {(beam, sentences) for beam, sentences, _, _ in single} == {(1, 1), (3, 1)}
    assert {(beam, sentences) for beam, sentences, _, _ in batched} == {(1, 12), (3, 12)}
    lengths = {each for *_, lengths in calls for each in lengths}
    assert lengths == {3} if length else len(lengths) > 1
    assert {figure.name: figure.median for figure in found.figures} == {
        "greedy_ms": 2.0, "greedy_batch64_sentences_per_s": 500.0,
        "beam_ms": 2.0, "beam_batch64_sentences_per_s": 500.0,
    }  # fmt: skip


# --- another program --------------------------------------------------------------------------------------------------


def test_ratios_say_how_many_times_as_fast_the_row_is(tmp_path: Path) -> None:
    rounds, notes = iter([(10.0, 4.0), (30.0, 2.0), (20.0, 8.0)]), list[str]()

    def measure(_: float) -> Measurement:
        rate, time = next(rounds)
        return Measurement([Figure("pairs_per_s", [rate]), Figure("greedy_ms", [time]), Figure("other_ms", [1.0])], 0.0)

    command = "echo loading 1 2; echo pairs_per_s 5; echo greedy_ms 2e0; echo unknown 7"
    found, ratios = against.compare(measure, 1.0, command, notes.append)
    assert [figure.samples for figure in found.figures] == [[10, 30, 20], [4, 2, 8], [1, 1, 1]]
    assert [(ratio.here.name, ratio.ratios, ratio.median) for ratio in ratios] == [
        ("pairs_per_s", [2, 6, 4], 4),
        ("greedy_ms", [0.5, 1, 0.25], 0.5),
    ]
    assert ratios[0].there == [5, 5, 5]
    assert [note.strip().split(":")[0] for note in notes] == [f"round {n} of 3" for n in (1, 1, 2, 2, 3, 3)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo pairs_per_s 5; echo no such file >&2; exit 3", "ended with exit code 3; its last line: no such file"),
        (
            "echo tokens 5",
            "printed no figure above 0; its last line: tokens 5; it must print lines such as `pairs_per_s",
        ),
        ("echo pairs_per_s 0", "printed no figure above 0"),
        ("true", "its last line: nothing"),
    ],
)
def test_a_command_without_figures_is_an_error(command: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        against.figures_of(command, ["pairs_per_s"])


# --- the command ------------------------------------------------------------------------------------------------------


def test_figures_are_printed_logged_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "WINDOWS", 2)
    tiny_job.write_corpus(tmp_path)
    flags, out = tiny_job.flags(tmp_path, machine__accelerator="cpu"), tmp_path / "speed.json"
    command = ["speed", "train", "transformer-base", "--seconds", "0.01", "--out", str(out), *flags]
    assert main([*command, "--against", "echo target_tokens_per_s 1"]) == 0
    printed = capsys.readouterr().out
    assert "target tokens (1/s)" in printed
    assert "times as fast" in printed
    [record] = json.loads(out.read_text())
    assert (record["row"], record["corpus"], list(record["against"])) == (
        "transformer-base", "files-en-de", ["target_tokens_per_s"],
    )  # fmt: skip
    rate = record["figures"]["target_tokens_per_s"]
    assert len(rate["samples"]) == 2 * against.ROUNDS
    assert 0 < record["mfu"] < 1
    store = Store(TrackingSettings(folder=str(tmp_path / "runs")))
    experiment = store.client.get_experiment_by_name("speed")
    assert experiment is not None
    [logged] = store.search([experiment.experiment_id], "tags.kind = 'speed'")
    history = store.client.get_metric_history(logged.info.run_id, "target_tokens_per_s")
    assert [metric.value for metric in sorted(history, key=lambda metric: metric.step)] == rate["samples"]
    assert logged.data.params["seed"] == "1"
    assert store.suites() == [], "a measurement of speed is no suite"
    assert main([*command[: -len(flags) - 2], "--format", "json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)[0]["row"] == "transformer-base"


def test_a_row_that_fails_is_a_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "WINDOWS", 1)
    tiny_job.write_corpus(tmp_path)
    flags = tiny_job.flags(tmp_path, machine__accelerator="cpu", model__layers=1)
    assert main(["speed", "train", "transformer-base", "perceptron", "--seconds", "0.01", *flags]) == 2
    assert "unknown key model.width" in capsys.readouterr().err, "one wrong setting ends the command"
    original = training.model_of

    def fails(experiment: Experiment, job_data: JobData) -> Translator:
        if experiment.row == "transformer-big":
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        return original(experiment, job_data)

    monkeypatch.setattr(training, "model_of", fails)
    assert main(["speed", "train", "transformer-big", "transformer-base", "--seconds", "0.01", *flags]) == 1
    printed = capsys.readouterr()
    assert "transformer-big: CUDA out of memory. Tried to allocate" in printed.err
    assert "transformer-base" in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no-such-row"], "no row 'no-such-row'; there are"),
        (["train", "gnmt-ensemble"], "gnmt-ensemble: an ensemble has no speed of its own; measure its members: gnmt"),
        (["train", "--against", "true"], "--against: compares one row with the command; name exactly one row"),
        (["train", "lstm", "--length", "15"], "--length: bench speed train writes no sentences; remove the flag"),
        (["decode", "lstm", "--training.clips", "1"], "training.clips"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", *arguments]) == 2
    assert message in capsys.readouterr().err
