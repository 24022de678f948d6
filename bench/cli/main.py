"""The command `bench`. Slow imports stand inside the commands, so that --help needs none of them."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import reporting
from bench.cli.arguments import PROGRAM, build_parser
from bench.system import streams
from bench.system.home import provide_home
from bench.system.visible_text import visible_line

if TYPE_CHECKING:
    from bench.runs.suite import Suite
    from bench.runs.worker_backend import WorkerBackend


TRAINING_COMMANDS = ("run", "suite", "scale", "sweep")
"""Commands whose output is messages about work that lasts; the work goes on if nobody reads them."""

ADVICE = {
    errno.ENOSPC: "Free space on the disk, and run the same command again to resume.",
    errno.EDQUOT: "Free space in your quota, and run the same command again to resume.",
    errno.EACCES: "Choose a file or folder that you may use (folders of results: --tracking.folder and --out).",
    errno.EROFS: "Choose a folder that can be written (folders of results: --tracking.folder and --out).",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A file is where a folder is expected: choose another folder.",
    errno.EEXIST: "A file is where a folder is expected: choose another folder.",
    errno.EISDIR: "A folder is where a file is expected: check the path.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), and run the same command again to resume.",
}
ADVICE[errno.EPERM] = ADVICE[errno.EACCES]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Exit codes: 0 done, 1 a job failed, 2 bad input, 3 the time was up, 130 and 143 interrupted."""
    if arguments is None:
        streams.use_utf8_mode()
        arguments = sys.argv[1:]
    streams.prepare()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        code = _run_command(arguments)
        sys.stdout.flush()  # here, because a failure at the end of the process has no message
        return code
    except UnicodeError as error:
        return _print_error(_describe_unicode_error(error))
    except ValueError as error:
        return _print_error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has ended, as in `bench models | head`
        streams.discard(sys.stdout)
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{where}{error.strerror or error}. {_advice(error)}")
    except Exception as error:
        from bench.tracking.store import StoreFailure  # here, because it is slow

        if isinstance(error, StoreFailure):
            return _print_error(f"the tracking store failed: {str(error)[:240]}. Run the same command again to resume.")
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            streams.discard_unwritable(stream)  # else Python fails when it ends, with exit code 120


def _run_command(arguments: Sequence[str]) -> int:
    if sys.flags.optimize > 1:  # Altair fails then, which is after all the work of a suite
        raise ValueError(
            "Python runs without docstrings, which libraries need; unset PYTHONOPTIMIZE, or use -O, not -OO"
        )
    streams.check_arguments(arguments)
    args, rest = build_parser().parse_known_args(arguments)
    if args.command == "translate":  # argparse leaves sentences that follow an option in `rest`
        args.sentences += [part for part in rest if not part.startswith("-")]
        rest = [part for part in rest if part.startswith("-")]
    if rest and args.command not in (*TRAINING_COMMANDS, "plan", "data"):
        raise ValueError(f"unknown arguments: {' '.join(rest)}; see {PROGRAM} {args.command} --help")
    streams.check_current_folder()
    if line := provide_home():
        _print_line(line)
    if args.command in TRAINING_COMMANDS:
        with streams.lasting_output():
            try:
                return COMMANDS[args.command](args, rest)
            except BrokenPipeError as error:  # of a connection, not of the output: the work is not done
                raise ConnectionError(error.errno, f"a connection has ended ({error.strerror})") from error
    return COMMANDS[args.command](args, rest)


def _advice(error: OSError) -> str:
    if error.errno == errno.ENOENT and not error.filename:  # Python has found no folder for temporary files
        return "Set TMPDIR to a folder that you may write."
    return ADVICE.get(error.errno or 0, "Fix the problem (disk full?) and run the same command again to resume.")


