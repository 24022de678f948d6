"""Ensembles: the mean of probabilities, the jobs of the members, and a run whose costs are those of its members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import bench.evaluation.evaluate
import bench.runs.job
from bench.cli.main import main
from bench.decoding import beam_search
from bench.decoding.beam_search import DecodingSettings, translate
from bench.decoding.ensemble import Ensemble
from bench.evaluation import trained_model
from bench.evaluation.evaluate import SUMMED
from bench.experiment.loading import experiment_from_settings, resolve
from bench.experiment.spec import Experiment
from bench.experiment.yaml_layers import EXPERIMENTS
from bench.runs.job import JobResult, run
from bench.runs.suite import Suite
from bench.tracking.store import Store, TrackingSettings
from models.parts.translator import Translator
from tests.helpers import quick_evaluation, tiny_job, tracking_folder
from tests.models.test_contract import batch, build, decode_all, decode_stepwise

FILE = """
model: {name: transformer}
presets: {demo: {}}
rows:
  one: {about: {name: One, year: 2017, paper: Own 2017, family: attention}}
  more: {ensemble: {of: one}, about: {name: More, year: 2017, paper: Own 2017, family: attention}}
"""
SEARCH = DecodingSettings(beam=3)
SOURCES = [[5, 9, 7], [4, 6, 8, 10, 12], [11]]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_evaluation.without_timings(), tracking_folder.fast_writes():
        yield


# --- the model --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_probabilities_are_averaged() -> None:
    members = [build(row).double() for row in ("bahdanau", "convs2s", "luong")]
    ensemble = Ensemble(members).eval()
    found_BTV = ensemble.project(decode_all(ensemble, batch())).exp()
    wanted_BTV = torch.stack(
        [torch.softmax(member.project(decode_all(member, batch())), -1) for member in members]
    ).mean(0)
    torch.testing.assert_close(found_BTV, wanted_BTV, atol=1e-12, rtol=0)
    torch.testing.assert_close(found_BTV.sum(-1), torch.ones_like(found_BTV[..., 0]))


@torch.no_grad()
def test_attention_is_averaged_if_all_members_have_it() -> None:
    members = [build(row).double() for row in ("bahdanau", "luong")]
    (one_BS, *_), (other_BS, *_) = (decode_stepwise(member, batch())[1] for member in members)
    (both_BS, *_) = decode_stepwise(Ensemble(members).eval(), batch())[1]
    assert one_BS is not None
    assert other_BS is not None
    assert both_BS is not None
    torch.testing.assert_close(both_BS, (one_BS + other_BS) / 2)
    assert decode_stepwise(Ensemble([*members, build("lstm").double()]).eval(), batch())[1] == [None] * 9


def test_an_ensemble_of_one_model_twice_equals_that_model() -> None:
    model = build("bahdanau").double()
    twice = Ensemble([model, model])
    settings = DecodingSettings(beam=3, coverage=0.2)
    wanted = translate(model, SOURCES, settings)
    found = translate(twice, SOURCES, settings)
    for one, other in zip(wanted, found, strict=True):
        assert [hypothesis.ids for hypothesis in one] == [hypothesis.ids for hypothesis in other]
        assert [h.log_probability for h in one] == pytest.approx([h.log_probability for h in other], abs=1e-9)


def test_sizes_and_costs_are_sums_over_members() -> None:
    members = [build("bahdanau"), build("convs2s")]
    ensemble = Ensemble(members)
    assert ensemble.flops(9, 7) == members[0].flops(9, 7) + members[1].flops(9, 7)
    assert ensemble.flops_step(9, 3) == members[0].flops_step(9, 3) + members[1].flops_step(9, 3)
    assert ensemble.parameter_counts()[0] == sum(member.parameter_counts()[0] for member in members)
    assert ensemble.multiplied_parameters() == sum(member.multiplied_parameters() for member in members)


# --- the job and those of its members ---------------------------------------------------------------------------------


def test_members_are_jobs_of_the_single_model_row() -> None:
    path = EXPERIMENTS / "gnmt.yaml"
    second = resolve(path, row="gnmt-ensemble", flags=["--seed", "2"])
    assert [member.job_hash for member in second.members] == [
        resolve(path, row="gnmt", flags=["--seed", seed]).job_hash for seed in ("3", "4")
    ]
    assert {(member.row, member.about.name) for member in second.members} == {("gnmt", "GNMT + RL")}
    assert (second.row, second.about.name) == ("gnmt-ensemble", "GNMT + RL Ensemble")
    three = resolve(path, row="gnmt-ensemble", flags=["--seed", "2", "--ensemble.members", "3"])
    assert len({second.job_hash, three.job_hash, *(member.job_hash for member in second.members)}) == 4
    assert experiment_from_settings(second.settings) == second
    single = resolve(path, row="gnmt", flags=["--ensemble.members", "3"])
    assert single.job_hash == resolve(path, row="gnmt").job_hash
    assert "ensemble" not in single.settings


@pytest.mark.parametrize(("preset", "members"), [("demo", 2), ("multi30k-cpu", 2), ("multi30k", 3), ("paper", 8)])
def test_number_of_members_in_each_preset(preset: str, members: int) -> None:
    for file in ("gnmt", "convs2s", "deep_att"):
        row = f"{file.replace('_', '-')}-ensemble"
        assert len(resolve(EXPERIMENTS / f"{file}.yaml", preset=preset, row=row).members) == members


def test_a_suite_runs_each_ensemble_right_after_its_members() -> None:
    suite = Suite(rows=["gnmt-ensemble", "luong", "gnmt"], seeds=[1, 2])
    found = [(experiment.row, experiment.seed) for experiment in suite.experiments([])]
    assert found == [
        *(("gnmt", 1), ("gnmt", 2), ("gnmt-ensemble", 1), ("luong", 1)),
        *(("gnmt", 3), ("gnmt", 4), ("gnmt-ensemble", 2), ("luong", 2)),
    ]


def test_invalid_ensembles_are_refused(tmp_path: Path) -> None:
    for flag, said in (("--ensemble.members=1", "at least 2"), ("--ensemble.of=gnmt", "is no flag")):
        with pytest.raises(ValueError, match=said):
            resolve(EXPERIMENTS / "convs2s.yaml", flags=[flag])
    for of in ("oen", "more"):  # no such row; an ensemble of ensembles
        (tmp_path / "own.yaml").write_text(FILE.replace("of: one", f"of: {of}"))
        with pytest.raises(ValueError, match=f"no row '{of}'.*one"):
            resolve(tmp_path / "own.yaml", row="more")


# --- its run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    tiny_job.write_corpus(folder)
    (folder / "own.yaml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store(TrackingSettings(None, str(tracking_folder.create(folder / "runs"))))


def experiment(folder: Path, row: str, **changed: object) -> Experiment:
    return resolve(folder / "own.yaml", row=row, flags=tiny_job.flags(folder, **changed))


@pytest.fixture(scope="module")
def single(folder: Path, store: Store) -> JobResult:
    return run(experiment(folder, "one"), store, "runs")


@pytest.fixture(scope="module")
def finished(single: JobResult, folder: Path, store: Store) -> JobResult:
    """An ensemble whose first member was trained before. Its first two attempts fail: once while the second member is
    evaluated and once while the ensemble is evaluated.
    """
    real, lives = bench.runs.job.evaluate_job, iter((False, True, False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.runs.job, "evaluate_job", lambda *given: real(*given) if next(lives) else 1 / 0)
        for started in (["one", "one"], ["more", "one", "one"]):
            with pytest.raises(ZeroDivisionError):
                run(experiment(folder, "more"), store, "runs")
            assert [run.tags["row"] for run in store.runs("runs")] == started
    return run(experiment(folder, "more"), store, "runs")


def test_the_run_of_an_ensemble_names_the_runs_of_its_members(
    finished: JobResult, single: JobResult, store: Store
) -> None:
    assert finished.run
    assert single.run
    assert (finished.state, finished.run.status) == ("finished now", "FINISHED")
    members = [store.run(run_id) for run_id in finished.run.tags["members"].split(", ")]
    assert [(member.tags["row"], member.tags["name"], member.tags["seed"]) for member in members] == [
        ("one", "One", "1"),
        ("one", "One", "2"),
    ]
    assert members[0].id == single.run.id
    assert len(store.runs("runs")) == 3


def test_the_costs_of_a_run_are_sums_over_members(finished: JobResult, store: Store) -> None:
    assert finished.run
    members = [
        {measure.metric: measure.value for measure in store.measures(store.run(run_id)) if measure.value is not None}
        for run_id in finished.run.tags["members"].split(", ")
    ]
    found = {measure.metric: measure for measure in finished.measures}
    for name in (*SUMMED, "params", "params_core"):
        if all(name in member for member in members):
            assert found[name].value == pytest.approx(sum(member[name] for member in members)), name
        else:  # few machines allow reading their energy
            assert (name, found[name].value) == ("energy_j", None)
            assert found[name].provenance.startswith("not measured")
    assert found["mfu"].value == pytest.approx((found["train_flops"].value or 0) / (found["clock_flops"].value or 1))
    assert found["memory_training_bytes"].value == max(member["memory_training_bytes"] for member in members)
    assert found["train_flops"].value
    assert found["train_flops"].provenance == "sum of 2 members"
    rates = [member["target_tokens_per_s"] for member in members]
    assert min(rates) <= (found["target_tokens_per_s"].value or 0) <= max(rates)
    assert found["best_update"].value is None


def test_the_same_command_prints_the_finished_run(finished: JobResult, folder: Path, store: Store) -> None:
    again = run(experiment(folder, "more"), store, "runs")
    assert (again.run, again.state, again.measures) == (finished.run, "finished before", finished.measures)


def test_again_starts_a_new_run_of_the_same_members(finished: JobResult, folder: Path, store: Store) -> None:
    again = run(experiment(folder, "more"), store, "runs", again=True)
    assert again.run
    assert finished.run
    assert again.run.id != finished.run.id
    assert again.run.tags["members"] == finished.run.tags["members"]
    bleu = {measure.metric: measure.value for measure in finished.measures}["test/bleu"]
    assert {measure.metric: measure.value for measure in again.measures}["test/bleu"] == bleu


def test_the_logged_model_translates_as_in_its_evaluation(finished: JobResult, folder: Path, store: Store) -> None:
    assert finished.run
    table = store.hypotheses(finished.run, "test")
    wanted = list(table["hypothesis"])
    loaded = trained_model.load(store, finished.run.id)
    assert [best.text for best, *_ in loaded.translate(list(table["source"]))[0]] == wanted
    members = [trained_model.load(store, run_id) for run_id in finished.run.tags["members"].split(", ")]
    joined = trained_model.join_ensemble(members)
    assert [best.text for best, *_ in joined.translate(list(table["source"]))[0]] == wanted
    scores = [[best.score for best, *_ in each.translate(list(table["source"]))[0]] for each in (joined, *members)]
    assert scores[0] not in scores[1:]
    with pytest.raises(ValueError, match="is an ensemble; name the runs of its members"):
        trained_model.join_ensemble([members[0], loaded])
    elsewhere = [replace(member, model=member.model.to("meta")) for member in members]
    assert trained_model.join_ensemble(elsewhere).model.device.type == "meta"  # the device to which sources are moved


def test_translate_with_a_second_run(
    finished: JobResult, folder: Path, store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert finished.run
    one, other = finished.run.tags["members"].split(", ")
    table = store.hypotheses(finished.run, "test")
    flags = ["--tracking.folder", str(folder / "runs")]
    assert main(["translate", one, "--with", other, *flags, *table["source"]]) == 0
    assert capsys.readouterr().out.splitlines() == list(table["hypothesis"])
    words = run(experiment(folder, "one", text__kind="words"), store, "words").run
    assert words
    assert main(["translate", one, "--with", words.id, *flags, "The man"]) == 2
    assert "an ensemble needs one source vocabulary" in capsys.readouterr().err


def test_greedy_search_accepts_an_ensemble(finished: JobResult, store: Store) -> None:
    assert finished.run
    model: Translator = trained_model.load(store, finished.run.id).model
    assert len(beam_search.greedy(model, SOURCES)) == 3
