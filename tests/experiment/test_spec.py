"""Settings: merged layers, flags, strict parsing, and which settings change the hash of a job."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.experiment.commands import job_command, suite_command
from bench.experiment.fairness import setting_differences
from bench.experiment.loading import (
    corpus_settings,
    experiment_from_settings,
    merge_settings,
    presets_of,
    read_typed,
    resolve,
    row_files,
)
from bench.experiment.spec import Experiment, _without_nulls
from bench.experiment.yaml_layers import EXPERIMENTS, merge, nested_settings, read_yaml
from bench.runs.scale import Scale
from bench.runs.suite import Suite
from bench.sweep import equal_search
from bench.sweep.settings import Sweep
from tests.helpers import tiny_sweep

FILES = row_files()
EVERY = [(row, preset) for row in sorted(FILES) for preset in presets_of(FILES[row], row)]
TRANSFORMER = EXPERIMENTS / "transformer.yaml"


@pytest.fixture(scope="module", autouse=True)
def cached_parsing() -> Iterator[None]:
    with tiny_sweep.cached_parsing():
        yield


def write_file(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def error_of(call: Any, *arguments: Any, **settings: Any) -> str:
    """The message of the ValueError that a call raises. Checks that it is one line."""
    with pytest.raises(ValueError, match=r"\S") as raised:
        call(*arguments, **settings)
    message = str(raised.value)
    assert "\n" not in message
    return message


@functools.cache
def resolved(row: str, preset: str) -> Experiment:
    return resolve(FILES[row], preset=preset, row=row)


@pytest.mark.parametrize(("row", "preset"), EVERY)
def test_every_row_at_every_preset_parses_and_builds(row: str, preset: str) -> None:
    experiment = resolved(row, preset)
    assert (experiment.row, experiment.preset) == (row, preset)
    assert experiment.about.name
    assert experiment.about.year >= 1958
    assert experiment.about.paper
    with torch.device("meta"):
        model = experiment.build(*experiment.text.sizes)
    model.optimization = experiment.training
    model.configure_optimizers()
    assert model.flops(25, 25).training > 0


def test_the_rows_of_a_preset_share_corpus_and_budget() -> None:
    for preset in ("demo", "multi30k-cpu", "multi30k"):
        jobs = [resolved(row, preset) for row, name in EVERY if name == preset]
        assert len({(job.training.max_pairs, job.corpus_name) for job in jobs}) == 1, preset


def test_the_presets_of_a_row_come_from_all_its_layers() -> None:
    common = ["demo", "multi30k-cpu", "multi30k", "paper"]  # of base.yaml
    assert presets_of(FILES["lstm"], "lstm") == common  # the row itself defines `paper` as well
    assert presets_of(FILES["convs2s-ensemble"], "convs2s-ensemble") == [
        *common,
        "paper-code",
        "paper-en-fr",
        "paper-code-en-fr",
    ]


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_strict_yaml(path: Path) -> None:
    content = read_yaml(path)
    if "space" in content:
        assert Sweep.read(path).rows
    elif "pairs" in content:
        assert Scale.read(path).rows
    elif "rows" in content and "model" not in content:
        assert Suite.read(path).experiments([])


def test_the_first_row_is_the_default() -> None:
    assert resolve(TRANSFORMER).row == "transformer-base"
    assert resolve(TRANSFORMER).preset == "demo"


def test_later_layers_override_earlier_ones() -> None:
    earlier = {"a": {"b": 1, "c": {"d": 2}}, "list": [1, 2], "only": 0}
    later = {"a": {"c": {"d": 3, "e": 4}}, "list": [3]}
    assert merge(earlier, later) == {"a": {"b": 1, "c": {"d": 3, "e": 4}}, "list": [3], "only": 0}
    assert earlier["a"]["c"] == {"d": 2}


def test_another_optimizer_does_not_inherit_settings() -> None:
    adam = {"optimizer": {"name": "Adam", "lr": 0.1, "settings": {"betas": [0.9, 0.98]}}}
    assert merge(adam, {"optimizer": {"name": "SGD", "lr": 1.0}}) == {"optimizer": {"name": "SGD", "lr": 1.0}}
    assert merge(adam, {"optimizer": {"lr": 1.0}})["optimizer"]["settings"] == {"betas": [0.9, 0.98]}


def test_another_language_pair_has_the_settings_of_the_preset() -> None:
    """A comparison of two directions needs the same number of training pairs in both."""
    suite = Suite(rows=["mlp"], corpora=["grammar-en-de", "grammar-en-fr"])
    assert [(job.direction, job.corpus.pairs) for job in suite.experiments([])] == [("en-de", 8000), ("en-fr", 8000)]
    suite = Suite(rows=["mlp"], corpora=["grammar-en-fr"], settings={"corpus": {"pairs": 500, "lemmas": 20}})
    assert [(job.corpus.pairs, job.corpus.lemmas) for job in suite.experiments([])] == [(500, 20)]
    corpus = {"corpus": {"name": "grammar-en-de", "pairs": 8000}}
    assert merge(corpus, {"corpus": {"name": "multi30k-en-fr"}}) == {"corpus": {"name": "multi30k-en-fr"}}


def test_no_key_of_a_suite_or_sweep_is_dropped() -> None:
    suite = Suite(rows=["mlp"], corpora=["multi30k-en-de"], settings={"corpus": {"path": "F"}})
    (job,) = suite.experiments([])  # the preset's corpus has another name
    assert (job.corpus.path, job.corpus.name) == ("F", "multi30k-en-de")
    rate = {"training": {"optimizer": {"lr": 0.5}}}  # as a sweep finds it, without the name
    optimizer = resolve(TRANSFORMER, suite=[rate, {"training": {"optimizer": {"name": "SGD"}}}]).training.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.settings) == ("SGD", 0.5, {})
    named = {"training": {"optimizer": {"name": "Adam", "lr": 0.5}}}
    with pytest.raises(
        ValueError, match=r"^training\.optimizer: the settings lr were given for Adam, but a later layer"
    ):
        resolve(TRANSFORMER, suite=[named, {"training": {"optimizer": {"name": "SGD"}}}])
    assert nested_settings({"a.lr": 1, "a.name": "b", "a": {"c.d": 2}}) == {"a": {"lr": 1, "name": "b", "c": {"d": 2}}}


def test_a_key_without_a_value_changes_nothing() -> None:
    assert merge({"training": {"clip": 1.0}}, {"training": None}) == {"training": {"clip": 1.0}}
    assert merge({"training": {"clip": 1.0}}, {"training": {"clip": None}}) == {"training": {"clip": None}}


def test_a_dotted_key_is_the_same_key() -> None:
    assert merge({"training.clip": 1.0}, {"training": {"clip": 2.0}}) == {"training": {"clip": 2.0}}
    assert merge({"training": {"clip": 1.0}}, {"training.clip": 2.0}) == {"training": {"clip": 2.0}}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("rows: {one: {search_base: common}}", "rows.one: search_base: has no effect here; a row may have presets and"),
        ("presets: {demo: {variants: {}}}\nrows: {one: }", "presets.demo: variants: has no effect here; a preset may"),
        ("rows: {one: {presets: {demo: {rows: {}}}}}", "rows.one.presets.demo: rows: has no effect here"),
    ],
)
def test_a_key_in_a_place_where_it_is_not_read(tmp_path: Path, place: str, message: str) -> None:
    assert message in error_of(resolve, write_file(tmp_path, f"model: {{name: transformer}}\n{place}"))


def test_a_setting_that_a_suite_sets_twice(tmp_path: Path) -> None:
    for settings, own in (("{seed: 3}", "seeds ([1])"), ("{corpus: {name: a-en-de}}", "corpora (['b-en-de'])")):
        text = f"rows: [mlp]\ncorpora: [b-en-de]\nsettings: {settings}"
        assert f"has no effect, because {own} overrides it" in error_of(Suite.read, write_file(tmp_path, text))
    sweeps = write_file(tmp_path, "rows: [gnmt-ensemble]\nsweeps: {gnmt: sweep, mlp: sweep}")  # gnmt is its member
    assert "sweeps: mlp: has no effect, because the suite trains no row mlp" in error_of(Suite.read, sweeps)


def test_the_order_of_the_layers(tmp_path: Path) -> None:
    path = write_file(
        tmp_path,
        """
