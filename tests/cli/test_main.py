"""The command line: bad input is one line and leaves nothing behind; what is good is printed."""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.arguments import EXAMPLES
from bench.cli.main import COMMANDS, main
from bench.system import terminal
from bench.system.progress import Status
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store, TrackingSettings
from tests.helpers import tiny_job

BENCH = Path(sys.executable).with_name("bench")
RUN = ("run", str(tiny_job.FILE))
DEMO = str(tiny_job.FILE.parent / "demo.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and one finished run on it."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_job.write_corpus(folder)
    assert main([*RUN, *tiny_job.flags(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, in which `runs` would appear, and no settings from outside."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in ("MLFLOW_TRACKING_URI", "MULTI30K"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def here(folder: Path, **changed: object) -> list[str]:
    """Flags of the tiny job, tracked in the current folder."""
    return tiny_job.flags(folder, tracking__folder="runs", **changed)


def shared(folder: Path, seed: int, **changed: object) -> list[str]:
    """The same with another seed, in the store of the finished run: to make a store takes a second."""
    return here(folder, seed=seed, tracking__uri=f"sqlite:///{folder}/runs/mlflow.db", **changed)


def run_of(folder: Path, seed: int) -> TrackedRun:
    (run,) = (run for run in runs_of(folder) if run.tags["seed"] == str(seed))
    return run


def runs_of(folder: Path) -> list[TrackedRun]:
    return Store(TrackingSettings(None, str(folder / "runs"))).runs("runs")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command with bad input says, after a look that nothing is left of it."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: ")
    assert said.count("\n") == 1, said
    assert sorted(Path.cwd().rglob("*")) == before
    assert not Path("runs").exists()
    return said


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_answers_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([BENCH, "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(command in done.stdout for command in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert f"bench {command}" in capsys.readouterr().out
    assert f"  bench {command}" in EXAMPLES[command]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"training__max_update": 3}, "unknown key training.max_update; did you mean training.max_updates?"),
        ({"text__vocabulary_size": "big"}, "text.vocabulary_size: expected int, got big"),
        ({"text__vocabulary_size": 5000}, "text.vocabulary_size: 5000 is more than the training text allows; at most "),
        ({"text__kind": "words", "text__vocabulary_size": 900}, "more than the training text allows; at most "),
        ({"text__max_length": 1}, "text.max_length: none of 200 sentence pairs has at most 1 tokens"),
        ({"training__batch_tokens": 3}, "training.batch_tokens: 3 is less than the longest sentence"),
        ({"training__optimizer__name": "Adamm"}, "training.optimizer: "),
        ({"training__max_updates": "null"}, "training: no budget; set training.max_pairs"),
        ({"decoding__pos_unk": "copy"}, "decoding.pos_unk: needs text.kind words, not subwords; set either"),
        ({"decoding__pos_unk": "drop"}, "decoding.pos_unk: expected "),
        ({"model__heads": 3}, "model.width: 16 is not divisible by model.heads (3)"),
        ({"corpus__name": "multi31k-en-de"}, "there is no corpus 'multi31k'; choose NAME-SRC-TGT, NAME one of files, "),
        ({"corpus__name": "multi30k-en-de"}, "corpus.path: multi30k is not here; fetch it with `bench data fetch"),
        ({"corpus__name": "multi30k-en-de", "corpus__path": "nowhere"}, "corpus.path: there is no folder nowhere"),
        ({"tracking__uri": "nonsense://server"}, "tracking.uri: cannot open nonsense://server"),
    ],
    ids=str,
)
def test_a_bad_setting(folder: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], said: str) -> None:
    assert said in refused([*RUN, *here(folder, **changed)], capsys)


