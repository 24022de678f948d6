"""The commands that use the runs of a store: report, store, translate, probe, attention, promote, latency, ui."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli import reporting
from bench.cli.arguments import PROGRAM
from bench.system import streams
from bench.system.visible_text import visible_line


def report_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.system import terminal
    from bench.system.files import inside
    from bench.tracking import export
    from bench.tracking.joined import read_folders
    from bench.tracking.store import Store, TrackingSettings
    from reports.report import read

    if args.exported and (args.uri or args.export):
        raise ValueError(
            "--from: an export is read without a tracking store, so it cannot be combined with --tracking.uri or "
            "--export; remove one of the flags"
        )
    if args.site:
        return _site_command(args)
    if args.artifacts and not args.export:
        raise ValueError("--artifacts: it is a setting of --export; add --export FOLDER, or remove the flag")
    if args.format == "csv" and (args.out or args.open):
        raise ValueError("--format csv: the table is printed, and no page is written; remove --out and --open")
    store = None if args.exported else Store(TrackingSettings(args.uri, args.folder), read_only=True)
    reader = store or read_folders(args.exported)
    report = read(reader, args.suite, args.ui_url, args.lang, args.compare, args.baseline)
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
    from bench.tracking.joined import read_folders
    from bench.tracking.store import Store, TrackingSettings
    from reports.site import write_site

    for flag in ("suite", "out", "format", "compare", "baseline", "export", "artifacts"):
        if getattr(args, flag):
            raise ValueError(
                f"--{flag}: a site has all suites and its own folder, so it cannot be combined with --site; remove "
                "one of the flags"
            )
    readers = [read_folders([folder]) for folder in args.exported]
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
    result = import_runs.import_runs(store, exported.read_exports([args.exported]))
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


def latency_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import repeat_latency
    from bench.tracking.store import Store, TrackingSettings

    if args.times < 2:
        raise ValueError(f"--times: {args.times} is too few to compare; set at least 2")
    store = Store(TrackingSettings(args.uri, args.folder), read_only=True)
    return int(not repeat_latency.show(store, args.runs, args.times))


def ui_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.tracking.store import Store, TrackingSettings
    from bench.tracking.ui import serve_ui

    settings = TrackingSettings(args.uri, args.folder)
    return serve_ui(Store(settings, read_only=not Store.can_write(settings)), args.port, args.open)