model: {name: transformer, layers: 1, width: 8, inner: 16}
decoding: {alpha: 0.1}
presets: {demo: {model: {width: 16, inner: 32, heads: 2}, decoding: {alpha: 0.2}}}
rows:
  one: {model: {inner: 48, heads: 4}, presets: {demo: {model: {heads: 8}}, only-here: {training: {max_updates: 3}}}}
  two:
""",
    )
    suite = [{"model": {"layers": 5}, "seed": 4}, {"seed": 7}]
    _, merged = merge_settings(path, "demo", "one", suite)
    assert merged["model"] == {"name": "transformer", "layers": 5, "width": 16, "inner": 48, "heads": 8}
    job = resolve(path, row="one", suite=suite, flags=["--model.layers", "6", "--decoding.alpha=0.3"])
    assert (job.model.layers, job.seed, job.decoding.alpha, job.text.kind) == (6, 7, 0.3, "subwords")
    assert resolve(path, row="two").decoding.alpha == 0.2
    assert resolve(path, row="one", preset="only-here").training.max_updates == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--training.max_update", "3"], "unknown key training.max_update; did you mean training.max_updates?"),
        (["--model.widht", "3"], "unknown key model.widht; did you mean model.width?"),
        (["--training.max_updates", "many"], "training.max_updates: expected int or null, got many"),
        (["--text.kind", "subword"], "text.kind: expected one of subwords, words, characters, got subword"),
        (
            ["--training.precision", "fp16"],
            "training.precision: expected one of 32-true, bf16-mixed, 64-true, got fp16",
        ),
        (["--corpus.train", "a.en"], "corpus.train: expected list or null, got a.en"),
        (["--training.optimizer.lr", "fast"], "training.optimizer.lr: expected float, got fast"),
        (["--decoding.beam", "0"], "decoding.beam: 0 is too small; at least 1"),
        (["--training.average", "20"], "training.average: 20 is more than training.validations 10"),
        (["--training.validations", "0"], "training.validations: 0 is too small; at least 1"),
        (["--training.max_pairs", "-5"], "training.max_pairs: -5 is too small; at least 1"),
        (["--training.max_seconds=-1"], "training.max_seconds: -1.0 is too small; more than 0"),
        (["--training.optimizer.lr", "0"], "training.optimizer.lr: 0.0 is too small; more than 0"),
        (["--training.schedule.every", "0"], "training.schedule.every: 0 is too small; at least 1"),
        (["--training.label_smoothing", "2"], "training.label_smoothing: 2.0 is not between 0 and 1"),
        (["--seed", "-1"], "seed: -1 is too small; at least 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_error_names_an_invalid_flag(flags: list[str], message: str) -> None:
    assert message in error_of(resolve, TRANSFORMER, flags=flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {name: transformer}\nrows: {a: {training: {max_update: 3}}}", "training.max_update; did you mean"),
        ("model: {name: transformer, widht: 3}\nrows: {a: }", "unknown key model.widht; did you mean model.width?"),
        ("model: {name: transformer, width: wide}\nrows: {a: }", "model.width: expected int, got wide"),
        ("model: {name: transfromer}\nrows: {a: }", "no model 'transfromer', did you mean transformer?"),
        ("model: {name: transformer}\nmodle: 3\nrows: {a: }", "unknown key modle"),
        ("model: {name: transformer}\nmodel: {name: x}\nrows: {a: }", "own.yaml, line 2: the key 'model' stands twice"),
        ("model: {name: transformer\n", "own.yaml, line 2:"),
        ("rows: {a: }", "not an architecture's file"),
        ("", "holds no settings"),
        ("- a\n- b", "holds no settings"),
        ("model: {name: transformer}\nrows: {a: }\x00", "own.yaml: unacceptable character"),
        ("model: {name: transformer}\nrows:", "rows: expected keys with settings below it, got None"),
        ("model: {name: transformer}\nrows: {}", "rows: names no row"),
        ("model: {name: transformer}\nrows: [a, b]", "rows: expected keys with settings below it, got ['a', 'b']"),
        ("model: {name: transformer}\nrows: {a: 3}", "rows.a: expected keys with settings below it, got 3"),
        ("model: {name: transformer}\npresets: {demo: 3}\nrows: {a: }", "presets.demo: expected keys"),
        ("model: transformer\nrows: {a: }", "model: expected keys with settings below it, got 'transformer'"),
    ],
    ids=range(17),
)
def test_the_error_names_an_invalid_file(tmp_path: Path, text: str, message: str) -> None:
    path = write_file(tmp_path, text)
    answer = error_of(resolve, path)
    assert message in answer
    assert str(path) in answer or "did you mean transformer" in answer


def test_errors_of_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    assert "no row 'transformer-bse', did you mean transformer-base? there are: " in error_of(
        resolve, TRANSFORMER, row="transformer-bse"
    )
    assert "no preset 'multi30k-gpu', did you mean" in error_of(resolve, TRANSFORMER, preset="multi30k-gpu")
    assert "file not found; check the path; files in experiments/: " in error_of(resolve, tmp_path / "none.yaml")
    suite = write_file(tmp_path, "rows: [perceptron, transfromer-base]")
    assert "no row 'transfromer-base', did you mean transformer-base?" in error_of(Suite.read, suite)
    assert "rows: the list is empty; name at least one of: " in error_of(
        Suite.read, write_file(tmp_path, "preset: demo")
    )
    assert "unknown key presets; did you mean preset?" in error_of(Suite.read, write_file(tmp_path, "presets: demo"))
    assert "seeds: " in error_of(Suite.read, write_file(tmp_path, "seeds: many"))


def test_numbers_with_an_exponent_are_numbers(tmp_path: Path) -> None:
    content = read_yaml(write_file(tmp_path, "a: 1e-9\nb: 1.0e-9\nc: 3E4\nd: -2e3\ne: 1e\nf: e9\n"))
    assert content == {"a": 1e-9, "b": 1e-9, "c": 3e4, "d": -2000.0, "e": "1e", "f": "e9"}


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"model: {name: \xff}\n")
    assert "own.yaml: not UTF-8 at byte 14" in error_of(read_yaml, path)


@dataclasses.dataclass
class Kind:
    number: int = 1


def test_a_yaml_file_is_read_into_a_dataclass(tmp_path: Path) -> None:
    assert read_typed(write_file(tmp_path, "number: 3"), Kind) == Kind(3)
    assert "number: expected int, got x" in error_of(read_typed, write_file(tmp_path, "number: x"), Kind)


def job(*flags: str) -> Experiment:
    return resolve(TRANSFORMER, flags=list(flags))


@pytest.mark.parametrize(
    "flags",
    [
        ("--corpus.path", "elsewhere"),
        ("--machine.threads", "1"),
        ("--machine.accelerator", "cpu"),
        ("--machine.checkpoint_seconds", "5"),
        ("--tracking.folder", "elsewhere"),
        ("--tracking.uri", "http://tracking:5000"),
        ("--about.note", "a remark"),
        ("--text.normalization", "NFC"),
        ("--corpus.filters.max_ratio", "null"),
        ("--corpus.filters.duplicates", "false"),
    ],
    ids=" ".join,
)
def test_where_a_job_runs_does_not_change_its_hash(flags: tuple[str, ...]) -> None:
    assert job(*flags).job_hash == job().job_hash


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "2"),
        ("--model.width", "84"),
        ("--model.dropout", "0.2"),
        ("--text.vocabulary_size", "500"),
        ("--text.joint", "false"),
        ("--text.normalization", "none"),
        ("--training.max_pairs", "64001"),
        ("--training.optimizer.lr", "0.5"),
        ("--training.schedule.every", "7"),
        ("--training.batch_pairs", "7"),
        ("--training.precision", "bf16-mixed"),
        ("--training.average", "3"),
        ("--decoding.beam", "4"),
        ("--decoding.alpha", "0.5"),
        ("--corpus.name", "grammar-de-en"),
        ("--corpus.pairs", "7000"),
        ("--corpus.lemmas", "150"),
        ("--corpus.depth", "2"),
        ("--corpus.filters.min_words", "1"),
        ("--corpus.filters.max_ratio", "3"),
        ("--corpus.filters.script", "true"),
    ],
    ids=" ".join,
)
def test_settings_that_change_the_result_change_the_hash(flags: tuple[str, ...]) -> None:
    assert job(*flags).job_hash != job().job_hash


def test_each_value_of_a_filter_is_a_job_of_its_own() -> None:
    values = [("max_ratio", "3"), ("max_ratio", "4"), ("max_words", "3"), ("identical", "true"), ("duplicates", "true")]
    assert len({job(f"--corpus.filters.{key}", value).job_hash for key, value in values}) == len(values)


def test_jobs_of_earlier_versions_keep_their_hash() -> None:
    """The committed trials of a search have the hashes of the version that ran them."""
    sweep, row = Sweep.read(EXPERIMENTS / "tune-demo.yaml"), "bahdanau"
    assert equal_search.finished_trials(sweep, row, equal_search.trial_experiments(sweep, row))


def test_a_setting_that_is_null_does_not_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a later version can add a setting, with the default null, and still find the finished runs."""
    job = resolve(TRANSFORMER)
    name, settings = job.job_hash, job.settings
    monkeypatch.setattr(Experiment, "settings", settings | {"text": settings["text"] | {"invented_later": None}})
    assert job.job_hash == name
    monkeypatch.setattr(Experiment, "settings", settings | {"text": settings["text"] | {"invented_later": 1}})
    assert job.job_hash != name
    earlier = {key: value for key, value in settings["text"].items() if key != "normalization"}
    monkeypatch.setattr(Experiment, "settings", settings | {"text": earlier})
    assert job.job_hash == name