def short(path: Path) -> None:
    path.write_text("One.\nTwo.\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_utf8(path: Path) -> None:
    path.write_bytes(b"Fine.\n" * 7 + b"M\xfcller.\n" + b"Fine.\n" * 192)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (short, "a.en has 2 lines and "),
        (empty, "a.en: the file is empty"),
        (no_utf8, "a.en: line 8 is not valid UTF-8; convert the file"),
        (lambda path: None, "a.en: there is no such file; name one that there is"),
    ],
    ids=["short", "empty", "no UTF-8", "missing"],
)
def test_a_bad_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    spoil(tmp_path / "a.en")
    line = refused([*RUN, *here(folder, corpus__train=f"[{tmp_path}/a.en,{folder}/train.de]")], capsys)
    assert said in line
    if spoil is short:
        assert f"{folder}/train.de has 200" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*RUN, "--row", "transformer-bse"], "no row 'transformer-bse', did you mean transformer-base? there are: "),
        ([*RUN, "--preset", "dmo"], "no preset 'dmo', did you mean demo? there are: demo, multi30k-cpu, "),
        (["run", "experiments/none.yaml"], "experiments/none.yaml: there is no such file; those in experiments/: "),
        (["run"], "the following arguments are required: file; see bench run --help"),
        (["rnu"], "invalid choice: 'rnu' (choose from "),
        (["suite", "none.yaml"], "none.yaml: there is no such file"),
        (
            ["suite", str(tiny_job.FILE.parent / "demo.yaml"), "--text.vocabulary_size", "10"],
            "text.vocabulary_size: 10 is ",
        ),
        (
            ["suite", str(tiny_job.FILE.parent / "demo.yaml"), "--corpus.pair", "1"],
            "unknown key corpus.pair; did you mean",
        ),
        (["report", "--suite", "none"], "--suite: there is no suite 'none' in sqlite:"),
        (["report", "--siute", "demo"], "unknown arguments: --siute demo; see bench report --help"),
        (["translate", "none", "A man."], "there is no run 'none' in sqlite:"),
        (["translate", "best:demo/perceptron", "A man."], "there is no suite 'demo' in sqlite:"),
        (["translate", "x", "--file", "none.txt"], "--file: there is no file none.txt"),
        (["translate", "x", "y", "--file", str(tiny_job.FILE)], "--file: give sentences or files, not both"),
        (["data", "check"], "name a corpus: bench data check NAME; there are: "),
        (["data", "show", "grammar-en-xx"], "the grammar speaks no 'xx'"),
        (["data", "check", "none-en-de"], "there is no corpus 'none'"),
        (
            ["data", "show", "grammar-en-de", "--corpus.pears", "9"],
            "unknown key corpus.pears; did you mean corpus.pairs",
        ),
        (["data", "fetch", "grammar"], "nothing to fetch for 'grammar'; corpora that can be fetched: "),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, list) else "",
)
def test_what_there_is_not(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(arguments, capsys)


def test_a_tracking_server_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    said = refused([*RUN, *here(folder, tracking__uri="http://127.0.0.1:1")], capsys)
    assert "tracking.uri: cannot open http://127.0.0.1:1: " in said
    assert time.monotonic() - started < 30


def test_a_truncated_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate_job(*_: object) -> None:
        raise ValueError("died")

    with monkeypatch.context() as patch:
        patch.setattr("bench.runs.job.evaluate_job", evaluate_job)
        assert main([*RUN, *shared(folder, 2)]) == 2
    (path,) = Path("runs").rglob("last.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert main([*RUN, *shared(folder, 2)]) == 2
    said = capsys.readouterr().err
    assert f"{path.resolve()}: this checkpoint is damaged (incomplete file). Delete it" in said
    assert said.count("\n") == 1
    run = run_of(folder, 2)
    assert (run.status, run.tags["reason"]) == ("FAILED", "ValueError: died")
    path.unlink()
    assert main([*RUN, *shared(folder, 2)]) == 0


def full_at(size: int) -> Callable[[], None]:
    """For a process whose files may not grow beyond so many bytes: to it, the disk is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two real processes: the store fits on the disk, and the checkpoint does not; then there is room."""
    command = [str(BENCH), *RUN, *shared(folder, 3, model__width=128, model__inner=512)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(Path.home() / ".cache")}  # of matplotlib
    full = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=full_at(3_000_000)
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.startswith("bench: ")
    assert ": File too large; mend it (make room?) and the same command continues" in full.stderr
    assert full.stderr.count("\n") == 1, full.stderr
    failed = run_of(folder, 3)
    assert failed.status == "FAILED"
    assert "File too large" in failed.tags["reason"]
    assert main(command[1:]) == 0
    run = run_of(folder, 3)
    assert (run.id, run.status) == (failed.id, "FINISHED")
    assert not [path for path in Path("runs").rglob(".*") if path.name.startswith((".last", ".weights", ".reached"))]


# --- what is good -----------------------------------------------------------------------------------------------------


def test_the_same_command_prints_a_finished_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *tiny_job.flags(folder)]) == 0
    printed = capsys.readouterr().out
    assert "finished before" in printed
    assert "test/bleu" in printed


def test_sentences_over_the_limit_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, *shared(folder, 4, text__max_length=15)]) == 0
    printed = capsys.readouterr().out
    assert "pairs over 15 tokens" in printed
    run = run_of(folder, 4)
    assert run.metrics["test/truncated"] > 0


