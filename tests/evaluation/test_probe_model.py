"""The probes of a run, with the grammar's probes and a small untrained model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.data import find_corpus
from bench.data.corpora import grammar
from bench.data.corpus import CorpusSettings, Probes, Split
from bench.data.learn_vocabularies import build
from bench.data.vocabulary import TextSettings
from bench.evaluation import probe_model
from bench.experiment.job_data import JobData
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from bench.measures import alignment
from bench.measures.measure import Measure
from bench.tracking.store import Store
from models.parts.translator import Translator
from tests.helpers import tiny_job

SMALL = ["--corpus.pairs", "400", "--text.vocabulary_size", "300", "--model.width", "16", "--model.inner", "16"]
SMALL += ["--model.layers", "1", "--model.heads", "2", "--decoding.beam", "1", "--decoding.extra_length", "5"]
DEEPER = 20  # sentences of each depth beyond that of the training text


class FakeRunWriter:
    """Replaces an open run. Stores the tables that are written to it."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, list[Any]]] = {}

    def table(self, columns: dict[str, list[Any]], name: str) -> None:
        self.tables[name] = columns


@pytest.fixture(scope="module", autouse=True)
def small_probes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reduces the test sets and probes, which take 30 s to generate in full. They must not enter the shared cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(grammar, "TEST_PAIRS", 200)
        patch.setattr(grammar, "NAMES_PAIRS", 100)
        patch.setattr(grammar, "contrastive", partial(grammar.contrastive, size=60))
        patch.setattr(grammar, "nested", partial(grammar.nested, size=DEEPER))
        yield
    grammar._probes.cache_clear()
    grammar._generate_splits.cache_clear()


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("probes")
    return resolve(tiny_job.FILE, preset="demo", row=None, flags=[*SMALL, "--tracking.folder", str(folder)])


@pytest.fixture(scope="module")
def job_data(experiment: Experiment) -> JobData:
    return JobData.of(experiment)


@pytest.fixture(scope="module")
def model(experiment: Experiment, job_data: JobData) -> Translator:
    return experiment.build(len(job_data.vocabularies.source), len(job_data.vocabularies.target))


@pytest.fixture(scope="module")
def probes(experiment: Experiment) -> Probes:
    found = find_corpus.probes(experiment.corpus)
    assert found is not None
    return found


def test_the_probes_of_the_grammar(probes: Probes, job_data: JobData) -> None:
    assert list(dict.fromkeys(one.category for one in probes.contrasts)) == ["pronoun", "sense", "agreement", "order"]
    split = job_data.corpus.tests["test"]
    assert [(one.source, one.target) for one in probes.test] == list(split)
    assert {one.depth for one in probes.test} == {0, 1}
    assert {one.depth for one in probes.deeper} == {2, 3}
    trained = set(job_data.corpus.train.sources) | set(job_data.corpus.train.targets)
    assert not trained & {text for one in probes.deeper for text in (one.source, one.target)}
    assert not trained & {text for one in probes.contrasts for text in (one.source, one.right)}


def test_phenomena_that_the_target_language_lacks_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def contrastive(phenomenon: str, settings: CorpusSettings, *languages: str) -> list[Any]:
        if phenomenon != "order":
            raise ValueError(f"{languages[1]} does not show {phenomenon}")
        return made[:1]

    settings = CorpusSettings(pairs=400)  # those of the other tests
    made = grammar.contrastive("order", settings, size=8)
    monkeypatch.setattr(grammar, "contrastive", contrastive)
    monkeypatch.setattr(grammar, "nested", lambda *_: [])
    found = grammar._generate_probes(settings, "en", "de")
    (one,) = found.contrasts
    assert (one.source, one.right, one.wrong) == (made[0].source, made[0].right, (made[0].wrong,))
    assert (one.category, one.distance) == ("order", made[0].distance)