def test_every_setting_of_a_job_is_in_its_hash() -> None:
    """Covers row, model, text, training and decoding, including settings that are added later."""
    one = job()
    for group in ("model", "text", "training", "decoding"):
        for field in dataclasses.fields(getattr(one, group)):
            other = dataclasses.replace(one)
            changed = dataclasses.replace(getattr(one, group))
            object.__setattr__(changed, field.name, "changed" if field.name not in ("optimizer", "schedule") else None)
            object.__setattr__(other, group, changed)
            assert other.job_hash != one.job_hash, f"{group}.{field.name}"
    assert dataclasses.replace(one, row="another").job_hash != one.job_hash


def test_an_experiment_is_restored_from_its_settings() -> None:
    one = job("--training.average", "3", "--seed", "5", "--corpus.test", "[a.en,a.de]")
    again = experiment_from_settings(one.settings)
    assert again == one
    assert again.job_hash == one.job_hash
    older = one.settings
    del older["decoding"]["batch_sentences"]  # as if an earlier version did not have this setting
    assert experiment_from_settings(older).decoding == one.decoding
    unknown = one.settings | {"novelty": 3}
    assert "not the settings of a run of this version" in error_of(experiment_from_settings, unknown)
    assert "not the settings of a run" in error_of(experiment_from_settings, {})


