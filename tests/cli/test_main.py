"""The commands with valid input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench.runs.job
from bench.cli.main import main
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job
from tests.helpers.command_line import (
    NAME,
    RUN,
    StandardInput,
    error_of,
    flags_in_shared_store,
    run_of,
    runs_of,
    translate,
)


def test_the_same_command_prints_a_finished_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *tiny_job.flags(folder)]) == 0
    printed = capsys.readouterr().out
    assert "finished before" in printed
    assert "test/bleu" in printed


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (MemoryError("of the machine"), "failed: out of memory: MemoryError: of the machine"),
        (RuntimeError("the server socket has failed to listen"), "failed: RuntimeError: the server socket has failed"),
    ],
)
def test_a_failed_run_gives_one_line(
    error: Exception, printed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(bench.runs.job, "run", fail)
    assert main([*RUN, *tiny_job.flags(folder)]) == 1
    assert printed in capsys.readouterr().out


def test_sentences_over_the_length_limit_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *flags_in_shared_store(folder, 4, text__max_length=15)]) == 0
    printed = capsys.readouterr().out
    assert "pairs over 15 tokens" in printed
    measures = Store(TrackingSettings(None, str(folder / "runs"))).measures(run_of(folder, 4))
    assert next(measure.value for measure in measures if measure.metric == "test/truncated")


def test_a_table_trains_through_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data set of Hugging Face saved on disk, and Parquet files, give the text of the text files."""
    for number, split in enumerate(("train", "val", "test")):
        sides = [(folder / f"{split}.{language}").read_text().splitlines() for language in ("de", "en")]
        table = pa.table({"translation": pa.StructArray.from_arrays([pa.array(side) for side in sides], ["de", "en"])})
        pq.write_table(table, f"{split}.parquet")
        saved = Path("saved") / ("train", "validation", "test")[number]
        saved.mkdir(parents=True)
        with pa.OSFile(f"{saved}/data.arrow", "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        (saved / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    Path("saved/dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')
    for seed, pattern in ((5, "{}.parquet"), (6, "saved")):
        tables = {f"corpus__{split}": f"[{pattern.format(split)}]" for split in ("train", "val", "test")}
        flags = flags_in_shared_store(folder, seed, corpus__name="files-en-de", **tables)
        assert main([*RUN, *flags]) == 0
        assert "test/bleu" in capsys.readouterr().out
        assert run_of(folder, seed).tags["data"] == run_of(folder, 1).tags["data"]


def test_settings_are_printed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--settings"]) == 0
    printed = capsys.readouterr().out
    assert "--training.max_pairs" in printed
    assert "Limit in sentence pairs seen" in printed


def test_translate(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = "The man sees a dog 5."
    run = run_of(folder, 1)
    (first,), message = translate(folder, capsys, NAME, source)
    assert message == ""
    assert translate(folder, capsys, run.id, source) == ([first], "")
    finished = [other for other in runs_of(folder) if other.status == "FINISHED"]
    best = max(finished, key=lambda other: (other.metrics["validation_bleu"], other.started))
    by_id = translate(folder, capsys, best.id, source)
    assert translate(folder, capsys, "best:runs/transformer-base", source) == by_id

    monkeypatch.setattr("sys.stdin", StandardInput(f"{source}\n\n{source}".encode()))
    assert translate(folder, capsys, NAME) == ([first, "", first], "")
    Path("a.en").write_text(f"\ufeff{source}\r\n \n")
    assert translate(folder, capsys, NAME, "--file", "a.en", "--file", "a.en") == ([first, ""] * 2, "")

    lines, _ = translate(folder, capsys, NAME, "--beam", "3", "--n_best", "2", "--scores", source, source)
    numbers, scores, texts = zip(*(line.split("\t") for line in lines), strict=True)
    assert numbers == ("1", "1", "2", "2")
    assert scores[:2] == scores[2:]
    assert float(scores[0]) >= float(scores[1])
    assert texts[0] == texts[2]

    lines, message = translate(folder, capsys, NAME, "man " * 300, source)
    assert message == "bench: 1 of 2 sentences had more than 100 tokens and were cut\n"
    assert lines[1] == first


def test_each_line_to_translate_gives_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table in docs/corpora.md, "Sentences to translate"."""
    source = "The man sees a dog 5."
    (first,), _ = translate(folder, capsys, NAME, source)
    longer = " ".join([source] * 4)  # than any training sentence, and below the limit
    odd = ["", " \t", "\u2028", "dog\u2028dog\x0cdog\x85", "\0", "Ünbekannt 三 🙂", longer]
    text = "\ufeff" + "\r\n".join([source, *odd, source])  # no line feed at the end
    monkeypatch.setattr("sys.stdin", StandardInput(text.encode()))
    lines, message = translate(folder, capsys, NAME)
    assert message == ""
    assert len(lines) == len(odd) + 2
    assert (lines[0], lines[-1]) == (first, first)
    assert lines[1:4] == ["", "", ""]
    assert lines[-2]
    Path("none.en").touch()
    Path("line.en").write_text("\n")
    assert translate(folder, capsys, NAME, "--file", "none.en") == ([], "")
    assert translate(folder, capsys, NAME, "--file", "line.en") == ([""], "")
    assert translate(folder, capsys, NAME, "--file", "line.en", "--n_best", "2") == (["1\t"], "")
    lines, message = translate(folder, capsys, NAME, "dog " * 100_000)
    assert message == "bench: 1 of 1 sentences had more than 100 tokens and were cut\n"
    assert len(lines) == 1


def test_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert "grammar" in listed
    assert "Multi30k: 29,000 captions" in listed
    assert main(["data", "show", "files", *tiny_job.corpus_flags(folder)[2:]]) == 0
    shown = capsys.readouterr().out
    assert "files-en-de" in shown
    assert "200" in shown
    Path("b.en").write_text("The man sees a dog 5.\nOne.\n")
    Path("b.de").write_text("Der Mann sieht 5 Hund.\n\n")
    test = ["--corpus.test", "[b.en,b.de]"]
    assert main(["data", "check", "files", *tiny_job.corpus_flags(folder)[2:6], *test]) == 1
    assert "one side is empty: 1, lines 2" in capsys.readouterr().out


def test_probe_with_contrasts_from_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = runs_of(folder)
    file, where = tmp_path / "own.tsv", ["--tracking.folder", str(folder / "runs")]
    file.write_text("The man sees a dog 3.\tDer Mann sieht 3 Hund.\tDer Mann sieht 4 Hund.\tnumber\t2\n" * 20)
    capsys.readouterr()
    assert main(["probe", run.id, "--file", str(file), *where]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[0] == "phenomenon/distance"
    assert [row.split()[0] for row in rows] == ["number", "number/2"]
    assert all("20 contrasts, chance 50.0%" in row for row in rows)
    assert main(["probe", run.id, run.id, "--file", str(file), *where]) == 0
    _, first, second, chance = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("Transformer (base)")
    assert chance.split() == ["chance", "50.0"]
    file.write_text("[{")
    assert "own.tsv, line 1: not JSON" in error_of(["probe", run.id, "--file", str(file), *where], capsys)
    assert "there is no file" in error_of(["probe", run.id, "--file", "nowhere", *where], capsys)
    assert "has no contrasts of its own; give some with --file" in error_of(["probe", run.id, *where], capsys)


def test_attention_writes_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run, *_) = runs_of(folder)
    where = ["--tracking.folder", str(folder / "runs")]
    capsys.readouterr()
    assert main(["attention", run.id, "The man sees a dog 3.", "--out", "pictures", *where]) == 0
    _, data, picture = capsys.readouterr().out.splitlines()
    assert Path(data).suffix == ".json"
    assert Path(picture).read_text(encoding="utf-8").startswith("<svg")
    store = Store(TrackingSettings(None, str(folder / "runs")))
    assert store.download(run, f"attention/{Path(picture).name}", Path.cwd())
    assert store.run(run.id).status == "FINISHED"
    shutil.rmtree("pictures")
    Path(Path(picture).name).unlink()
    assert "--layer: 9 is not between 1 and 1" in error_of(
        ["attention", run.id, "A dog.", "--layer", "9", *where], capsys
    )
    assert "the sentence is empty" in error_of(["attention", run.id, " ", *where], capsys)
