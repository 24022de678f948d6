"""A report from an exported folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.tracking.reading import MissingFile
from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs, snapshot
from reports.plots import main_plots
from tests.helpers import synthetic_runs

pytestmark = [*synthetic_runs.quiet_mlflow, pytest.mark.usefixtures("compared")]


def test_a_report_from_a_snapshot_has_the_same_bytes(store: Store, compared_report: Path, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later", compare_with="earlier")
    recorder.export(tmp_path / "snapshot")
    again = gather_runs.gather(snapshot.Snapshot(tmp_path / "snapshot"), "later", compare_with="earlier")
    write.all_forms(again, tmp_path / "again")
    direct, from_snapshot = (
        # Without the PDFs, which contain the time of their creation.
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.suffix != ".pdf"}
        for folder in (compared_report, tmp_path / "again")
    )
    assert direct == from_snapshot
    assert len(direct) > 8


def test_a_snapshot_has_no_path_of_this_machine(store: Store, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later")
    index = recorder.export(tmp_path / "snapshot").read_text()
    assert str(store.settings.path) not in index
    assert snapshot.Snapshot(tmp_path / "snapshot").suites() == ["later"]


def test_a_password_in_an_address_is_in_neither_snapshot_nor_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    all_plots = main_plots.all_plots
    monkeypatch.setattr(main_plots, "all_plots", lambda context: all_plots(context)[:1])  # the only kind with links
    recorder = snapshot.Recorder(store)
    recorder.uri = "https://user:secret@host:5000/mlflow"
    page = write.page(gather_runs.gather(recorder, "later"))
    index = recorder.export(tmp_path / "snapshot").read_text()
    assert "https://host:5000/mlflow/#/experiments/" in page
    assert '"uri": "https://host:5000/mlflow"' in index
    assert "secret" not in page + index + write.page(gather_runs.gather(store, "later", "http://me:secret@[::1]:5000"))


def test_the_command_exports_and_reads_a_snapshot(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert (
        main(
            [
                "report",
                "--suite",
                "later",
                "--tracking.uri",
                store.uri,
                "--format",
                "csv",
                "--export",
                f"{tmp_path}/snapshot",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert main(["report", "--from", f"{tmp_path}/snapshot", "--format", "csv"]) == 0
    assert printed.splitlines()[1:] == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("suite", ["../../escaped", "/tmp/escaped", "..", "a/b"])
def test_a_folder_that_somebody_else_made_writes_nothing_outside(
    store: Store, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later")
    index = recorder.export(tmp_path / "snapshot")
    content = json.loads(index.read_text())
    content["suites"] = {suite: content["suites"]["later"]}
    index.write_text(json.dumps(content))
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert main(["report", "--from", f"{tmp_path}/snapshot"]) == 2
    error = capsys.readouterr().err
    assert f"{suite!r} is not used as the name of a file" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "snapshot"]
    assert list(Path.cwd().iterdir()) == []


def test_ids_and_links_of_a_foreign_folder_are_refused(store: Store, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later")
    folder = tmp_path / "snapshot"
    index = recorder.export(folder)
    run = snapshot.Snapshot(folder).runs("later")[0]
    (tmp_path / "outside").mkdir()
    (folder / run.id).rename(tmp_path / "outside" / run.id)
    (folder / run.id).symlink_to(tmp_path / "outside" / run.id)
    with pytest.raises(ValueError, match="nothing is read or written there"):
        gather_runs.gather(snapshot.Snapshot(folder), "later")
    (folder / run.id).unlink()
    for hostile in (f"../outside/{run.id}", f"{tmp_path}/outside/{run.id}"):
        index.write_text(index.read_text().replace(run.id, hostile))
        with pytest.raises(ValueError, match="is not used as the name of a file"):
            gather_runs.gather(snapshot.Snapshot(folder), "later")
        foreign = snapshot.Recorder(store)
        foreign.artifacts_read = {(hostile, "measures.json"): replace(store.run(run.id), id=hostile)}
        with pytest.raises(ValueError, match="is not used as the name of a file"):
            foreign.export(tmp_path / "exported")
        index.write_text(index.read_text().replace(hostile, run.id))


def test_a_file_that_is_gone_from_a_snapshot_is_an_error(store: Store, tmp_path: Path):
    recorder = snapshot.Recorder(store)
    gather_runs.gather(recorder, "later")
    recorder.export(tmp_path / "snapshot")
    run = snapshot.Snapshot(tmp_path / "snapshot").runs("later")[0]
    (tmp_path / "snapshot" / run.id / "hypotheses" / "test.json").unlink()
    with pytest.raises(MissingFile, match=rf"^{run.id}/hypotheses/test\.json: "):
        gather_runs.gather(snapshot.Snapshot(tmp_path / "snapshot"), "later")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from: nowhere has no readable snapshot.json; make one with bench report --export"),
        (["--from", "a", "--export", "b"], "remove one of the flags"),
        (["--suite", "later", "--lang", "tlh"], "--lang: there is no language 'tlh'; choose one of: en, ko"),
        (["--suite", "later", "--compare", "never"], "there is no suite 'never'"),
    ],
)
def test_wrong_arguments_print_one_line(
    store: Store,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