def test_flags_of_a_corpus() -> None:
    assert corpus_settings("multi30k-en-fr", ["--corpus.path", "x"]).path == "x"
    assert "unknown key corpus.paht; did you mean corpus.path?" in error_of(
        corpus_settings, "x", ["--corpus.paht", "x"]
    )


def test_the_large_suites_have_the_same_rows() -> None:
    ladder = Suite.read(EXPERIMENTS / "ladder.yaml").rows
    assert len(set(ladder)) == 20
    for name in ("multi30k-cpu", "table2-multi30k", "table2-multi30k-gpu", "table2-wmt14"):
        assert Suite.read(EXPERIMENTS / f"{name}.yaml").rows == ladder


def test_the_reference_suite_has_the_settings_that_its_file_describes() -> None:
    [german, french] = Suite.read(EXPERIMENTS / "reference-multi30k.yaml").experiments([])
    assert [german.corpus_name, french.corpus_name] == ["multi30k-en-de", "multi30k-en-fr"]
    assert german.training == french.training
    training = german.training
    assert (training.max_updates, training.max_pairs) == (3600, None)
    assert (training.batch_tokens, training.batch_pairs, training.clip) == (8192, None, None)
    assert german.decoding.length_penalty == "gnmt"
    assert (training.schedule.warmup, training.schedule.decay) == (2000, "inverse_sqrt")
    assert (training.optimizer.lr, training.label_smoothing, training.precision) == (0.005, 0.1, "bf16-mixed")
    assert (german.decoding.beam, german.text.joint, german.text.vocabulary_size) == (5, True, 10000)


