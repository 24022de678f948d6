"""Invalid input: each command prints one line with the error, returns 2, and writes no file."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.cli.main import main
from tests.helpers import tiny_job, tracking_folder
from tests.helpers.command_line import (
    DEMO,
    NAME,
    RUN,
    StandardInput,
    error_of,
    flags_here,
    flags_in_shared_store,
    run_of,
    translate,
)

NO_FILES = dict.fromkeys(("corpus__train", "corpus__val", "corpus__test"), "null")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"training__max_update": 3}, "unknown key training.max_update; did you mean training.max_updates?"),
        ({"text__vocabulary_size": "big"}, "text.vocabulary_size: expected int, got big"),
        ({"text__vocabulary_size": 5000}, "text.vocabulary_size: 5000 is more than the training text allows; at most "),
        ({"text__kind": "words", "text__vocabulary_size": 900}, "more than the training text allows; at most "),
        ({"text__max_length": 1}, "text.max_length: none of 200 sentence pairs of train has at most 1 tokens"),
        ({"training__batch_tokens": 3}, "training.batch_tokens: 3 is less than the longest sentence"),
        ({"training__optimizer__name": "Adamm"}, "training.optimizer: "),
        ({"training__max_updates": "null"}, "training: no budget; set training.max_pairs"),
        ({"decoding__pos_unk": "copy"}, "decoding.pos_unk: needs text.kind words, not subwords; set either"),
        ({"decoding__pos_unk": "drop"}, "decoding.pos_unk: expected "),
        ({"model__heads": 3}, "model.width: 16 is not divisible by model.heads (3)"),
        (
            {"corpus__name": "files-de-en"},
            "train.en: is the source file of a corpus de-en, but its name says en, not de",
        ),
        ({"corpus__name": "multi31k-en-de"}, "there is no corpus 'multi31k'; choose NAME-SRC-TGT, NAME one of files, "),
        (
            {"corpus__name": "multi30k-en-cs"} | NO_FILES,
            "corpus.name: multi30k can be fetched for en, de and fr, not for en-cs; for",
        ),
        ({"corpus__name": "wmt14-en-cs"}, "corpus.name: wmt14 has the directions en-de, de-en, en-fr and fr-en; write"),
        ({"corpus__name": "files-en-de", "corpus__train": "[a.parquet]"}, "a.parquet: file not found; check the path"),
        (
            {"corpus__name": "multi30k-en-de", "corpus__path": "nowhere"} | NO_FILES,
            "corpus.path: there is no folder nowhere",
        ),
        ({"corpus__name": "grammar-en-de"}, "corpus.train: is for the corpus files, but corpus.name is grammar-en-de"),
        ({"tracking__uri": "nonsense://server"}, "tracking.uri: cannot open nonsense://server"),
    ],
    ids=str,
)
def test_an_invalid_setting(
    folder: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], message: str
) -> None:
    assert message in error_of([*RUN, *flags_here(folder, **changed)], capsys)


def short(path: Path) -> None:
    path.write_text("One.\nTwo.\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_utf8(path: Path) -> None:
    path.write_bytes(b"Fine.\n" * 7 + b"M\xfcller.\n" + b"Fine.\n" * 192)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (short, "a.en has 2 lines and "),
        (empty, "a.en: the file is empty"),
        (no_utf8, "a.en: line 8 is not valid UTF-8; convert the file"),
        (lambda path: None, "a.en: file not found; check the path"),
    ],
    ids=["short", "empty", "no UTF-8", "missing"],
)
def test_an_invalid_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    damage(tmp_path / "a.en")
    line = error_of([*RUN, *flags_here(folder, corpus__train=f"[{tmp_path}/a.en,{folder}/train.de]")], capsys)
    assert message in line
    if damage is short:
        assert f"{folder}/train.de has 200" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*RUN, "--row", "transformer-bse"], "no row 'transformer-bse', did you mean transformer-base? there are: "),
        ([*RUN, "--preset", "dmo"], "no preset 'dmo', did you mean demo? there are: demo, multi30k-cpu, "),
        (
            ["run", "experiments/none.yaml"],
            "experiments/none.yaml: file not found; check the path; files in experiments/: ",
        ),
        (["run"], "the following arguments are required: file; see bench run --help"),
        (["rnu"], "invalid choice: 'rnu' (choose from "),
        (["ui", "--port", "0"], "argument --port: 0 is not a port; expected a number from 1 to 65535"),
        (["ui", "--port", "70000"], "argument --port: 70000 is not a port; expected a number from 1 to 65535"),
        (["report", "--suite", "caf\udce9"], r"the argument caf\xe9 is not valid UTF-8; expected arguments"),
        (["suite", "none.yaml"], "none.yaml: file not found"),
        (
            ["suite", DEMO, "--corpus.pair", "1"],
            "unknown key corpus.pair; did you mean",
        ),
        (["suite", DEMO, "--seed", "3"], "--seed: a suite trains each row with the seeds [1]; set others with --seeds"),
        (["report", "--artifacts"], "--artifacts: it is a setting of --export; add --export FOLDER"),
        (["report", "--format", "csv", "--out", "x"], "--format csv: the table is printed, and no page is written"),
        (["verify", "sizes", "--device", "cuda"], "--device: bench verify sizes computes on the CPU; remove the flag"),
        (["report", "--suite", "none"], "--suite: there is no suite 'none' in sqlite:"),
        (["report", "--siute", "demo"], "unknown arguments: --siute demo; see bench report --help"),
        (["translate", "none", "A man."], "there is no run 'none' in sqlite:"),
        (["translate", "best:demo/perceptron", "A man."], "there is no suite 'demo' in sqlite:"),
        (["translate", "x", "--file", "none.txt"], "--file: there is no file none.txt"),
        (["translate", "x", "y", "--file", str(tiny_job.FILE)], "--file: give sentences or files, not both"),
        (["data", "check"], "name a corpus: bench data check NAME; there are: "),
        (["data", "show", "grammar-en-xx"], "the grammar has no language 'xx'"),
        (["data", "check", "none-en-de"], "there is no corpus 'none'"),
        (
            ["data", "show", "grammar-en-de", "--corpus.pears", "9"],
            "unknown key corpus.pears; did you mean corpus.pairs",
        ),
        (["data", "fetch", "grammar"], "nothing to fetch for 'grammar'; corpora that can be fetched: "),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, list) else "",
)
def test_invalid_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(arguments, capsys)


def write_surrogates(path: Path) -> None:
    lines = ['{"en": "One.", "de": "Eins."}'] * 200
    lines[7] = lines[150] = '{"en": "One.", "de": "\\ud800"}'
    path.write_text("\n".join(lines), encoding="utf-8")


def test_a_lone_surrogate_is_named_by_each_command_and_listed_by_check(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_surrogates(tmp_path / "a.jsonl")
    flags = ["--corpus.name", "files-en-de", *(f"--corpus.{split}=[{tmp_path}/a.jsonl]" for split in ("train", "test"))]
    flags += [f"--corpus.val=[{tmp_path}/a.jsonl]"]
    first = f"{tmp_path}/a.jsonl: line 8 contains \\ud800, half of a surrogate pair, which is no character; correct or"
    for command in (RUN, ("suite", DEMO), ("data", "show", "files-en-de")):
        message = error_of([*command, *(flags[2:] if command[0] == "data" else flags)], capsys)
        assert first in message
        assert "(1 more bad lines; bench data check lists all)" in message
    assert main(["data", "check", "files-en-de", *flags[2:]]) == 1
    assert "a.jsonl: 2 lines (each contains \\ud800" in capsys.readouterr().out


def test_an_invalid_setting_of_a_suite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["suite", DEMO, *tiny_job.corpus_flags(folder), "--text.vocabulary_size", "10"]
    assert "text.vocabulary_size: 10 is " in error_of(arguments, capsys)


def test_a_tracking_server_that_does_not_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    message = error_of([*RUN, *flags_here(folder, tracking__uri="http://127.0.0.1:1")], capsys)
    assert "tracking.uri: cannot open http://127.0.0.1:1: " in message
    assert time.monotonic() - begin < 30


def test_a_truncated_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_job(*_: object) -> None:
        raise ValueError("failed")

    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.job.evaluate_job", evaluate_job)
        assert main([*RUN, *flags_in_shared_store(folder, 2)]) == 2
    (path,) = Path("runs").rglob("last.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert main([*RUN, *flags_in_shared_store(folder, 2)]) == 2
    message = capsys.readouterr().err
    assert f"{path.resolve()}: this checkpoint is damaged (incomplete file). Delete it" in message
    assert message.count("\n") == 1
    run = run_of(folder, 2)
    assert (run.status, run.tags["reason"]) == ("FAILED", "ValueError: failed")
    path.unlink()
    assert main([*RUN, *flags_in_shared_store(folder, 2)]) == 0


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """While the block runs, no file of this process can grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_in_place_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    message = error_of([*RUN, *tiny_job.flags(folder, tracking__folder=file)], capsys)
    assert f"{file}" in message
    assert message.endswith(": Not a directory. A file is where a folder is expected: choose another folder.\n")


