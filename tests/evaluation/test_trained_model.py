"""Unusual sentences to translate: `bench translate`, the evaluation of a test set and a served model agree on them.

The table in docs/corpora.md, "Sentences to translate". The models have their initial weights.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.cli.main import main
from bench.decoding import beam_search
from bench.evaluation import trained_model
from bench.evaluation.evaluate import score_test_sets
from bench.evaluation.serving import ServedTranslator
from bench.evaluation.trained_model import TrainedTranslator
from bench.experiment.job_data import JobData, model_of
from bench.experiment.loading import resolve, row_files
from bench.experiment.spec import Experiment
from bench.system.visible_text import visible_line
from bench.tracking import store
from bench.tracking.run_writer import RunWriter
from models.parts.batch import BOS, EOS, PAD
from tests.helpers import tiny_job

LIMIT = 60
SOURCE = "The man sees a dog 5."
LONGER = " ".join([SOURCE] * 3)
"""Longer than every training sentence, and within the limit."""

BLANK = ["", "   ", " \t ", "\u3000", "\u2028"]
CUT = ["man " * 300, "man" * 30_000]
UNUSUAL = [
    "<s> </s> <unk> <pad>",
    "</s>",
    "\u2581 \uffed",
    "The man\tsees a dog 5.",
    "The man\rsees a dog 5.",
    "The man\u200b sees\u200d a \ufeffdog 5.",
    "\u200b",
    "\0",
    "Ünbekannt 三 🙂",
    "三" * 100_000,
]
SENTENCES = [SOURCE, LONGER, *BLANK, *CUT, *UNUSUAL, SOURCE]

ROWS = ["bahdanau", "convs2s", "transformer-base"]


def tiny(row: str, folder: Path, kind: str = "subwords", pieces: int = 90) -> tuple[Experiment, JobData]:
    """A job whose test set has the sentences above."""
    tiny_job.write_corpus(folder)
    (folder / "test.en").write_text("".join(f"{line}\n" for line in SENTENCES), encoding="utf-8", newline="")
    (folder / "test.de").write_text("Der Mann sieht 5 Hund.\n" * len(SENTENCES), encoding="utf-8")
    flags: dict[str, object] = {"text.kind": kind, "text.vocabulary_size": pieces}
    flags |= {"text.max_length": 30, "text.max_source_length": LIMIT}
    flags |= {"decoding.beam": 2, "decoding.extra_length": 5, "tracking.folder": folder / "runs"}
    given = tiny_job.corpus_flags(folder) + [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    experiment = resolve(row_files()[row], preset="demo", row=row, flags=given)
    return experiment, JobData.of(experiment)


@pytest.mark.parametrize("row", ROWS)
def test_translate_evaluation_and_serving_agree_on_unusual_sentences(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, job_data = tiny(row, tmp_path)
    assert list(job_data.corpus.tests["test"].sources) == SENTENCES
    model = model_of(experiment, job_data).eval()
    writer = Mock(spec=RunWriter)
    measures = {each.metric: each.value for each in score_test_sets(model, experiment, job_data, writer)}
    (evaluated,) = (call.args[0]["hypothesis"] for call in writer.table.mock_calls)
    capsys.readouterr()

    trained = TrainedTranslator(experiment, job_data.vocabularies, model, job_data.lexicon)
    served = ServedTranslator()
    served.translator = trained
    assert served.predict(None, SENTENCES) == evaluated
    assert served.predict(None, [f"{SOURCE}\r\n", f"{LONGER}\n"]) == evaluated[:2]

    monkeypatch.setattr(trained_model, "load", lambda *_: trained)
    monkeypatch.setattr(store, "Store", lambda *_, **__: None)
    file = tmp_path / "test.en"
    assert main(["translate", "any", "--file", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out.split("\n")[:-1] == [visible_line(text) for text in evaluated]
    assert f"{len(CUT)} of {len(SENTENCES)} sentences had more than {LIMIT} tokens and were cut" in printed.err
    assert measures["test/truncated"] == len(CUT)

    assert [text for text, source in zip(evaluated, SENTENCES, strict=True) if source in BLANK] == [""] * len(BLANK)
    assert evaluated[0] == evaluated[-1]
    alone = beam_search.translate(model, trained.ids([CUT[0]])[0], experiment.decoding)
    assert len(alone[0][0].ids) <= LIMIT + 1 + experiment.decoding.extra_length


@pytest.mark.parametrize(("kind", "pieces"), [("subwords", 90), ("words", 30), ("characters", 90)])
def test_no_text_is_a_special_token(kind: str, pieces: int, tmp_path: Path) -> None:
    _, job_data = tiny("transformer-base", tmp_path, kind, pieces)
    ids, cut = job_data.cut(job_data.corpus.tests["test"])
    assert not {PAD, BOS, EOS} & {token for sentence in ids for token in sentence}
    assert [not sentence for sentence in ids] == [source in BLANK for source in SENTENCES]
    assert max(map(len, ids)) == LIMIT
    assert cut >= 1