def test_the_target_only_model_is_computed_once_for_all_rows(
    probes: Probes, experiment: Experiment, job_data: JobData, model: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = job_data.corpus.train.targets[:50]
    first = probe_model.contrast_accuracies(model, job_data.vocabularies, probes.contrasts[:40], text)
    monkeypatch.setattr(probe_model.probes, "TargetOnly", None)  # so that a second computation fails
    again = JobData.of(experiment).vocabularies  # as the next row does
    assert again.target is not job_data.vocabularies.target
    assert probe_model.contrast_accuracies(model, again, probes.contrasts[:40], text) == first
    with pytest.raises(TypeError):
        probe_model.contrast_accuracies(model, again, probes.contrasts[:40], text[:-1])  # another text


@pytest.mark.parametrize("kind", ["subwords", "words", "characters"])
def test_pieces_of_every_kind_of_vocabulary_belong_to_words(probes: Probes, job_data: JobData, kind: Any) -> None:
    text = Split([one.source for one in probes.test], [one.target for one in probes.test])
    vocabularies = build(TextSettings(kind, 300), text)
    for one in probes.test:
        for vocabulary, sentence, words in (
            (vocabularies.source, one.source, one.source_words),
            (vocabularies.target, one.target, one.target_words),
        ):
            assert set(alignment.words_of(vocabulary.split(sentence), words)) == set(range(len(words)))


def test_all_probes_are_measured(experiment: Experiment, job_data: JobData, model: Translator) -> None:
    writer: Any = FakeRunWriter()
    found = {measure.metric: measure for measure in probe_model.probe(model, experiment, job_data, writer)}
    for phenomenon in ("pronoun", "sense", "agreement", "order"):
        ours, theirs = found[f"contrastive/{phenomenon}"], found[f"target_only/{phenomenon}"]
        for measure in (ours, theirs):
            assert measure.value is not None
            assert measure.low is not None
            assert measure.high is not None
            assert measure.low <= measure.value <= measure.high
        assert "chance 50.0%" in ours.provenance
        assert "5-gram model of 400 training targets" in theirs.provenance
    assert found["deeper/bleu/depth/2"].value is not None
    assert "beam 1; clauses deeper than any of the training text" in found["deeper/bleu/depth/3"].provenance
    assert len(writer.tables["hypotheses/deeper.json"]["hypothesis"]) == 2 * DEEPER
    # Untrained attention is nearly uniform: it finds the right word about as often as guessing does.
    assert (found["aer"].value or 0) > (found["aer_diagonal"].value or 100)


def test_models_without_attention_have_a_reason_instead_of_an_error_rate(
    experiment: Experiment, job_data: JobData, model: Translator, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "forced_attention", lambda *_: None)
    aer, baseline = probe_model.alignment_error_rates(model, job_data.vocabularies, probes.test[:50], 100)
    assert (aer.value, aer.provenance) == (None, "not measured: the model has no attention")
    assert baseline.value is not None


def test_scores_by_length_and_depth(experiment: Experiment, job_data: JobData) -> None:
    split = job_data.corpus.tests["test"]
    found = probe_model.scores_by_group("test", split, split.targets, experiment, "13a")
    names = [measure.metric for measure in found]
    assert names[:3] == ["test/bleu/length/1-5", "test/bleu/length/6-10", "test/bleu/length/11-15"]
    assert names[-2:] == ["test/bleu/depth/0", "test/bleu/depth/1"]
    assert all(measure.value in (None, pytest.approx(100)) for measure in found)


def test_a_corpus_of_sentence_pairs_has_no_probes(
    experiment: Experiment, job_data: JobData, model: Translator, tmp_path: Path
) -> None:
    tiny_job.write_corpus(tmp_path)
    train, val, test = ([f"{tmp_path}/{split}.en", f"{tmp_path}/{split}.de"] for split in ("train", "val", "test"))
    plain = replace(experiment, corpus=CorpusSettings("files", train=train, val=val, test=test))
    writer: Any = FakeRunWriter()
    assert probe_model.probe(model, plain, job_data, writer) == []
    assert writer.tables == {}
    split = find_corpus.load(plain.corpus).tests["test"]
    (short,) = probe_model.scores_by_group("test", split, split.targets, plain, "13a")
    assert (short.metric, short.value) == ("test/bleu/length/6-10", None)


def test_the_table_of_several_runs_has_the_phenomena_of_all_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grammar has no contrasts of word order in French."""

    def accuracy(name: str) -> tuple[str, Measure]:
        return f"contrastive/{name}", Measure(f"contrastive/{name}", 75.0, "percent", 70.0, 80.0, chance=50.0)

    of_corpus = {
        "grammar-en-fr": dict([accuracy("pronoun")]),
        "grammar-en-de": dict([accuracy("pronoun"), accuracy("order")]),
    }
    monkeypatch.setattr(probe_model, "run_accuracies", lambda run, *_: of_corpus[run.tags["corpus"]])
    runs: Any = [SimpleNamespace(tags={"name": "LSTM", "seed": "1", "corpus": corpus}) for corpus in of_corpus]
    columns, rows = probe_model.accuracy_table(runs, cast(Store, None), None)
    assert [title for title, _ in columns] == [
        "run",
        *("pronoun, %", "95 % interval", "target only, %"),
        *("order, %", "95 % interval", "target only, %"),
    ]
    assert [row[0] for row in rows] == ["LSTM, grammar-en-fr", "LSTM, grammar-en-de", "chance"]
    assert [row[4] for row in rows] == ["", "75.0", "50.0"]
