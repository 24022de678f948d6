"""A report from an export, and what an export of somebody else cannot do."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from bench.cli.main import main
from bench.measures.measure import Measure
from bench.tracking.export import export, export_run
from bench.tracking.exported import INDEX, Export, read_exports
from bench.tracking.joined import join, read_folders
from bench.tracking.reading import MissingFile, TrackedRun
from bench.tracking.speeds import RowSpeed, Speeds
from bench.tracking.store import Store
from reports import write
from reports.gathering import gather_runs
from reports.plots import main_plots
from tests.helpers import synthetic_runs

pytestmark = [*synthetic_runs.quiet_mlflow, pytest.mark.usefixtures("compared")]

TEXT = "The cook sees pitcher"
"""Begin of a sentence of the synthetic runs."""


@pytest.fixture(scope="module")
def whole(store: Store, compared: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with the sentences."""
    return export(store, tmp_path_factory.mktemp("whole"), ["later", "earlier"], artifacts=True).parent


@pytest.fixture(scope="module")
def numbers(store: Store, compared: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export without the sentences."""
    return export(store, tmp_path_factory.mktemp("numbers"), ["later", "earlier"]).parent


@pytest.fixture
def foreign(whole: Path, tmp_path: Path) -> Path:
    """A copy of the export with the sentences, to be changed."""
    return shutil.copytree(whole, tmp_path / "foreign")


def change_index(folder: Path, **values: Any) -> None:
    """Change values of export.yaml."""
    index = yaml.safe_load((folder / INDEX).read_text())
    (folder / INDEX).write_text(yaml.safe_dump(index | values))


def accept_changes(folder: Path) -> None:
    """Write the SHA-256 of all files into export.yaml, as somebody would who made the export."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != INDEX]
    hashes = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    change_index(folder, sha256=hashes)


def change(folder: Path, table: str, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the lines of a table of an export."""
    path = folder / f"{table}.parquet"
    old = parquet.read_table(path)
    lines = [changed(line) for line in old.to_pylist(maps_as_pydicts="strict")]
    parquet.write_table(pa.Table.from_pylist(lines, old.schema), path)
    accept_changes(folder)


def test_a_report_from_an_export_has_the_same_bytes(whole: Path, compared_report: Path, tmp_path: Path):
    again = gather_runs.gather(Export(whole), "later", compare_with="earlier")
    write.all_forms(again, tmp_path / "again")
    direct, from_export = (
        # Without the PDFs, which contain the time of their creation.
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.suffix != ".pdf"}
        for folder in (compared_report, tmp_path / "again")
    )
    assert direct == from_export
    assert len(direct) > 8


def test_an_export_without_sentences_has_the_same_numbers(store: Store, numbers: Path):
    direct = gather_runs.gather(store, "later", compare_with="earlier")
    from_export = gather_runs.gather(Export(numbers), "later", compare_with="earlier")
    assert write.csv(from_export) == write.csv(direct)
    assert from_export.comparisons == direct.comparisons
    assert from_export.changes == direct.changes
    assert len(direct.comparisons) > 2
    assert direct.changes
    page, missing = write.page(from_export), from_export.catalogue("missing.left_out")
    assert missing in page
    assert missing not in write.page(direct)
    assert TEXT in write.page(direct)
    assert TEXT not in page


def test_an_export_has_no_sentence_no_path_and_no_user(store: Store, numbers: Path, whole: Path):
    content = b"".join(path.read_bytes() for path in numbers.rglob("*") if path.is_file())
    lines = str([parquet.read_table(path).to_pylist() for path in sorted(numbers.glob("*.parquet"))])
    for private in (TEXT, str(store.settings.path), "mlflow.user", "mlflow.source.name"):
        assert private not in lines
        assert private.encode() not in content
    assert {path.name for path in numbers.iterdir()} == {path.name for path in whole.iterdir()} - {"artifacts"}
    runs = parquet.read_table(numbers / "runs.parquet").num_rows
    assert sum(path.stat().st_size for path in numbers.iterdir()) / runs < 200_000


def test_a_password_in_an_address_is_in_neither_export_nor_page(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    all_plots = main_plots.all_plots
    monkeypatch.setattr(main_plots, "all_plots", lambda context: all_plots(context)[:1])  # the only kind with links
    monkeypatch.setattr(store, "uri", "https://user:secret@host:5000/mlflow")
    page = write.page(gather_runs.gather(store, "later"))
    index = export(store, tmp_path / "exported", ["later"]).read_text()
    assert "https://host:5000/mlflow/#/experiments/" in page
    assert "server: https://host:5000/mlflow\n" in index
    assert "secret" not in page + index + write.page(gather_runs.gather(store, "later", "http://me:secret@[::1]:5000"))


def test_the_command_exports_and_reads_an_export(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--tracking.uri", store.uri, "--format", "csv"]
    assert main(["report", "--suite", "later", *flags, "--export", f"{tmp_path}/exported"]) == 0
    printed = capsys.readouterr().out
    assert main(["report", "--from", f"{tmp_path}/exported", "--format", "csv"]) == 0
    assert printed.splitlines()[1:] == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("suite", ["../../escaped", "/tmp/escaped", "..", "a/b"])
def test_a_suite_of_somebody_else_writes_nothing_outside(
    foreign: Path, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    experiments = yaml.safe_load((foreign / INDEX).read_text())["experiments"]
    change(foreign, "runs", lambda line: line | {"experiment": "later"})
    change_index(foreign, experiments=[one | {"name": suite} for one in experiments if one["name"] == "later"])
    change(foreign, "runs", lambda line: line | {"experiment": suite})
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert main(["report", "--from", str(foreign)]) == 2
    error = capsys.readouterr().err
    assert f"{suite!r} is not used as the name of a file" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "foreign"]
    assert list(Path.cwd().iterdir()) == []


def first_run(folder: Path) -> TrackedRun:
    return Export(folder).runs("later")[0]


def test_ids_paths_and_links_of_a_foreign_export_are_refused(foreign: Path, tmp_path: Path):
    run = first_run(foreign)
    (tmp_path / "outside").mkdir()
    files = foreign / "artifacts" / run.id
    files.rename(tmp_path / "outside" / run.id)
    files.symlink_to(tmp_path / "outside" / run.id)
    with pytest.raises(ValueError, match="nothing is read or written there"):
        gather_runs.gather(Export(foreign), "later")
    for hostile in (f"../outside/{run.id}", f"{tmp_path}/outside/{run.id}"):
        change(foreign, "runs", lambda line, hostile=hostile: line | {"run": hostile})
        with pytest.raises(ValueError, match=r"runs\.parquet: .* is not the id of a run"):
            gather_runs.gather(Export(foreign), "later")


def test_a_file_that_is_gone_from_an_export_is_an_error(foreign: Path):
    run = first_run(foreign)
    (foreign / "artifacts" / run.id / "hypotheses" / "test.json").unlink()
    with pytest.raises(MissingFile, match=rf"^{run.id}/hypotheses/test\.json: "):
        gather_runs.gather(Export(foreign), "later")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (INDEX, "- a list", "has no readable export.yaml; make one with bench store export FOLDER"),
        (INDEX, "format: [", "has no readable export.yaml; make one with bench store export FOLDER"),
        ("metrics.parquet", "PAR1", "metrics.parquet: incomplete or changed: its SHA-256 is not that in export.yaml"),
        ("files.parquet", None, "files.parquet: not readable as a table of an export"),
    ],
)
def test_a_damaged_export_is_one_line(
    foreign: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
):
    (foreign / name).unlink()
    if content is not None:
        (foreign / name).write_text(content)
    assert main(["report", "--from", str(foreign)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_table_that_is_none_is_one_line(foreign: Path, capsys: pytest.CaptureFixture[str]):
    (foreign / "metrics.parquet").write_text("no table")
    accept_changes(foreign)
    assert main(["report", "--from", str(foreign)]) == 2
    assert "metrics.parquet: not readable as a table of an export" in capsys.readouterr().err


@pytest.mark.parametrize(
    "values",
    [
        {"server": 3},
        {"sha256": None},
        {"experiments": [{"name": "later"}]},
        {"experiments": [{"name": 3, "id": "1", "tags": {}}]},
        {"experiments": [{"name": "later", "id": "1", "tags": None}]},
        {"experiments": [{"name": "later", "id": "1", "tags": {"mlflow.note.content": 3}}]},
    ],
    ids=str,
)
def test_wrong_values_of_the_index_are_one_line(
    foreign: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    change_index(foreign, **values)
    assert main(["report", "--from", str(foreign)]) == 2
    assert capsys.readouterr().err == (
        f"bench: {foreign} has no readable export.yaml; make one with bench store export FOLDER\n"
    )


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("runs", {"tags": None}),
        ("runs", {"started": None}),
        ("runs", {"started": 2**62}),
        ("runs", {"name": None}),
        ("runs", {"status": "DONE"}),
        ("runs", {"experiment": "none"}),
        ("metrics", {"time": None}),
        ("metrics", {"key": None}),
        ("datasets", {"name": None}),
        ("files", {"path": None}),
        ("files", {"content": None}),
        ("files", {"path": "../../x"}),
        ("files", {"path": "/etc/x"}),
    ],
    ids=str,
)
def test_wrong_values_of_a_table_are_one_line(
    foreign: Path, table: str, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    if table == "datasets":
        line = {"name": "n", "digest": "d", "kind": "local", "source": "{}", "profile": None, "context": "test"}
        rows = [{"run": first_run(foreign).id, **line, **values}]
        path = foreign / "datasets.parquet"
        parquet.write_table(pa.Table.from_pylist(rows, parquet.read_table(path).schema), path)
        accept_changes(foreign)
    else:
        change(foreign, table, lambda line: line | values)
    assert main(["report", "--from", str(foreign)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert table in error or "is not used as the name of a file" in error


def test_a_file_that_was_changed_is_an_error(foreign: Path):
    path = foreign / "artifacts" / first_run(foreign).id / "hypotheses" / "test.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"test\.json: incomplete or changed: its SHA-256"):
        gather_runs.gather(Export(foreign), "later")


def test_an_export_of_another_format_is_refused(foreign: Path):
    change_index(foreign, store_format=2)
    with pytest.raises(ValueError, match="has format 1 with runs of format 2, but this version reads"):
        Export(foreign)


def test_an_interrupted_export_is_no_export(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "export"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bench.tracking.export.write_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(store, folder, ["later"])
    with pytest.raises(ValueError, match=r"has no readable export\.yaml"):
        Export(folder)
    export(store, folder, ["later"])
    assert Export(folder).suites() == ["later"]
    assert not (folder / "artifacts").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "nowhere has no readable export.yaml; make one with bench store export FOLDER"),
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


def test_wrong_arguments_of_store_print_one_line(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    (tmp_path / "notes.txt").write_text("mine")
    cases = {
        ("export", str(tmp_path)): "it contains 'notes.txt'; expected an empty folder or an export; choose another",
        ("export", str(tmp_path / "x"), "--suite", "never"): "--suite: there is no suite or sweep 'never'",
        ("import", str(tmp_path)): "has no readable export.yaml",
        ("import", str(tmp_path), "--artifacts"): "--suite and --artifacts are for export",
        ("export", str(tmp_path / "x"), "--tracking.uri", f"sqlite:///{tmp_path}/none.db"): "has no runs to export",
    }
    for arguments, message in cases.items():
        assert main(["store", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_exports_of_single_runs_join_into_the_same_report(
    store: Store, whole: Path, numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that has the same runs adds nothing; what it has more of, such as sentences, comes from it."""
    for run in store.runs("later"):
        export_run(store, "later", run.id, tmp_path / "runs" / run.id)
    exports = read_exports([tmp_path / "runs"])
    assert len(exports) == 5
    joined = gather_runs.gather(join(exports), "later")
    one = gather_runs.gather(Export(numbers), "later")
    assert write.csv(joined) == write.csv(one)
    assert write.terminal(joined) == write.terminal(one)
    assert (joined.question, joined.written) == (one.question, one.written)
    both = gather_runs.gather(join([Export(whole), *exports]), "later")
    assert write.csv(both) == write.csv(one)
    assert all(both.has_sentences(track) for track in both.tracks)
    monkeypatch.setattr(main_plots, "all_plots", lambda _: [])
    assert main(["report", "--from", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.csv").read_text() == write.csv(one)
    with pytest.raises(ValueError, match="there is no suite 'none' in the 5 folders; there are: later"):
        gather_runs.gather(join(exports), "none")


def test_times_measured_together_replace_those_of_the_runs(numbers: Path, tmp_path: Path):
    """The results of a suite: exports in the folder runs, and the times of its rows beside them."""
    folder = tmp_path / "table"
    shutil.copytree(numbers, folder / "runs" / "one")
    own = gather_runs.gather(read_folders([folder]), "later")
    jobs = [run.tags["job_hash"] for run in Export(numbers).runs("later") if run.tags["row"] == "tested"]
    measured = Measure("latency_p50_ms", 3.25, "ms", provenance="all rows on one machine", noisy=True)
    row = RowSpeed("tested", "toy-en-de", jobs, [measured])
    Speeds("later", {"hardware.cpu": "A CPU <i>", "threads": "2"}, [row]).write(folder / "runs")
    for given in (folder, folder / "runs"):
        found = gather_runs.gather(read_folders([given]), "later")
        lines = [line for line in write.csv(found).splitlines() if ",latency_p50_ms," in line]
        values = {line.split(",")[3]: line.split(",")[8] for line in lines}
        assert values == {"tested": "3.25", "same": "12.5", "new": "12.5"}
        page = write.page(found)
        assert "A CPU &lt;i&gt;, threads: 2." in page
        assert "latency and throughput of Same and New." in page
    assert "on one machine" not in write.page(own)
    other = gather_runs.gather(read_folders([folder]), "earlier")
    assert ",3.25," not in write.csv(other), "the times are of the rows of one suite"
