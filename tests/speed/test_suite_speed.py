"""`bench speed decode --suite`: the times of all rows of a suite, ensembles too, and where they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.main import main
from bench.measures.latency import LatencyBenchmark
from bench.runs.suite import Suite
from bench.speed import suite_speed
from bench.tracking.speeds import NAME, Speeds
from tests.helpers import tiny_job

SUITE = """
rows: [mlp, gnmt-ensemble]
seeds: [1, 2]
results: ../results
settings: {decoding: {beam: 2}}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a suite beside its text. A sentence takes 2 ms, a batch as long as its sentences."""

    def time_ms(self: LatencyBenchmark, sources: list[list[int]], lengths: list[int] | None, batch: int = 1) -> float:
        assert lengths, "with initial weights the length of free-running output means nothing"
        return 2.0 * len(sources)

    monkeypatch.setattr(LatencyBenchmark, "time_ms", time_ms)
    (tmp_path / "experiments").mkdir()
    tiny_job.write_corpus(tmp_path)
    file = tmp_path / "experiments" / "table.yaml"
    file.write_text(SUITE, encoding="utf-8")
    return file


def flags(folder: Path) -> list[str]:
    return [*tiny_job.corpus_flags(folder), "--text.vocabulary_size=90", f"--tracking.folder={folder}/runs"]


def speed(path: Path, *more: str) -> int:
    return main(["speed", "decode", "--suite", str(path), "--seconds", "0.01", *flags(path.parents[1]), *more])


def test_every_row_is_measured_once_and_the_times_go_to_the_results(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed(path) == 0
    printed = capsys.readouterr()
    assert [line for line in printed.err.splitlines() if line.startswith("[")] == [
        "[1/3] decode mlp files-en-de",
        "[2/3] decode gnmt files-en-de",
        "[3/3] decode gnmt-ensemble files-en-de",
    ], "the report has a row for the members of an ensemble"
    found = Speeds.read(path.parents[1] / "results")
    assert found
    assert found.suite == "table"
    jobs = Suite.read(path).experiments(flags(path.parents[1]))
    assert [(row.row, row.corpus, row.jobs) for row in found.rows] == [
        (row, "files-en-de", [job.job_hash for job in jobs if job.row == row])
        for row in ("mlp", "gnmt", "gnmt-ensemble")
    ]
    for measures in (row.measures for row in found.rows):
        values = {measure.metric: measure.value for measure in measures}
        assert (values["latency_p50_ms"], values["sentences_per_s"]) == (2.0, 500.0)
        assert not [metric for metric in values if "free" in metric or not metric.startswith(suite_speed.TIMES)]
        assert measures[0].provenance.startswith("initial weights, all rows on one machine, commit ")
        assert "beam 2" in measures[0].provenance
    assert found.machine["threads"] in found.where
    assert f"{path.parents[1] / 'results' / NAME}" in printed.out.replace("\n", "")


def test_nothing_is_written_if_a_row_cannot_be_measured(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = suite_speed._measured

    def fails_for_mlp(experiment: object, seconds: float) -> object:
        if getattr(experiment, "row", "") == "mlp":
            raise RuntimeError("out of memory")
        return real(experiment, seconds)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(suite_speed, "_measured", fails_for_mlp)
    assert speed(path) == 1
    printed = capsys.readouterr()
    assert "mlp: out of memory" in printed.err
    assert "1 of 3 rows were not measured, so nothing was written" in printed.out
    assert not (path.parents[1] / "results").exists()


def test_an_invalid_setting_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed(path, "--corpus.val", "[nowhere.en,nowhere.de]") == 2
    printed = capsys.readouterr()
    assert "nowhere.en" in printed.err
    assert "[2/3]" not in printed.err
    assert not (path.parents[1] / "results").exists()


def test_what_the_suite_decides_cannot_be_given(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["--preset", "demo"], "--suite: the file decides --preset, and the times go to its results; remove --preset"),
        (["--length", "3"], "remove --length"),
        (["--out", "x.json"], "remove --out"),
    ):
        assert speed(path, *more) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
    assert main(["speed", "train", "--suite", str(path)]) == 2
    assert "use bench speed decode" in capsys.readouterr().err
    path.write_text(SUITE.replace("results: ../results\n", ""), encoding="utf-8")
    assert speed(path) == 2
    assert "results: is not set, so there is no folder for the times of its rows" in capsys.readouterr().err