def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store fits on the disk and the checkpoint does not; the same command continues when there is space."""
    tracking_folder.create(Path("runs"))
    command = [*RUN, *flags_here(folder, seed=3, model__width=128, model__inner=512)]
    capsys.readouterr()
    with file_size_limit(3_000_000):
        assert main(command) == 2
    message = capsys.readouterr().err
    assert message.startswith("bench: ")
    assert ": File too large. Fix the problem (disk full?) and run the same command again to resume." in message
    assert message.count("\n") == 1, message
    failed = run_of(Path.cwd(), 3)
    assert failed.status == "FAILED"
    assert "File too large" in failed.tags["reason"]
    assert main(command) == 0
    run = run_of(Path.cwd(), 3)
    assert (run.id, run.status) == (failed.id, "FINISHED")
    assert not [path for path in Path("runs").rglob(".*") if path.name.startswith((".last", ".weights", ".reached"))]


def test_invalid_input_of_translate(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, part in (
        ([NAME, "A man.", "--n_best", "9"], "--n_best: 9 is not between 1 and the beam, 2; raise --beam"),
        ([NAME, "A man.", "--beam", "0"], "decoding.beam: 0 is too small"),
        (["best:runs/lstm", "A man."], "best:runs/lstm: no finished run of that row; there are: transformer-base"),
        (["best:none/lstm", "A man."], "there is no suite 'none' in "),
        (["best:lstm", "A man."], "write best:SUITE/ROW; suites: runs"),
        (
            ["nobody", "A man."],
            f"there is no run 'nobody' in sqlite:///{folder}/runs/mlflow.db; the newest finished",
        ),
    ):
        lines, message = translate(folder, capsys, *arguments, code=2)
        assert part in message
        assert (lines, message.count("\n")) == ([], 1)
    monkeypatch.setattr("sys.stdin", StandardInput(b"Fine.\nM\xfcller.\n"))
    assert "standard input: line 2 is not valid UTF-8" in translate(folder, capsys, NAME, code=2)[1]