def _describe_unicode_error(error: UnicodeError) -> str:
    """The message for text that cannot be written as bytes, or bytes that are not text; no place is known here."""
    if isinstance(error, UnicodeEncodeError):
        text = error.object[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
        return (
            f"{text}: this text cannot be written as {error.encoding} ({error.reason}); expected valid Unicode text, "
            "and names of files in the encoding of the locale; correct the text or the name, or set LC_ALL=C.UTF-8"
        )
    return f"text is not UTF-8: {error}; expected files and names in UTF-8; convert them with iconv"


def _print_error(reason: str) -> int:
    """Prints an error as one line; returns the exit code."""
    _print_line(visible_line(" ".join(reason.split())))
    return 2


def _print_line(line: str) -> None:
    """Prints a line on standard error; a standard error that cannot be written changes nothing."""
    with contextlib.suppress(OSError):
        print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


def run_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import merge_settings, resolve, settings_parser

    if args.settings:
        _, merged = merge_settings(args.file, args.preset, args.row, [])
        settings_parser(merged["model"]["name"]).print_help()
        return 0
    experiment = resolve(args.file, preset=args.preset, row=args.row, flags=flags)

    from bench.runs.ddp_follower import follow_elsewhere
    from bench.runs.job import run
    from bench.system import terminal
    from bench.tracking.store import Store
    from bench.training.budget import Diverged
    from bench.training.checkpoints import Interrupted

    try:
        terminal.say(experiment.name)
        if node := experiment.machine.node:
            follow_elsewhere(experiment, node)
            return 0
        result = run(experiment, Store(experiment.tracking), "runs", again=args.again)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    except Diverged as error:
        terminal.say(f"failed: {error}")
        return 1
    result.show()
    return 0


def suite_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.runs.scale import is_study
    from bench.runs.suite import Suite

    if is_study(args.file):
        raise ValueError(f"{args.file}: the file of a scaling study; run it with {PROGRAM} scale {args.file}")
    return _run_jobs(args, flags, Suite.read(args.file))


def scale_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.runs.scale import Scale

    return _run_jobs(args, flags, Scale.read(args.file))


def _run_jobs(args: argparse.Namespace, flags: list[str], suite: Suite) -> int:
    """Runs the jobs of a suite or a scaling study, then writes its report."""
    from bench.runs import results as results_folder
    from bench.runs.suite import run_suite
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking.store import Store
    from bench.training.checkpoints import Interrupted

    suite.seeds = args.seeds or suite.seeds
    backend = _worker_backend(args)
    try:
        results, completed = run_suite(args.file, suite, flags, args.again, backend, args.max_seconds, args.export)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    if not results:
        return 3
    name, tracking = args.file.stem, results[0].experiment.tracking
    if all(result.state == results_folder.IN_RESULTS for result in results) and completed and not args.out:
        from reports.report import read

        reporting.print_table(read(results_folder.joined(None, args.file, suite.results), name))
        return 0
    out = args.out or inside(Path(tracking.folder), "reports", name)
    store = Store(tracking)
    experiment = reporting.publish(store, name, out, results_folder.joined(store, args.file, suite.results))
    reporting.say_where_to_compare(store, experiment, "suite")
    return 1 if any(result.run is None for result in results) else 0 if completed else 3


def sweep_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import row_files
    from bench.experiment.yaml_layers import check_known
    from bench.sweep import equal_search
    from bench.sweep.settings import Sweep

    sweep = Sweep.read(args.file)
    rows, preset = args.row or sweep.rows, args.preset or sweep.preset or "demo"
    if not rows:
        raise ValueError(f"--row: {args.file} names no rows; name those to search for, such as --row gnmt luong")
    for row in rows:
        check_known("row", row, list(row_files()), Path("--row"))
    if sweep.rows:
        equal_search.check_arguments(sweep, args.file, rows, args.preset, args.trials)
    sweep.trials = args.trials or sweep.trials

    from bench.runs.worker_backend import LocalBackend
    from bench.sweep.run_sweep import print_results, run_sweep
    from bench.system import terminal
    from bench.tracking.store import Store
    from bench.training.checkpoints import Interrupted

    backend = _worker_backend(args) or LocalBackend(1)
    try:
        results = run_sweep(args.file, sweep, rows, preset, flags, backend, args.storage, args.max_seconds)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    print_results(results)
    store = Store(results[0].study.base.tracking)
    reporting.say_where_to_compare(store, store.experiment_id(args.file.stem), "sweep")
    if remaining := sum(result.job_counts["remaining"] for result in results):
        terminal.say(f"--max_seconds: the time is up, {remaining} jobs remain; run the same command again to continue")
        return 3
    return 1 if any(result.job_counts["FAILED"] for result in results) else 0


def plan_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.checks.plan_file import read_jobs, show
    from bench.planning.gpus import find_gpu
    from bench.planning.plan import Resources
    from bench.system.machine import seconds_since_start
    from bench.tracking.exported import Export
    from bench.tracking.store import Store

    start_s = seconds_since_start()  # of this process, which has imported what a worker imports
    gpu = find_gpu(args.gpu) if args.gpu else None
    kind, jobs = read_jobs(args.file, flags, args.seeds, args.row, args.preset, args.trials)
    readers = [Export(folder) for folder in args.exported]
    store = Store(jobs[0].experiment.tracking, read_only=True)
    show(kind, jobs, Resources.of(args.workers, start_s, gpu), [*readers, store], args.format)
    return 0


def tuned_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import tuning

    return int(not tuning.write(args.file))


def _worker_backend(args: argparse.Namespace) -> WorkerBackend | None:
    """The backend that starts the workers of a command; None if this process executes the jobs itself."""
    if args.cluster:
        from bench.runs.ray_cluster import RayBackend

        return RayBackend(args.cluster, args.workers, args.cpus_per_trial or 1, args.gpus_per_trial or 0.0)
    for flag in ("gpus_per_trial", "cpus_per_trial"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag}: only the workers of a cluster have this setting; add --cluster, or remove the flag"
            )
    from bench.runs.worker_backend import LocalBackend

    return LocalBackend(args.workers) if args.workers else None


