"""A job from its settings to its run: everything is tracked, and the same job continues after any interruption."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import mlflow.pyfunc
import pytest
import torch
import yaml

import bench.evaluation.evaluate
import bench.runs.job
import bench.runs.metadata
from bench.data.corpus import Split
from bench.evaluation import trained_model
from bench.evaluation.evaluate import shuffled_loss
from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.measures import metric_registry, quality, selection
from bench.measures.measure import Measure
from bench.runs.job import JobResult, TrialInfo, run
from bench.system import facts
from bench.system.machine import MachineSettings
from bench.system.progress import Status
from bench.tracking.reading import MissingFile
from bench.tracking.store import Store, TrackingSettings
from bench.tracking.store_format import STORE_FORMAT
from bench.training.budget import Diverged, HostClock
from bench.training.checkpoints import Interrupted
from bench.training.validation import Score
from models.parts.batch import Batch
from models.parts.translator import Translator
from reports.text import catalogue
from tests.helpers import quick_evaluation, tiny_job, tracking_folder


@pytest.fixture(scope="module", autouse=True)
def without_timings() -> Iterator[None]:
    with quick_evaluation.without_timings():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    tiny_job.write_corpus(folder)
    tracking_folder.create(folder / "runs")
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store(TrackingSettings(None, str(folder / "runs")))


def experiment(folder: Path, **changed: object) -> Experiment:
    return resolve(tiny_job.FILE, flags=tiny_job.flags(folder, **changed))


@pytest.fixture(scope="module")
def finished(folder: Path, store: Store) -> JobResult:
    return run(experiment(folder), store, "runs")


def weights(store: Store, result: JobResult, folder: Path) -> dict[str, torch.Tensor]:
    assert result.run
    files = store.download_translator(result.run, folder)
    assert files
    return torch.load(files / "weights.pt", weights_only=True)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fails_first(real: Callable[..., Any], error: BaseException, times: int = 1) -> Callable[..., Any]:
    """The function, except that its first calls raise an error."""
    calls = []

    def call(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return real(*arguments, **settings)

    return call


def test_a_run_contains_settings_scores_and_curves(
    finished: JobResult, store: Store, folder: Path, tmp_path: Path
) -> None:
    run = finished.run
    assert run
    assert (run.status, run.name) == ("FINISHED", "Transformer (base) en-de s1")
    config = store.download(run, "config.yaml", tmp_path)
    assert config
    assert yaml.safe_load(config.read_text()) == {"format": STORE_FORMAT} | experiment(folder).settings
    assert run.params["training.max_updates"] == "12"
    assert run.tags["direction"] == "en-de"
    assert run.tags["vocabulary.target"].startswith("90 subwords, sha256 ")
    measures = {measure.metric: measure.value for measure in finished.measures}
    assert measures == {measure.metric: measure.value for measure in store.measures(run)}
    assert (measures["updates"], measures["repeated_updates"], measures["test/truncated"]) == (12, 0, 0)
    assert run.metrics["train_flops"] == measures["train_flops"]
    assert len(run.metrics) <= 40, "the UI makes a column and a chart of every metric"
    assert set(measures) - set(run.metrics), "the table has more"
    table = store.hypotheses(run, "test")
    assert list(table["source"]) == (folder / "test.en").read_text().splitlines()
    curve = store.curves(run)
    assert not curve.duplicated(["update", "name"]).any()
    for name, points in curve.groupby("name"):
        stored = [(metric.step, metric.value) for metric in store.client.get_metric_history(run.id, str(name))]
        assert stored == list(zip(points["update"], points["value"], strict=True)), name


def test_every_number_of_a_run_is_documented(finished: JobResult, store: Store) -> None:
    """docs/metrics.md lists every metric; capitals in a name stand for any text."""
    assert finished.run
    page = (tiny_job.FILE.parents[1] / "docs" / "metrics.md").read_text()
    names = re.findall(r"`([a-zA-Z0-9_/]+)`", "".join(line for line in page.splitlines() if line.startswith("|")))
    known = re.compile("|".join(re.sub(r"[A-Z]+", "[^/]+", name) for name in names))
    logged = {measure.metric for measure in finished.measures} | set(store.curves(finished.run)["name"])
    assert {"test/bleu", "validation_loss", "train/lr", "validation/gleu"} <= logged
    unknown = [name for name in logged if not known.fullmatch(name) and not known.fullmatch(name.removeprefix("test/"))]
    assert unknown == []
    assert [measure.metric for measure in finished.measures if metric_registry.find(measure.metric) is None] == []


def test_provenance_in_a_report_is_translated(finished: JobResult) -> None:
    korean = catalogue.load_catalogue("ko")
    provenances = [
        m.provenance
        for m in finished.measures
        if m.metric.rpartition("/")[2] in metric_registry.PRINTED_PROVENANCE and m.provenance
    ]
    pieces = {
        piece for provenance in provenances for piece in provenance.split("; ") if not piece.startswith("sacreBLEU ")
    }
    assert len(pieces) > 6
    assert [piece for piece in pieces if korean.recorded(piece) == piece] == []


def test_a_run_contains_its_costs(finished: JobResult, store: Store) -> None:
    """Three costs, each with its provenance and the numbers that it is computed from."""
    found = {measure.metric: measure for measure in finished.measures}
    values = {name: measure.value or 0.0 for name, measure in found.items()}
    assert values["clock_flops"] == pytest.approx(values["ceiling_flops_per_s"] * values["wall_s"])
    assert values["mfu"] == pytest.approx(values["train_flops"] / values["clock_flops"])
    assert "1 threads" in found["clock_flops"].provenance
    energy = found["energy_j"]
    assert energy.provenance.startswith("not measured: " if energy.value is None else "RAPL")
    assert values["executed_flops"] > values["train_flops"]
    assert values["decoding_flops"] > 0
    assert "beam 2" in found["decoding_flops"].provenance
    memory = found["memory_training_bytes"].value
    assert memory is None or memory > values["memory_weights_bytes"] > 0


def test_a_run_contains_the_statistics_of_its_scores(finished: JobResult, store: Store) -> None:
    """A report computes intervals and tests from them, without scoring the text again."""
    assert finished.run
    found = {measure.metric: measure for measure in finished.measures}
    statistics = store.statistics(finished.run, "test")
    assert [one.metric for one in statistics] == ["bleu", "chrf", "ter"]
    for one in statistics:
        measure, again = found[f"test/{one.metric}"], quality.mean_with_interval([one])
        assert (measure.value, measure.low, measure.high) == (again.value, again.low, again.high)
    assert store.statistics(finished.run, "another") == []
    assert {"test/bleu_lowercase", "test/bleu_tokenised", "test/bleu_compound_split"} <= found.keys()


def test_a_run_contains_the_statistics_of_its_corpus(finished: JobResult, store: Store) -> None:
    assert finished.run
    corpus_stats = store.read_json(finished.run, "corpus_stats.json")
    assert [split["name"] for split in corpus_stats["splits"]] == ["train", "validation", "test"]
    assert corpus_stats["vocabularies"]["target"]["size"] == 90
    assert corpus_stats["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert (corpus_stats["leaks"], finished.run.tags["leakage"]) == ([], "none")


def test_a_run_contains_an_attention_map(finished: JobResult, store: Store) -> None:
    assert finished.run
    (name,) = store.list_files(finished.run, "attention")
    maps = store.read_json(finished.run, f"attention/{name}")
    assert {one["kind"] for one in maps["attention"]} == {"cross", "encoder", "decoder"}
    assert maps["source"] in {source for source, _ in tiny_job.pairs(12, 1)}


def test_two_unknown_facts_are_not_taken_for_equal(
    finished: JobResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clone that git refuses may have changed between the start and the continuation of a run."""
    assert finished.run
    tags = finished.run.tags | {facts.COMMIT: facts.UNKNOWN}
    capsys.readouterr()
    bench.runs.metadata.warn_of_differences(replace(finished.run, tags=tags), tags)
    assert capsys.readouterr().out == (
        "  warning: mlflow.source.git.commit was unknown when the run began and is unknown now\n"
    )


