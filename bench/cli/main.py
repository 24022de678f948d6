"""The command `bench`. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import PROGRAM, build_parser

if TYPE_CHECKING:
    from bench.runs.worker_pool import WorkerBackend
    from reports.gathering.context import Context


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Exit codes: 0 done, 1 a job failed, 2 bad input, 3 time was up, 130 and 143 interrupted."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        known, rest = build_parser().parse_known_args(arguments)
        if known.command == "translate":  # argparse does not take sentences that stand behind a flag
            known.sentences += [part for part in rest if not part.startswith("-")]
            rest = [part for part in rest if part.startswith("-")]
        if rest and known.command not in ("run", "suite", "sweep", "data"):
            raise ValueError(f"unknown arguments: {' '.join(rest)}; see {PROGRAM} {known.command} --help")
        return COMMANDS[known.command](known, rest)
    except ValueError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `bench models | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refused(f"{where}{error.strerror or error}; mend it (make room?) and the same command continues")
    except Exception as error:
        from bench.tracking.store import StoreFailure  # an import for which nobody waits

        if isinstance(error, StoreFailure):
            return _refused(f"the tracking store failed, the same command continues: {error}"[:300])
        raise


def _refused(reason: str) -> int:
    print(f"{PROGRAM}: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def run_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import layered, parser, resolve

    if known.settings:
        _, merged = layered(known.file, known.preset, known.row, [])
        parser(merged["model"]["name"]).print_help()
        return 0
    experiment = resolve(known.file, preset=known.preset, row=known.row, flags=flags)

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
        outcome = run(experiment, Store(experiment.tracking), "runs", again=known.again)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    except Diverged as error:
        terminal.say(f"failed: {error}")
        return 1
    outcome.show()
    return 0


def suite_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench.runs.suite import Suite, run_suite
    from bench.system import terminal
    from bench.tracking.store import Store
    from bench.training.checkpoints import Interrupted
    from reports.gathering.gather_runs import gather

    suite = Suite.read(known.file)
    suite.seeds = known.seeds or suite.seeds
    place = _place(known)
    try:
        outcomes, whole = run_suite(known.file, suite, flags, known.again, place, known.max_seconds)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    if not outcomes:
        return 3
    tracking = outcomes[0].experiment.tracking
    out = known.out or Path(tracking.folder) / "reports" / known.file.stem
    store = Store(tracking)
    _write_report(gather(store, known.file.stem), out)
    store.attach(known.file.stem, out, "report")
    return 1 if any(outcome.run is None for outcome in outcomes) else 0 if whole else 3


def sweep_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment.loading import architectures
    from bench.experiment.yaml_layers import choose
    from bench.sweep.settings import Sweep

    sweep = Sweep.read(known.file)
    sweep.trials = known.trials or sweep.trials
    for row in known.row:
        choose("row", row, list(architectures()), Path("--row"))

    from bench.runs.worker_pool import LocalBackend
    from bench.sweep.run_sweep import run_sweep, show
    from bench.system import terminal
    from bench.training.checkpoints import Interrupted

    place = _place(known) or LocalBackend(1)
    try:
        found = run_sweep(known.file, sweep, known.row, known.preset, flags, place, known.storage, known.max_seconds)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    show(found)
    if any(one.states["left"] for one in found):
        terminal.say("the time is up; the same command continues")
        return 3
    return 1 if any(one.states["FAILED"] for one in found) else 0


def _place(known: argparse.Namespace) -> WorkerBackend | None:
    """Where the jobs of a command are done; None for this process."""
    if known.cluster:
        from bench.runs.ray_cluster import RayBackend

        return RayBackend(known.cluster, known.workers, known.cpus_per_trial or 1, known.gpus_per_trial or 0.0)
    for flag in ("gpus_per_trial", "cpus_per_trial"):
        if getattr(known, flag):
            raise ValueError(f"--{flag}: only a cluster shares them out; add --cluster, or leave it")
    from bench.runs.worker_pool import LocalBackend

    return LocalBackend(known.workers) if known.workers else None


def report_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings
    from reports import write
    from reports.gathering import gather_runs, snapshot

    if known.snapshot and (known.uri or known.export):
        raise ValueError("--from: a snapshot is read without a store and exported from one; give one of the two")
    store = snapshot.Snapshot(known.snapshot) if known.snapshot else Store(TrackingSettings(known.uri, known.folder))
    reader = snapshot.Recorder(store) if known.export else store
    found = gather_runs.gather(reader, known.suite, known.ui_url, known.lang, known.compare)
    if isinstance(reader, snapshot.Recorder):
        terminal.say(f"{reader.keep(known.export)}")
    if known.format == "csv":
        sys.stdout.write(write.csv(found))
        return 0
    page = _write_report(found, known.out or Path(known.folder) / "reports" / found.suite)
    if known.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def _write_report(found: Context, out: Path) -> Path:
    """Prints the table and the names of the files; returns the page."""
    from bench.system import terminal
    from reports import write

    files = write.all_forms(found, out)
    terminal.table(*write.terminal(found))
    for file in files:
        terminal.say(f"{file}")
    return files[0]


def translate_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import trained_model
    from bench.system.terminal import printable
    from bench.tracking.store import Store, TrackingSettings

    given = trained_model.sentences(known.sentences, known.file, sys.stdin)
    store = Store(TrackingSettings(known.uri, known.folder))
    loaded = trained_model.load(store, known.run)
    if known.others:
        loaded = trained_model.join([loaded, *(trained_model.load(store, other) for other in known.others)])
    settings = loaded.searching(known.beam)
    if not 1 <= known.n_best <= settings.beam:
        raise ValueError(f"--n_best: {known.n_best} is not between 1 and the beam, {settings.beam}; raise --beam")
    read = over = 0
    for chunk in given:
        found, cut = loaded.translate(chunk, settings)
        for number, candidates in enumerate(found, start=read + 1):
            for text, score in candidates[: known.n_best]:
                columns = [str(number)] if known.n_best > 1 else []
                columns += [f"{score:.4f}"] if known.scores else []
                print("\t".join([*columns, printable(text)]), flush=sys.stdin.isatty())
        read, over = read + len(chunk), over + cut
    if over:
        limit = loaded.experiment.text.source_length_limit
        print(f"{PROGRAM}: {over} of {read} sentences had more than {limit} tokens and were cut", file=sys.stderr)
    return 0


def probe_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import probe_model
    from bench.measures.probes import read
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings

    given = read(known.file) if known.file else None
    store = Store(TrackingSettings(known.uri, known.folder))
    runs = probe_model.runs(store, known.runs, known.suite)
    terminal.table(*probe_model.table(runs, store, given))
    if len(runs) == 1 and given is None and (rows := probe_model.shown(runs[0], store)):
        terminal.say("")
        columns = [("source", "left"), ("right", "left"), ("wrong", "left"), ("P(right) of the two, %", "right")]
        terminal.table(columns, rows)
    return 0


def attention_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import attention_maps, trained_model
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings
    from reports.plots import attention_heatmap

    store = Store(TrackingSettings(known.uri, known.folder))
    run = trained_model.find(store, known.run)
    looks = attention_maps.look(trained_model.load(store, run.id), known.sentence)
    picked = looks.picked(known.kind, known.layer, known.head)
    terminal.say(terminal.printable(looks.translation))
    for file in attention_heatmap.write(looks, picked, known.out or Path(known.folder) / "attention" / run.id[:12]):
        store.add(run, file, "attention")
        terminal.say(str(file))
    return 0


def promote_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.evaluation import trained_model
    from bench.system import terminal
    from bench.tracking.store import Store, TrackingSettings

    store = Store(TrackingSettings(known.uri, known.folder))
    terminal.say(store.promote(trained_model.find(store, known.run), known.name))
    return 0


def data_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench.data import corpus_loading
    from bench.experiment.loading import corpus_settings
    from bench.system import terminal

    if known.action == "list":
        if known.name or flags:
            raise ValueError(f"unknown arguments: {' '.join([known.name or '', *flags])}; see {PROGRAM} data --help")
        columns = [("corpus", "left"), ("what it is", "left")]
        terminal.table(columns, [[name, about] for name, about in corpus_loading.descriptions().items()])
        return 0
    if not known.name:
        raise ValueError(
            f"name a corpus: {PROGRAM} data {known.action} NAME; there are: {', '.join(corpus_loading.names())}"
        )
    if known.action == "fetch":
        terminal.say(str(corpus_loading.fetch(known.name)))
        return 0

    from bench.data.corpus_stats import corpus_stats, show

    found = corpus_stats(corpus_loading.load(corpus_settings(known.name, flags)), thorough=known.action == "check")
    show(found)
    return int(found.has_faults)


def models_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.checks.model_table import show

    show(known.preset)
    return 0


def latency_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import repeat_latency
    from bench.tracking.store import Store, TrackingSettings

    if known.times < 2:
        raise ValueError(f"--times: {known.times} leaves nothing to compare; at least 2")
    return int(not repeat_latency.show(Store(TrackingSettings(known.uri, known.folder)), known.runs, known.times))


def verify_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import model_sizes, verify

    checks = {
        "flops": lambda: verify.flops(known.device),
        "costs": verify.published_costs,
        "sizes": model_sizes.show,
    }
    return int(not checks[known.what]())


def ui_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.tracking.store import Store, TrackingSettings
    from bench.tracking.ui import serve

    serve(Store(TrackingSettings(known.uri, known.folder)), known.port)
    return 0


COMMANDS = {
    "run": run_command,
    "suite": suite_command,
    "sweep": sweep_command,
    "report": report_command,
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