def test_settings_are_listed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--settings"]) == 0
    printed = capsys.readouterr().out
    assert "--training.max_pairs" in printed
    assert "Budget in sentence pairs seen" in printed


class Lines:
    """Standard input that holds bytes, and is no terminal."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def translated(
    folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> tuple[list[str], str]:
    capsys.readouterr()
    assert main(["translate", *arguments, "--tracking.folder", str(folder / "runs")]) == code
    said = capsys.readouterr()
    return said.out.split("\n")[:-1], said.err


NAME = "transformer-base files-en-de demo s1"


def test_translate(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = "The man sees a dog 5."
    run = run_of(folder, 1)
    (first,), said = translated(folder, capsys, NAME, source)
    assert said == ""
    assert translated(folder, capsys, run.id, source) == ([first], "")
    finished = [other for other in runs_of(folder) if other.status == "FINISHED"]
    best = max(finished, key=lambda other: (other.metrics["validation_bleu"], other.started))
    by_id = translated(folder, capsys, best.id, source)
    assert translated(folder, capsys, "best:runs/transformer-base", source) == by_id

    monkeypatch.setattr("sys.stdin", Lines(f"{source}\n\n{source}".encode()))
    assert translated(folder, capsys, NAME) == ([first, "", first], "")
    Path("a.en").write_text(f"\ufeff{source}\r\n \n")
    assert translated(folder, capsys, NAME, "--file", "a.en", "--file", "a.en") == ([first, ""] * 2, "")

    lines, _ = translated(folder, capsys, NAME, "--beam", "3", "--n_best", "2", "--scores", source, source)
    numbers, scores, texts = zip(*(line.split("\t") for line in lines), strict=True)
    assert numbers == ("1", "1", "2", "2")
    assert scores[:2] == scores[2:]
    assert float(scores[0]) >= float(scores[1])
    assert texts[0] == texts[2]

    lines, said = translated(folder, capsys, NAME, "man " * 300, source)
    assert said == "bench: 1 of 2 sentences had more than 100 tokens and were cut\n"
    assert lines[1] == first


def test_bad_input_of_translate(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, part in (
        ([NAME, "A man.", "--n_best", "9"], "--n_best: 9 is not between 1 and the beam, 2; raise --beam"),
        ([NAME, "A man.", "--beam", "0"], "decoding.beam: 0 is too small"),
        (["best:runs/lstm", "A man."], "best:runs/lstm: no finished run of that row; there are: transformer-base"),
        (["best:none/lstm", "A man."], "there is no suite 'none' in "),
        (["best:lstm", "A man."], "write best:SUITE/ROW; suites: runs"),
        (["nobody", "A man."], f"there is no run 'nobody' in sqlite:///{folder}/runs/mlflow.db; finished ones: "),
    ):
        lines, said = translated(folder, capsys, *arguments, code=2)
        assert part in said
        assert (lines, said.count("\n")) == ([], 1)
    monkeypatch.setattr("sys.stdin", Lines(b"Fine.\nM\xfcller.\n"))
    assert "standard input: line 2 is not valid UTF-8" in translated(folder, capsys, NAME, code=2)[1]


def test_only_control_characters_are_escaped() -> None:
    assert terminal.printable("[red]ä\u202e<b>\x1b[31m\t\x9b") == "[red]ä\u202e<b>\\x1b[31m\\x09\\x9b"


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


# --- probes and pictures ----------------------------------------------------------------------------------------------


def test_contrasts_of_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "own.tsv, line 1: not JSON" in refused(["probe", run.id, "--file", str(file), *where], capsys)
    assert "there is no file" in refused(["probe", run.id, "--file", "nowhere", *where], capsys)
    assert "has no contrasts of its own; give some with --file" in refused(["probe", run.id, *where], capsys)


def test_a_picture_of_attention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "--layer: 9 is not between 1 and 1" in refused(
        ["attention", run.id, "A dog.", "--layer", "9", *where], capsys
    )
    assert "the sentence is empty" in refused(["attention", run.id, " ", *where], capsys)


def test_a_gpu_has_no_speed_before_it_was_asked() -> None:
    """Its seconds are read at a point of the curves only; what is shown until then says less."""
    live = terminal.ProgressLine("lstm")
    for fraction, seconds in ((0.001, 0.0), (0.002, 0.0), (0.005, 1.5)):
        status = Status(
            fraction, round(1000 * fraction), round(1e5 * fraction), round(1e6 * fraction), seconds, None, None
        )
        live(status)
        line = live.line(status)
        assert ("pairs/s" in line) == ("left" in line) == (seconds > 0)