def report_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking import export, exported
    from bench.tracking.joined import join
    from bench.tracking.store import Store, TrackingSettings
    from reports.report import read

    if args.exported and (args.uri or args.export):
        raise ValueError(
            "--from: an export is read without a tracking store, so it cannot be combined with --tracking.uri or "
            "--export; remove one of the flags"
        )
    if args.site:
        return _site_command(args)
    store = None if args.exported else Store(TrackingSettings(args.uri, args.folder), read_only=True)
    reader = store or join(exported.read_exports(args.exported))
    report = read(reader, args.suite, args.ui_url, args.lang, args.compare)
    if store and args.export:
        suites = {report.suite: None, **({args.compare: None} if args.compare else {})}
        terminal.say(f"{export.export(store, args.export, list(suites), args.artifacts)}")
    if args.format == "csv":
        streams.write_utf8()
        sys.stdout.write(report.csv())
        return 0
    page = reporting.write(report, args.out or inside(Path(args.folder), "reports", report.suite))
    if args.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def _site_command(args: argparse.Namespace) -> int:
    """Writes the static site of all suites, and prints the name of its index."""
    from bench.system import terminal
    from bench.tracking.exported import read_exports
    from bench.tracking.joined import join
    from bench.tracking.store import Store, TrackingSettings
    from reports.site import write_site

    for flag in ("suite", "out", "format", "compare", "export", "artifacts"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag}: a site has all suites and its own folder, so it cannot be combined with --site; remove "
                "one of the flags"
            )
    readers = [join(read_exports([folder])) for folder in args.exported]
    readers = readers or [Store(TrackingSettings(args.uri, args.folder), read_only=True)]
    try:
        index, *pages = write_site(readers, args.site, args.lang, args.ui_url)
    except OSError as error:
        raise reporting.cannot_write(error, "--site") from error
    terminal.say(f"{index} ({len(pages)} pages)")
    if args.open:
        import webbrowser

        webbrowser.open(index.resolve().as_uri())
    return 0


def store_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking import export, exported, import_runs
    from bench.tracking.store import Store, TrackingSettings

    settings = TrackingSettings(args.uri, args.folder)
    if args.action == "export":
        store = Store(settings, read_only=True)
        suites = args.suite or export.exportable(store)
        if not suites:
            raise ValueError(f"{store.uri} has no runs to export; start some with {PROGRAM} suite FILE")
        terminal.say(f"{export.export(store, args.exported, suites, args.artifacts)}")
        return 0
    if args.suite or args.artifacts:
        raise ValueError("--suite and --artifacts are for export; an import takes everything of the folder")
    store = Store(settings)
    result = import_runs.import_runs(store, exported.Export(args.exported))
    terminal.say(f"{result.added} runs added to {store.uri}, {result.present} were there before")
    for suite in result.suites:
        reporting.publish(store, suite, inside(Path(settings.folder), "reports", suite))
    return 0


def translate_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import trained_model
    from bench.tracking.store import Store, TrackingSettings

    streams.write_utf8()
    chunks = trained_model.read_sentences(args.sentences, args.file, sys.stdin)
    store = Store(TrackingSettings(args.uri, args.folder), read_only=True)
    translator = trained_model.load(store, args.run)
    if args.others:
        translator = trained_model.join_ensemble(
            [translator, *(trained_model.load(store, other) for other in args.others)]
        )
    settings = translator.decoding_settings(args.beam)
    if not 1 <= args.n_best <= settings.beam:
        raise ValueError(f"--n_best: {args.n_best} is not between 1 and the beam, {settings.beam}; raise --beam")
    read = truncated = 0
    for chunk in chunks:
        translations, cut = translator.translate(chunk, settings)
        for number, candidates in enumerate(translations, start=read + 1):
            for text, score in candidates[: args.n_best]:
                columns = [str(number)] if args.n_best > 1 else []
                columns += [f"{score:.4f}"] if args.scores else []
                print("\t".join([*columns, visible_line(text)]), flush=sys.stdin.isatty())
        read, truncated = read + len(chunk), truncated + cut
    if truncated:
        limit = translator.experiment.text.source_length_limit
        print(f"{PROGRAM}: {truncated} of {read} sentences had more than {limit} tokens and were cut", file=sys.stderr)
    return 0


