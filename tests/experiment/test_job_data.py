"""The data of a job: its text has one Unicode normalization in every split, and any character in it is carried."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from bench.experiment import job_data
from bench.experiment.job_data import JobData
from bench.experiment.loading import resolve
from bench.experiment.spec import Experiment
from tests.helpers import tiny_job


def job(folder: Path, **changed: object) -> Experiment:
    return resolve(tiny_job.FILE, flags=tiny_job.flags(folder, **changed))


def test_decomposed_files_give_the_data_of_composed_ones(tmp_path: Path) -> None:
    """Training, validation and test sentences, vocabularies and hashes are equal, so the scores are equal, too."""
    composed, decomposed = tmp_path / "composed", tmp_path / "decomposed"
    for folder in (composed, decomposed):
        folder.mkdir()
        tiny_job.write_corpus(folder)
    for path in decomposed.iterdir():
        path.write_text(unicodedata.normalize("NFD", path.read_text(encoding="utf-8")), encoding="utf-8")
    kinds = {"text__kind": "words", "text__vocabulary_size": 30}
    one, other = (JobData.of(job(folder, **kinds)) for folder in (composed, decomposed))
    assert one.corpus.hashes == other.corpus.hashes
    assert one.corpus == other.corpus
    assert one.vocabularies == other.vocabularies
    kept = JobData.of(job(decomposed, **kinds, text__normalization="none"))
    assert kept.corpus.hashes != one.corpus.hashes
    assert any("ho\u0308rt" in sentence for sentence in kept.corpus.train.targets)


def test_a_validation_translates_the_first_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_data, "VALIDATION_SENTENCES", 5)
    tiny_job.write_corpus(tmp_path)
    data = JobData.of(job(tmp_path))
    assert len(data.corpus.validation.sources) > 5
    assert list(data.validation) == list(data.corpus.validation)[:5]
    assert len(data.validation_pairs) == 5


@pytest.mark.parametrize("kind", ["subwords", "words", "characters"])
def test_control_characters_are_text_like_any_other(tmp_path: Path, kind: str) -> None:
    tiny_job.write_corpus(tmp_path)
    for path in tmp_path.iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace("a", "a\x02\x00\ufffe"), encoding="utf-8")
    data = JobData.of(job(tmp_path, text__kind=kind, text__vocabulary_size=60))
    target = data.vocabularies.target
    for sentence in data.corpus.train.targets[:20]:
        (ids,) = target.encode([sentence])
        assert len(ids) > 3
        if kind != "words":
            unknown = {"subwords": "<unk>", "characters": "\x00"}  # SentencePiece learns no piece with a NUL
            assert target.decode([ids]) == [sentence.replace("\x00", unknown[kind])]
