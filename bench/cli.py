"""The command `bench`. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.arguments import PROGRAM, build_parser

if TYPE_CHECKING:
    from bench.workers import Place
    from reports.context import Context


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
        from bench.tracking import StoreFailure  # an import for which nobody waits

        if isinstance(error, StoreFailure):
            return _refused(f"the tracking store failed, the same command continues: {error}"[:300])
        raise


def _refused(reason: str) -> int:
    print(f"{PROGRAM}: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def run_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench.experiment import layered, parser, resolve

    if known.settings:
        _, merged = layered(known.file, known.preset, known.row, [])
        parser(merged["model"]["name"]).print_help()
        return 0
    experiment = resolve(known.file, preset=known.preset, row=known.row, flags=flags)

    from bench import terminal
    from bench.checkpoints import Interrupted
    from bench.follow import follow_elsewhere
    from bench.job import run
    from bench.meter import Diverged
    from bench.tracking import Store

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
    from bench import terminal
    from bench.checkpoints import Interrupted
    from bench.suite import Suite, run_suite
    from bench.tracking import Store
    from reports.gathering import gather

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
    from bench.experiment import architectures
    from bench.layers import choose
    from bench.sweep import Sweep

    sweep = Sweep.read(known.file)
    sweep.trials = known.trials or sweep.trials
    for row in known.row:
        choose("row", row, list(architectures()), Path("--row"))

    from bench import terminal
    from bench.checkpoints import Interrupted
    from bench.tuning import run_sweep, show
    from bench.workers import Here

    place = _place(known) or Here(1)
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


def _place(known: argparse.Namespace) -> Place | None:
    """Where the jobs of a command are done; None for this process."""
    if known.cluster:
        from bench.cluster import Cluster

        return Cluster(known.cluster, known.workers, known.cpus_per_trial or 1, known.gpus_per_trial or 0.0)
    for flag in ("gpus_per_trial", "cpus_per_trial"):
        if getattr(known, flag):
            raise ValueError(f"--{flag}: only a cluster shares them out; add --cluster, or leave it")
    from bench.workers import Here

    return Here(known.workers) if known.workers else None


def report_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import terminal
    from bench.tracking import Store, Tracking
    from reports import gathering, snapshot, write

    if known.snapshot and (known.uri or known.export):
        raise ValueError("--from: a snapshot is read without a store and exported from one; give one of the two")
    store = snapshot.Snapshot(known.snapshot) if known.snapshot else Store(Tracking(known.uri, known.folder))
    reader = snapshot.Recorder(store) if known.export else store
    found = gathering.gather(reader, known.suite, known.ui_url, known.lang, known.compare)
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
    from bench import terminal
    from reports import write

    files = write.all_forms(found, out)
    terminal.table(*write.terminal(found))
    for file in files:
        terminal.say(f"{file}")
    return files[0]


def translate_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import translator
    from bench.terminal import printable
    from bench.tracking import Store, Tracking

    given = translator.sentences(known.sentences, known.file, sys.stdin)
    store = Store(Tracking(known.uri, known.folder))
    loaded = translator.load(store, known.run)
    if known.others:
        loaded = translator.join([loaded, *(translator.load(store, other) for other in known.others)])
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
        limit = loaded.experiment.text.cut_at
        print(f"{PROGRAM}: {over} of {read} sentences had more than {limit} tokens and were cut", file=sys.stderr)
    return 0


def probe_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import probing, terminal
    from bench.measures.probes import read
    from bench.tracking import Store, Tracking

    given = read(known.file) if known.file else None
    store = Store(Tracking(known.uri, known.folder))
    runs = probing.runs(store, known.runs, known.suite)
    terminal.table(*probing.table(runs, store, given))
    if len(runs) == 1 and given is None and (rows := probing.shown(runs[0], store)):
        terminal.say("")
        columns = [("source", "left"), ("right", "left"), ("wrong", "left"), ("P(right) of the two, %", "right")]
        terminal.table(columns, rows)
    return 0


def attention_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import attention, terminal, translator
    from bench.tracking import Store, Tracking
    from reports import heat

    store = Store(Tracking(known.uri, known.folder))
    run = translator.find(store, known.run)
    looks = attention.look(translator.load(store, run.id), known.sentence)
    picked = looks.picked(known.kind, known.layer, known.head)
    terminal.say(terminal.printable(looks.translation))
    for file in heat.write(looks, picked, known.out or Path(known.folder) / "attention" / run.id[:12]):
        store.add(run, file, "attention")
        terminal.say(str(file))
    return 0


def promote_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import terminal, translator
    from bench.tracking import Store, Tracking

    store = Store(Tracking(known.uri, known.folder))
    terminal.say(store.promote(translator.find(store, known.run), known.name))
    return 0


def data_command(known: argparse.Namespace, flags: list[str]) -> int:
    from bench import corpora, terminal
    from bench.experiment import corpus_settings

    if known.action == "list":
        if known.name or flags:
            raise ValueError(f"unknown arguments: {' '.join([known.name or '', *flags])}; see {PROGRAM} data --help")
        columns = [("corpus", "left"), ("what it is", "left")]
        terminal.table(columns, [[name, about] for name, about in corpora.descriptions().items()])
        return 0
    if not known.name:
        raise ValueError(f"name a corpus: {PROGRAM} data {known.action} NAME; there are: {', '.join(corpora.names())}")
    if known.action == "fetch":
        terminal.say(str(corpora.fetch(known.name)))
        return 0

    from bench.passport import passport, show

    found = passport(corpora.load(corpus_settings(known.name, flags)), thorough=known.action == "check")
    show(found)
    return int(found.faulty)


def models_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.ladder import show

    show(known.preset)
    return 0


def latency_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import timing
    from bench.tracking import Store, Tracking

    if known.times < 2:
        raise ValueError(f"--times: {known.times} leaves nothing to compare; at least 2")
    return int(not timing.show(Store(Tracking(known.uri, known.folder)), known.runs, known.times))


def verify_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import sizes, verification

    checks = {
        "flops": lambda: verification.flops(known.device),
        "costs": verification.published_costs,
        "sizes": sizes.show,
    }
    return int(not checks[known.what]())


def ui_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.tracking import Store, Tracking, serve

    serve(Store(Tracking(known.uri, known.folder)), known.port)
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