def probe_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import probe_model
    from bench.measures.probes import read
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings

    contrasts = read(args.file) if args.file else None
    store = Store(TrackingSettings(args.uri, args.folder), read_only=True)
    runs = probe_model.select_runs(store, args.runs, args.suite)
    terminal.table(*probe_model.accuracy_table(runs, store, contrasts))
    if len(runs) == 1 and contrasts is None and (rows := probe_model.illustration_rows(runs[0], store)):
        terminal.say("")
        columns = [("source", "left"), ("right", "left"), ("wrong", "left"), ("P(right) of the two, %", "right")]
        terminal.table(columns, rows)
    return 0


def attention_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import attention_maps, trained_model
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking.store import Store, TrackingSettings
    from reports.plots import attention_heatmap

    store = Store(TrackingSettings(args.uri, args.folder), read_only=True)
    run = trained_model.find_run(store, args.run)
    attention = attention_maps.sentence_attention(trained_model.load(store, run.id), args.sentence)
    selected = attention.select(args.kind, args.layer, args.head)
    terminal.say(visible_line(attention.translation))
    out = args.out or inside(Path(args.folder), "attention", run.id[:12])
    try:
        files = attention_heatmap.write(attention, selected, out)
    except OSError as error:
        raise reporting.cannot_write(error) from error
    for file in files:
        terminal.say(str(file))
    try:
        for file in files:
            store.log_file(run, file, "attention")
    except OSError as error:
        if error.errno not in reporting.NOT_WRITABLE:
            raise
        terminal.say(f"not added to the artifacts of the run: {error.filename}: {error.strerror}")
    return 0


def promote_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import trained_model
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings

    store = Store(TrackingSettings(args.uri, args.folder))
    terminal.say(store.promote(trained_model.find_run(store, args.run), args.name))
    return 0


def data_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.data import find_corpus
    from bench.system import terminal

    if args.action == "list":
        if args.name or flags:
            raise ValueError(f"unknown arguments: {' '.join([args.name or '', *flags])}; see {PROGRAM} data --help")
        columns = [("corpus", "left"), ("what it is", "left")]
        terminal.table(columns, [[name, about] for name, about in find_corpus.descriptions().items()])
        return 0
    if not args.name:
        raise ValueError(
            f"name a corpus: {PROGRAM} data {args.action} NAME; there are: {', '.join(find_corpus.names())}"
        )
    if args.action == "fetch":
        if flags:
            raise ValueError(f"unknown arguments: {' '.join(flags)}; see {PROGRAM} data --help")
        folder, terms = find_corpus.fetch(args.name)
        terminal.say(terms)
        terminal.say(str(folder))
        return 0

    from bench.data import prepared_corpus
    from bench.data.corpus_stats import corpus_stats, show
    from bench.data.text_lines import BadLines
    from bench.data.vocabulary import TextSettings
    from bench.experiment.loading import corpus_settings

    thorough = args.action == "check"
    try:
        as_in_the_files = TextSettings(normalization="none")
        corpus = prepared_corpus.load(corpus_settings(args.name, flags), as_in_the_files)
        stats = corpus_stats(corpus, thorough)
    except BadLines as error:
        if not thorough:
            raise
        for line in error.summary:
            terminal.say(line)
        return 1
    show(stats)
    return int(stats.has_faults)


def models_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks.model_table import show

    show(args.preset)
    return 0


def latency_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import repeat_latency
    from bench.tracking.store import Store, TrackingSettings

    if args.times < 2:
        raise ValueError(f"--times: {args.times} is too few to compare; set at least 2")
    store = Store(TrackingSettings(args.uri, args.folder), read_only=True)
    return int(not repeat_latency.show(store, args.runs, args.times))


def verify_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import model_sizes, scaling_simulation, tuning, verify

    if args.preset and args.what != "tuning":
        raise ValueError(f"--preset: bench verify {args.what} checks all presets; remove the flag")
    checks = {
        "flops": lambda: verify.flops(args.device),
        "costs": verify.published_costs,
        "sizes": model_sizes.show,
        "tuning": lambda: tuning.show(args.preset),
        "scaling": scaling_simulation.show,
    }
    return int(not checks[args.what]())


def ui_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.tracking.store import Store, TrackingSettings
    from bench.tracking.ui import serve_ui

    settings = TrackingSettings(args.uri, args.folder)
    return serve_ui(Store(settings, read_only=not Store.can_write(settings)), args.port, args.open)


COMMANDS = {
    "run": run_command,
    "suite": suite_command,
    "scale": scale_command,
    "sweep": sweep_command,
    "plan": plan_command,
    "tuned": tuned_command,
    "report": report_command,
    "store": store_command,
    "translate": translate_command,
    "probe": probe_command,
    "attention": attention_command,
    "promote": promote_command,
    "data": data_command,
    "models": models_command,
    "latency": latency_command,
    "verify": verify_command,
    "ui": ui_command,
}


if __name__ == "__main__":
    sys.exit(main())