def test_the_command_that_repeats_a_job() -> None:
    for row in ("mlp", "gnmt-ensemble", "transformer-base"):
        own = resolve(FILES[row], row=row)
        assert job_command(own) == f"bench run experiments/{FILES[row].name} --row {row} --preset demo --seed 1"
    flags = ["--model.dropout", "0.25", "--corpus.path", "a folder", "--training.max_pairs", "null", "--seed", "3"]
    flags += ["--training.max_updates", "7", "--machine.threads", "1"]
    changed = resolve(FILES["lstm"], preset="multi30k-cpu", row="lstm", flags=flags)
    words = shlex.split(job_command(changed))
    assert words[:3] == ["bench", "run", "experiments/seq2seq.yaml"]
    again = resolve(FILES["lstm"], preset=words[6], row=words[4], flags=words[7:])
    assert again.job_hash == changed.job_hash
    assert again.corpus.path == "a folder"
    assert "machine" not in job_command(changed), "the machine does not change the result"


def test_a_row_that_is_not_in_experiments_has_no_command() -> None:
    assert job_command(dataclasses.replace(resolve(FILES["lstm"], row="lstm"), row="of-my-own")) == ""
    assert job_command(dataclasses.replace(resolve(FILES["lstm"], row="lstm"), row="mlp")) == "", "another architecture"