def test_leakage_is_printed_when_the_run_begins(
    folder: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaky = {f"corpus__{split}": f"[{folder}/val.en,{folder}/val.de]" for split in ("val", "test")}
    result = run(experiment(folder, **leaky), store, "leaky")
    assert result.run
    leak = "test: 12 of 12 pairs and 12 sources also occur in validation, 0 more sources are near-duplicates"
    assert f"warning: leakage in files-en-de, {leak}" in capsys.readouterr().out
    assert (result.run.tags["leakage"], store.read_json(result.run, "corpus_stats.json")["leaks"]) == (leak, [leak])


def test_the_same_command_returns_a_finished_job(finished: JobResult, store: Store, folder: Path) -> None:
    again = run(experiment(folder), store, "runs")
    assert (again.run, again.state) == (finished.run, "finished before")
    assert again.measures == finished.measures


def test_the_translator_of_a_run_can_be_loaded(finished: JobResult, store: Store, folder: Path) -> None:
    assert finished.run
    loaded = trained_model.load(store, finished.run.id)
    table = store.hypotheses(finished.run, "test")
    found, cut = loaded.translate(list(table["source"]))
    assert [best.text for best, *_ in found] == list(table["hypothesis"])
    assert cut == 0
    assert [len(candidates) for candidates in found] == [2] * len(found)
    assert all(best.score >= other.score for best, other in found)
    found, cut = loaded.translate(["", "  ", "The man " * 200])
    assert [best.text for best, *_ in found][:2] == ["", ""]
    assert cut == 1


def test_a_model_that_was_trained_on_a_gpu_can_be_loaded_without_one(
    finished: JobResult, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a GPU, it computes as in its evaluation, without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert finished.run
    files = store.download_translator(finished.run, tmp_path)
    assert files
    config = yaml.safe_load((files / "config.yaml").read_text())
    config["machine"]["accelerator"] = "gpu"
    (files / "config.yaml").write_text(yaml.safe_dump(config))
    opened = trained_model.load_folder(files)
    assert opened.model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("stops_at", "state"), [(99, "COMPLETE"), (2, "PRUNED")])
def test_a_trial_sees_no_test_set(stops_at: int, state: str, folder: Path, store: Store) -> None:
    trial = TrialInfo("a study", 0, 1, ("validation_bleu",))
    result = run(
        experiment(folder, seed=stops_at),
        store,
        "trials",
        on_status=lambda status: len(status.validations) == stops_at,
        trial=trial,
    )
    assert result.run
    names = {measure.metric for measure in result.measures} | store.run(result.run.id).metrics.keys()
    assert "validation_bleu" in names
    assert not [name for name in names if name.startswith(("test/", "names/"))]
    assert store.list_files(result.run, "hypotheses") == []
    assert store.run(result.run.id).tags["state"] == state


def test_a_trial_of_another_study_serves_only_if_it_has_all_goals(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency = [Measure("latency_p50_ms", 5.0, "ms")]
    monkeypatch.setattr(bench.evaluation.evaluate.latency, "measure", lambda *_, **__: latency)

    def of(study: str, *goals: str, stops_at: int = 99) -> JobResult:
        return run(
            experiment(folder, seed=70),
            store,
            "several studies",
            on_status=lambda status: len(status.validations) == stops_at,
            trial=TrialInfo(study, 0, 1, goals),
        )

    pruned = of("first", "validation_bleu", stops_at=1)
    assert of("first", "validation_bleu").state == "finished before", "a pruned trial stays pruned in its study"
    complete = of("second", "validation_bleu")
    assert complete.state == "finished now"
    assert of("third", "validation_bleu", "validation_loss").run == complete.run
    timed = of("fourth", "validation_bleu", "latency_p50_ms")
    assert timed.state == "finished now"
    measures = {measure.metric: measure for measure in timed.measures}
    assert measures["latency_p50_ms"].value == 5
    assert "mean over validation" in measures["decoding_flops"].provenance, "a test set must not decide on settings"
    assert "latency_p50_ms" in {measure.metric for measure in timed.measures}
    assert len({one.run.id for one in (pruned, complete, timed) if one.run}) == 3


def test_too_little_memory_to_measure_memory_does_not_fail_the_job(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Measure:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench.evaluation.evaluate.memory, "training_memory", full)
    result = run(experiment(folder), store, "full")
    memory = next(measure for measure in result.measures if measure.metric == "memory_training_bytes")
    assert (memory.value, memory.provenance) == (None, "not measured: OutOfMemoryError: CUDA out of memory")


def fails_above(
    most: int, monkeypatch: pytest.MonkeyPatch, after: int = 0, error: type[BaseException] = torch.OutOfMemoryError
) -> None:
    """From the update number `after` + 1 on, a part of more than `most` sentence pairs raises the error."""
    real, begun = Translator.weighted_loss, []

    def weighted_loss(model: Translator, batch: Batch) -> torch.Tensor:
        begun.append(1)
        if len(batch.target.lengths_B) > most and len(begun) > after:
            raise error("CUDA out of memory")
        return real(model, batch)

    monkeypatch.setattr(Translator, "weighted_loss", weighted_loss)


@pytest.mark.parametrize("after", [0, 6])  # without a checkpoint, and with that of the first validation, at update 4
def test_a_job_whose_gpu_is_too_small_divides_its_batches(
    after: int,
    folder: Path,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = experiment(folder, model__dropout=0.0)
    pairs = max(len(batch.target.lengths_B) for batch in itertools.islice(JobData.of(job).train.train_dataloader(), 12))
    wanted = weights(store, run(job, store, "whole"), tmp_path / "whole")
    fails_above(pairs // 3, monkeypatch, after)
    result = run(job, store, f"divided {after}")
    assert result.run
    assert result.run.tags["accumulate"] == "4"
    printed = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert [line.partition("computed in ")[2].split()[0] for line in printed] == ["2", "4"]
    found = weights(store, result, tmp_path / "divided")
    assert all(torch.allclose(found[name], tensor, atol=1e-4) for name, tensor in wanted.items())
    numbers = {measure.metric: measure.value for measure in result.measures}
    assert numbers["updates"] == 12


def test_a_resumed_job_keeps_the_parts_of_its_batches(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = experiment(folder)
    fails_above(20, monkeypatch)
    monkeypatch.setattr(
        bench.runs.job, "evaluate_job", fails_first(bench.runs.job.evaluate_job, Interrupted(signal.SIGINT))
    )
    with pytest.raises(Interrupted):
        run(job, store, "resumed")
    parts = []
    real = bench.runs.job.train
    monkeypatch.setattr(bench.runs.job, "train", lambda *a, **named: parts.append(a[2].accumulate) or real(*a, **named))
    capsys.readouterr()
    assert run(job, store, "resumed").state == "finished now"
    assert "out of memory" not in capsys.readouterr().out
    assert parts == [2]


class LaggingClock(HostClock):
    """A clock whose seconds are known only after `read`, as on a GPU."""

    asynchronous = True

    def __init__(self) -> None:
        self.unread = 0.0

    def end(self) -> None:
        super().end()
        self.unread += super().read()

    def read(self) -> float:
        read, self.unread = self.unread, 0.0
        return read


def test_a_job_whose_clock_lags_is_shown_and_measured(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 300 updates, every second one is a point of the curves and reads the clock: the first has no seconds yet."""
    monkeypatch.setattr("bench.training.budget.HostClock", LaggingClock)
    monkeypatch.setattr(bench.runs.job, "evaluate_job", lambda model, costs, *_: costs)  # which other tests check
    monkeypatch.setattr(bench.runs.job, "_log_model", lambda *_: None)
    job = experiment(
        folder,
        training__max_updates=300,
        training__validations=1,
        training__batch_tokens=100,
        tracking__folder=tmp_path / "runs",
    )
    result = run(job, store, "ahead")
    first, *later = [line for line in capsys.readouterr().out.splitlines() if " updates" in line]
    assert "  1 updates" in first
    assert "pairs/s" not in first
    assert all("pairs/s" in line and "left" in line for line in later[:-1])
    measures = {measure.metric: measure.value or 0.0 for measure in result.measures}
    assert measures["wall_s"] > 0
    assert measures["overhead"] > 0


def test_joules_are_those_of_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = SimpleNamespace(measure=lambda: Measure("energy_j", 5.0, "J", provenance="NVML"))
    trained: Any = SimpleNamespace(budget=SimpleNamespace(energy=energy, seconds=1.0))
    several = bench.evaluation.evaluate.energy(trained, MachineSettings("cpu", num_nodes=2))
    assert (several.value, several.provenance) == (None, "not measured: 2 machines, and one of them was read")
    monkeypatch.setenv("BENCH_GPU_SHARE", "0.25")
    shared = bench.evaluation.evaluate.energy(trained, MachineSettings("gpu"))
    assert shared.value is None
    assert shared.provenance == "not measured: the counter is that of the whole GPU, of which the job had 0.25"
    assert bench.evaluation.evaluate.energy(trained, MachineSettings("cpu")).value == 5
    monkeypatch.setenv("BENCH_GPU_SHARE", "1")
    monkeypatch.setenv("BENCH_SIBLINGS", "2")
    assert bench.evaluation.evaluate.energy(trained, MachineSettings("gpu")).value == 5
    beside = bench.evaluation.evaluate.energy(trained, MachineSettings("cpu"))
    assert beside.value is None
    assert beside.provenance.endswith("the counter is that of the whole processor, which 2 other jobs shared")


def test_the_model_is_linked_to_its_scores_and_loads_in_mlflow(finished: JobResult, store: Store) -> None:
    assert finished.run
    (model,) = store.client.search_logged_models([store.experiment_id("runs")], f"source_run_id = '{finished.run.id}'")
    assert (model.status, model.tags["row"], model.params["model.width"]) == ("READY", "transformer-base", "16")
    linked = {(metric.key, metric.dataset_name): metric.value for metric in model.metrics or []}
    assert linked["test/bleu", "files-en-de/test"] == finished.run.metrics["test/bleu"]
    opened = mlflow.pyfunc.load_model(model.artifact_location)
    table = store.hypotheses(finished.run, "test")
    assert opened.predict(list(table["source"])) == list(table["hypothesis"])
    params = opened.metadata.get_params_schema()
    assert params is not None
    assert params.to_dict()[0]["default"] == 2  # the run's own beam
    assert len(opened.predict(opened.input_example)) == 1


def test_a_promoted_model_has_an_address(finished: JobResult, store: Store) -> None:
    assert finished.run
    address = store.promote(finished.run, "nmt-en-de")
    assert address == "models:/nmt-en-de/1"
    assert store.promote(finished.run, "nmt-en-de") == address  # the same model gets no new version
    assert trained_model.find_run(store, address).id == finished.run.id
    with pytest.raises(ValueError, match="there are: models:/nmt-en-de/1"):
        trained_model.find_run(store, "models:/nmt-en-de/7")


@pytest.mark.parametrize("name", ["own's", 'say "x"', 'it\'s "x" \\', "50% _ #?&", "日本 語", "-x", "' OR name = 'x"])
def test_a_model_can_have_any_printable_name(finished: JobResult, store: Store, name: str) -> None:
    assert finished.run
    address = store.promote(finished.run, name)
    assert address == f"models:/{name}/1"
    assert store.promote(finished.run, name) == address
    assert trained_model.find_run(store, address).id == finished.run.id


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "", " ", "a ", "two\nlines", "\0", "\udc80", ".", ".."])
def test_a_name_that_no_model_can_have_is_refused(finished: JobResult, store: Store, name: str) -> None:
    assert finished.run
    before = len(store.client.search_registered_models())
    with pytest.raises(ValueError, match=r"^--name: .*; choose another"):
        store.promote(finished.run, name)
    assert len(store.client.search_registered_models()) == before


def test_a_model_whose_files_are_gone_is_an_error(finished: JobResult, store: Store, tmp_path: Path) -> None:
    """The store is copied, as it is when a folder is moved."""
    assert finished.run
    shutil.copytree(store.settings.path, tmp_path / "copy")
    copy = Store(TrackingSettings(None, str(tmp_path / "copy")))
    run = copy.run(finished.run.id)
    (model,) = copy.client.search_logged_models([copy.experiment_id("runs")], f"source_run_id = '{run.id}'")
    assert model.artifact_location.startswith((tmp_path / "copy").as_uri())
    assert copy.promote(run, "nmt") == "models:/nmt/1"
    (version,) = copy.client.search_model_versions("name = 'nmt'")
    assert str(version.source).startswith((tmp_path / "copy").as_uri())
    weights = next(Path(model.artifact_location.removeprefix("file://")).rglob("weights.pt"))
    weights.unlink()
    for command in (lambda: copy.promote(run, "other"), lambda: trained_model.load(copy, run.id)):
        with pytest.raises(MissingFile, match=rf"^{weights}: .*missing"):
            command()
    assert "other" not in {each.name for each in copy.client.search_registered_models()}


@pytest.mark.parametrize(
    "step",
    ["write_metadata", "_train_model", "evaluate_job", "_log_model", "RunWriter.measures", "RunWriter.finish"],
    ids=lambda step: step.strip("_"),
)
def test_a_job_that_fails_at_any_step_can_be_completed(
    finished: JobResult, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, tmp_path: Path
) -> None:
    job = experiment(folder, tracking__folder=tmp_path / "runs")  # the store is shared, checkpoints are not
    suite = f"fails in {step}"
    owner = bench.runs.job.RunWriter if step.startswith("RunWriter.") else bench.runs.job
    name = step.removeprefix("RunWriter.")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails_first(getattr(owner, name), RuntimeError("failed")))
        with pytest.raises(RuntimeError, match="failed"):
            run(job, store, suite)
    (failed,) = store.find(suite, job.job_hash)
    assert (failed.status, failed.tags["reason"]) == ("FAILED", "RuntimeError: failed")
    result = run(job, store, suite)
    assert result.run
    assert (result.run.id, result.run.status, result.state) == (failed.id, "FINISHED", "finished now")
    assert equal(weights(store, result, tmp_path), weights(store, finished, tmp_path))
    assert len(store.hypotheses(result.run, "test")) == 12
    measures = {measure.metric: measure.value for measure in result.measures}
    assert measures["updates"] == 12
    assert result.run.tags["vocabulary.target"] == (finished.run.tags["vocabulary.target"] if finished.run else "")
    for name in ("test/bleu", "validation/bleu", "train/loss"):
        history = store.client.get_metric_history(result.run.id, name)
        assert len({metric.step for metric in history}) == len(history), name


def test_a_job_that_fails_while_metadata_is_written_may_continue_elsewhere(
    finished: JobResult, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With other threads and another folder, which are not part of the job; a run keeps its first parameters."""
    suite = "fails in metadata"
    with monkeypatch.context() as patch:
        patch.setattr(
            bench.runs.metadata, "cached_stats", fails_first(bench.runs.metadata.cached_stats, RuntimeError("failed"))
        )
        with pytest.raises(RuntimeError, match="failed"):
            run(experiment(folder, machine__threads=2, tracking__folder=tmp_path / "a"), store, suite)
    result = run(experiment(folder, tracking__folder=tmp_path / "b"), store, suite)
    assert result.run
    assert (result.run.status, result.run.params["machine.threads"]) == ("FINISHED", "2")
    assert len(store.find(suite, result.experiment.job_hash)) == 1
    assert equal(weights(store, result, tmp_path), weights(store, finished, tmp_path))


def test_points_that_were_not_sent_are_sent_later(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = experiment(folder, tracking__folder=tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(bench.runs.job.RunWriter, "curve", lambda self, points: None)
        patch.setattr(bench.runs.job, "evaluate_job", fails_first(bench.runs.job.evaluate_job, RuntimeError("failed")))
        with pytest.raises(RuntimeError):
            run(job, store, "unsent")
    (failed,) = store.find("unsent", job.job_hash)
    assert store.client.get_metric_history(failed.id, "train/loss") == []
    result = run(job, store, "unsent")
    assert result.run
    assert [metric.step for metric in store.client.get_metric_history(failed.id, "train/loss")] == list(range(1, 13))


def test_a_diverged_run_has_failed(store: Store, folder: Path, tmp_path: Path) -> None:
    job = experiment(folder, tracking__folder=tmp_path / "runs", training__optimizer__lr="1e30", training__clip="null")
    with pytest.raises(Diverged):
        run(job, store, "diverged")
    (failed,) = store.find("diverged", job.job_hash)
    assert failed.status == "FAILED"
    assert failed.tags["reason"].startswith("not a number: the training loss is")


@pytest.mark.parametrize("where", ["validate", "evaluate_job"])
def test_a_signal_leaves_a_run_that_continues(
    finished: JobResult, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, tmp_path: Path
) -> None:
    job = experiment(folder, tracking__folder=tmp_path / "runs")
    suite = f"signal in {where}"
    real = getattr(bench.runs.job, where)

    def signalled(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bench.runs.job, where, signalled)
        with pytest.raises(Interrupted):
            run(job, store, suite)
    (killed,) = store.find(suite, job.job_hash)
    assert (killed.status, killed.tags["reason"]) == (
        "KILLED",
        "SIGTERM: the run is saved; run the same command again to resume",
    )
    result = run(job, store, suite)
    assert result.run
    assert result.run.id == killed.id
    assert "reason" not in result.run.tags
    assert equal(weights(store, result, tmp_path), weights(store, finished, tmp_path))


def test_the_first_status_arrives_when_the_run_exists(store: Store, folder: Path, tmp_path: Path) -> None:
    job, seen = experiment(folder, tracking__folder=tmp_path / "runs"), list[tuple[int, int]]()

    def on_status(status: Status) -> None:
        if not seen:
            seen.append((status.updates, len(store.find("first status", job.job_hash))))

    run(job, store, "first status", on_status=on_status)
    assert seen == [(0, 1)]


def test_again_starts_a_new_run_from_the_beginning(
    finished: JobResult, store: Store, folder: Path, tmp_path: Path
) -> None:
    result = run(experiment(folder), store, "runs", again=True)
    assert result.run
    assert finished.run
    assert result.run.id != finished.run.id
    assert equal(weights(store, result, tmp_path), weights(store, finished, tmp_path))
    assert list((folder / "runs" / "jobs").rglob("*.ckpt")) == [], "a finished job needs no checkpoints"
    assert list((folder / "runs" / "jobs").rglob("*.pt")) == []


def test_another_text_under_the_same_name_is_another_run(
    finished: JobResult, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_job.write_corpus(tmp_path)
    with (tmp_path / "train.en").open("a") as source, (tmp_path / "train.de").open("a") as target:
        source.write("The man sleeps.\n")
        target.write("Der Mann schläft.\n")
    other = experiment(tmp_path)
    assert other.job_hash == finished.experiment.job_hash
    first = run(other, store, "runs")
    assert first.run
    assert finished.run
    assert (first.state, first.run.id == finished.run.id) == ("finished now", False)
    assert capsys.readouterr().out.count("is of another text under the same name; a new run begins") == 1
    again = run(finished.experiment, store, "runs")
    assert again.run
    assert (again.state, again.run.tags["data"]) == ("finished before", finished.run.tags["data"])


def test_a_job_that_another_process_has_just_finished_is_not_started(
    finished: JobResult, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def none_at_first(*arguments: Any) -> Any:
        calls.append(1)
        return None if len(calls) == 1 else real(*arguments)

    real = bench.runs.job.latest_run
    monkeypatch.setattr(bench.runs.job, "latest_run", none_at_first)
    assert run(experiment(folder), store, "runs").state == "finished before"
    assert len(calls) == 2


def test_a_job_is_executed_by_one_process(store: Store, folder: Path) -> None:
    job = experiment(folder, seed=9)
    jobs = folder / "runs" / "jobs" / "locked"
    jobs.mkdir(parents=True)
    with (
        filelock.FileLock(jobs / f".{job.job_hash}.lock"),
        pytest.raises(ValueError, match="another process executes this job; wait until it ends, or stop it"),
    ):
        run(job, store, "locked")
    assert store.find("locked", job.job_hash) == []


def test_sources_may_be_longer_in_translation_than_in_training(folder: Path) -> None:
    words = {"text__kind": "words", "text__joint": False, "text__max_length": 9}
    long = Split(["man " * 50, "man"], ["Mann", "Mann"])
    for limit, length in ((None, 9), (20, 20)):
        job_data = JobData.of(experiment(folder, text__max_source_length="null" if limit is None else limit, **words))
        sources, over = job_data.cut(long)
        assert ([len(source) for source in sources], over) == ([length, 1], 1)
        assert job_data.max_length == 9
    with pytest.raises(ValueError, match=r"text\.max_source_length: 0 is too small; at least 1"):
        JobData.of(experiment(folder, text__max_source_length=0))


def test_the_provenance_of_a_score_names_the_beam_search(folder: Path, store: Store, tmp_path: Path) -> None:
    job = experiment(folder, decoding__coverage=0.2, decoding__prune=3.0, tracking__folder=tmp_path / "runs")
    measures = {measure.metric: measure for measure in run(job, store, "searched").measures}
    assert measures["test/bleu"].provenance.endswith("; beam 2, alpha 1.0, coverage 0.2, pruned at 3.0")


LONG, OVER = 40, 300
"""Numbers of copies of a sentence that make a pair longer than a batch, and longer than text.max_length."""


def write_val(folder: Path, copies: list[int], test: int = 1) -> dict[str, object]:
    """Writes a validation set of pairs that are repeated, and a test set; returns the settings of a job on them."""
    for name, counts in (("odd", copies), ("few", [1] * test)):
        lines = list(zip(tiny_job.pairs(20, 7), counts, strict=False))
        for side, end in enumerate(("en", "de")):
            text = "".join(" ".join([pair[side]] * count) + "\n" for pair, count in lines)
            (folder / f"{name}.{end}").write_text(text, encoding="utf-8")
    files = {key: f"[{folder}/{name}.en,{folder}/{name}.de]" for key, name in (("val", "odd"), ("test", "few"))}
    limits = {"text__max_length": 1000, "training__batch_tokens": 300}
    return {**{f"corpus__{key}": value for key, value in files.items()}, **limits}


def test_a_measure_that_cannot_be_taken_does_not_cost_the_run(
    folder: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six validation pairs every second is over the limit of length, and one is longer than a training batch."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no\nmemory")

    monkeypatch.setattr(bench.evaluation.evaluate.latency, "measure", fail)
    monkeypatch.setattr(bench.evaluation.evaluate.attention_maps, "sentence_attention", fail)
    changed = write_val(tmp_path, [1, OVER, LONG, OVER, 1, OVER])
    result = run(experiment(folder, **changed), store, "odd")
    measures = {measure.metric: measure for measure in result.measures}
    assert result.run
    assert result.run.status == "FINISHED"
    loss, shuffled = measures["validation_loss"], measures["validation_loss_shuffled_sources"]
    assert loss.provenance.endswith("; 3 pairs over 1000 tokens left out")
    assert shuffled.value is not None
    assert shuffled.value != loss.value
    assert measures["test/bleu"].value is not None
    for metric, unit, reason in (
        ("test/bleu_shuffled_references", "percent", "ValueError: the test set has one sentence; two are needed"),
        ("latency_p50_ms", "ms", "RuntimeError: no memory"),
        ("sentences_per_s", "1/s", "RuntimeError: no memory"),
    ):
        measure = measures[metric]
        assert (measure.value, measure.unit, measure.provenance) == (None, unit, f"not measured: {reason}")
    printed = capsys.readouterr().out
    assert "left out: 3 of 6 validation pairs over 1000 tokens (text.max_length)" in printed
    assert "attention maps: not measured: RuntimeError: no memory" in printed


def test_what_evaluation_needs_is_checked_before_training(folder: Path, store: Store, tmp_path: Path) -> None:
    job = experiment(folder, **write_val(tmp_path, [OVER] * 10))
    with pytest.raises(
        ValueError, match=r"^text\.max_length: none of 10 sentence pairs of validation has at most 1000"
    ):
        run(job, store, "never")
    assert store.find("never", job.job_hash) == []


def test_one_validation_pair_has_no_shuffled_loss(folder: Path, tmp_path: Path) -> None:
    job_data = JobData.of(experiment(folder, **write_val(tmp_path, [OVER, 1])))
    with pytest.raises(ValueError, match="1 validation pair has at most 1000 tokens; two are needed"):
        shuffled_loss(model_of(experiment(folder), job_data), job_data)


def test_a_split_in_the_other_order_is_a_warning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of the files do not tell the language, so only the text does. It is printed before training."""
    for name, language in (("a", "de"), ("b", "en")):
        (tmp_path / f"{name}.txt").write_bytes((folder / f"val.{language}").read_bytes())
    job = experiment(folder, corpus__val=f"[{tmp_path}/a.txt,{tmp_path}/b.txt]", training__max_updates=1)
    result = run(job, Store(TrackingSettings(None, str(folder / "runs"))), "exchanged")
    printed = capsys.readouterr().out
    assert "warning: files-en-de: the en side of validation resembles the de side of train" in printed
    assert result.run


# --- the score that selects the weights -------------------------------------------------------------------------------


def test_short_targets_are_selected_by_chrf(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_job.write_words(tmp_path)
    result = run(experiment(tmp_path, training__max_updates=30, training__validations=5), store, "words")
    assert result.run
    assert result.run.tags["validation_score"] == "validation_chrf"
    assert result.run.tags["bleu_tokenizer"] == "13a"
    assert "weights on files-en-de are selected by chrF2, because only 0 of 12" in capsys.readouterr().out
    measures = {measure.metric: measure for measure in result.measures}
    curve = store.curves(result.run)
    points = curve[curve["name"] == "validation/chrf"]
    chrf = dict(zip(points["update"], points["value"], strict=True))
    assert len(chrf) == 5
    best = measures["best_update"]
    assert chrf[best.value] == max(chrf.values()) == measures["validation_chrf"].value
    assert best.provenance.startswith("selected by chrF2, because only 0 of 12 validation references have the 4 tokens")


def test_every_bleu_of_a_chinese_target_has_the_tokenizer_that_fits(tmp_path: Path, store: Store) -> None:
    tiny_job.write_corpus(tmp_path)
    for split, lines in {"train": 200, "val": 12, "test": 12}.items():
        chinese = [f"那个男人看见了{'狗鸟树'[n % 3]}和{n % 10}个国王。" for n in range(lines)]
        (tmp_path / f"{split}.zh").write_text("".join(f"{line}\n" for line in chinese), encoding="utf-8")
    corpus = {
        f"corpus__{split}": f"[{tmp_path}/{split}.en,{tmp_path}/{split}.zh]" for split in ("train", "val", "test")
    }
    result = run(experiment(tmp_path, **corpus), store, "chinese")
    assert result.run
    assert result.run.tags["bleu_tokenizer"] == "zh"
    of_bleu = {m.metric: m for m in result.measures if m.metric.startswith("test/bleu")}
    assert "tok:13a" in of_bleu.pop("test/bleu_13a").provenance
    signed = {name: measure.provenance for name, measure in of_bleu.items() if "sacreBLEU" in measure.provenance}
    assert {"test/bleu", "test/bleu_lowercase"} == signed.keys()
    assert any(name.startswith("test/bleu/length/") for name in of_bleu)
    assert [name for name, provenance in signed.items() if "tok:zh" not in provenance] == []
    stored = {one.metric: one.tokenizer for one in store.statistics(result.run, "test")}
    assert (stored["bleu"], stored["bleu_13a"]) == ("zh", "13a")
    validation = next(measure for measure in result.measures if measure.metric == "validation_bleu")
    assert validation.provenance.endswith("; tokenizer zh")


def test_a_score_that_is_constant_is_a_warning(
    tmp_path: Path, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.0])
    monkeypatch.setattr(bench.runs.job, "validate", lambda *_: Score(0.0, 0.0, next(losses)))
    result = run(experiment(folder, tracking__folder=tmp_path / "runs", seed=12), store, "constant")
    assert result.run
    printed = capsys.readouterr().out
    assert "warning: the validation BLEU was 0 at all 3 validations, so it could not select weights" in printed
    assert result.run.tags["validation_score.constant"] == "0"
    best = next(measure for measure in result.measures if measure.metric == "best_update")
    assert best.value == 8  # the second of the validations at the updates 4, 8 and 12
    assert best.provenance.endswith("; it was 0 at all 3 validations, so the lowest loss selected")


def test_a_run_that_another_tokenizer_selected_is_another_job(finished: JobResult, store: Store, folder: Path) -> None:
    """A run of an earlier version has no tags; BLEU with 13a selected it."""
    job = experiment(folder)
    before = bench.runs.job.latest_run(job, store, "runs")
    ids = [one.id for one in store.find("runs", finished.experiment.job_hash)]
    for run_id in ids:
        store.client.set_tag(run_id, "bleu_tokenizer", "char")
    assert bench.runs.job.latest_run(job, store, "runs") is None
    for run_id in ids:
        for tag in ("bleu_tokenizer", "validation_score"):
            store.client.delete_tag(run_id, tag)
    found = bench.runs.job.latest_run(job, store, "runs")
    assert before
    assert found
    assert found.id == before.id


def test_a_tokenizer_that_is_not_installed_is_refused_before_a_run_begins(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_job.write_corpus(tmp_path)
    monkeypatch.setattr(selection, "tokenizer", fails_first(selection.tokenizer, RuntimeError("no\ndictionary")))
    job = experiment(tmp_path, text__bleu_tokenizer="ja-mecab", tracking__folder=tmp_path / "runs")
    with pytest.raises(ValueError, match=r"needs the tokenizer ja-mecab, which is not installed \(no dictionary\)"):
        run(job, store, "refused")
    assert store.find("refused", job.job_hash) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("runs", "best"),
    [
        ([(0.0, 2.0, "13a"), (0.0, 1.0, "13a"), (0.0, 3.0, "13a")], 1),
        ([(5.0, 2.0, "13a"), (0.0, 1.0, "13a")], 0),
        ([(50.0, 1.0, "13a"), (9.0, 2.0, "zh"), (8.0, 1.0, "zh")], 1),  # the first is of an earlier version
        ([(1.0, 2.0, "13a"), (None, None, "13a")], 0),
    ],
)
def test_the_best_run_of_a_row(
    store: Store, request: pytest.FixtureRequest, runs: list[tuple[float | None, float | None, str]], best: int
) -> None:
    suite, ids = f"best {request.node.name}", []
    tags = {"row": "lstm", "corpus": "c", "direction": "en-de"}
    for bleu, loss, tokenizer in runs:
        writer = store.begin(suite, "lstm", tags | {"bleu_tokenizer": tokenizer})
        values = {"validation_bleu": bleu, "validation_loss": loss}
        writer.measures([Measure(name, value, "1") for name, value in values.items()])
        writer.finish("FINISHED")
        ids.append(writer.id)
    assert trained_model.find_run(store, f"best:{suite}/lstm").id == ids[best]


def test_the_best_run_of_a_direction(store: Store) -> None:
    ids = {}
    for direction in ("en-de", "en-fr"):
        writer = store.begin("both", "lstm", {"row": "lstm", "corpus": f"c-{direction}", "direction": direction})
        writer.measures([Measure("validation_bleu", 1.0, "1")])
        writer.finish("FINISHED")
        ids[direction] = writer.id
    for direction, run_id in ids.items():
        assert trained_model.find_run(store, f"best:both/lstm/{direction}").id == run_id
    for reference, message in (
        (
            "best:both/lstm",
            r"lstm: trained in several directions, en-de, en-fr; add one, such as .*lstm/en-(de|fr)$",
        ),
        ("best:both/lstm/fr-en", "lstm/fr-en: no finished run of that direction; there are: en-de, en-fr"),
        ("best:both/gru/en-de", "gru/en-de: no finished run of that row; there are: lstm"),
    ):
        with pytest.raises(ValueError, match=message):
            trained_model.find_run(store, reference)