def test_different_decoding_settings_of_rows_are_listed() -> None:
    rows = {"gnmt": ("--decoding.coverage", "0.2"), "deep-att": (), "bahdanau": (), "lstm": ()}
    lines = setting_differences([resolve(FILES[row], row=row, flags=flags) for row, flags in rows.items()])
    assert "gnmt: decoding.coverage 0.2, most rows 0.0" in lines
    assert "deep-att: decoding.pos_unk dictionary, most rows keep" in lines
    two = setting_differences([resolve(FILES[row], row=row, flags=rows[row]) for row in ("gnmt", "lstm")])
    assert [line for line in two if "coverage" in line] == [
        "gnmt: decoding.coverage 0.2",
        "lstm: decoding.coverage 0.0",
    ]


def test_the_command_that_repeats_a_suite_contains_no_path_and_no_password() -> None:
    flags = [
        "--tracking.uri",
        "https://bob:secret@ml.example.org",
        "--training.max_pairs",
        "32000",
        "--machine.threads=1",
    ]
    flags += ["--corpus.train", "[a b.en,a b.de]", "--decoding.beam=2", "--tracking.folder=/home/alice"]
    expected = "--training.max_pairs 32000 --corpus.train '[a b.en,a b.de]' --decoding.beam=2"
    commands = [
        suite_command("suite", path, [1, 2], flags)
        for path in (EXPERIMENTS / "demo.yaml", Path("/home/alice/own.yaml"))
    ]
    assert commands == [f"bench suite {file} --seeds 1 2 {expected}" for file in ("experiments/demo.yaml", "own.yaml")]


def test_the_hash_contains_the_tokenizer_that_fits_the_language() -> None:
    """A run of an earlier version, which scored Chinese by 13a, is another job; a German one is the same job."""

    def files(language: str, *flags: str) -> str:
        train = f"[train.en,train.{language}]"
        return job("--corpus.name", "files", "--corpus.train", train, *flags).job_hash

    def setting(name: str) -> tuple[str, str]:
        return "--text.bleu_tokenizer", name

    assert files("de") == files("de", *setting("13a"))
    assert files("zh") == files("zh", *setting("zh")) != files("zh", *setting("13a"))
    assert files("ko") == files("ko", *setting("ko-mecab")) != files("ko", *setting("char"))
    one = job()
    without = {
        key: value for key, value in one.settings["text"].items() if key not in ("bleu_tokenizer", "normalization")
    }
    parts = {key: one.settings[key] for key in ("row", "model", "training", "decoding", "seed")} | {"text": without}
    parts["corpus"] = {"name": one.corpus_name, "pairs": 8000, "lemmas": 120, "depth": 1}
    plain = json.dumps(_without_nulls(parts), sort_keys=True)
    assert one.job_hash == hashlib.sha256(plain.encode()).hexdigest()[:16]  # as before the setting existed
