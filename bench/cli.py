"""The command `bench`. Heavy imports happen inside the commands, so that help answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PROGRAM = "bench"
DESCRIPTION = "Train every architecture from the perceptron to the Transformer on the same data, and measure."
EXAMPLES = {
    "run": """examples:
  bench run experiments/transformer.yaml
  bench run experiments/seq2seq.yaml --row lstm --seed 2 --training.max_updates 150
  bench run experiments/transformer.yaml --preset multi30k-cpu --corpus.path FOLDER
  bench run experiments/transformer.yaml --corpus.name files --corpus.train "[a.fr,a.en]" \\
      --corpus.val "[b.fr,b.en]" --corpus.test "[c.fr,c.en]"
  bench run experiments/transformer.yaml --settings     every key with its meaning and default

The same command again continues an unfinished run and prints a finished one; --again starts a new one.""",
    "suite": """examples:
  bench suite experiments/demo.yaml
  bench suite experiments/demo.yaml --seeds 1 2 3 --training.max_pairs 32000""",
    "report": """examples:
  bench report                                   the newest suite, into runs/reports/SUITE
  bench report --suite demo --out demo-report    report.html, report.md, report.tex, report.csv
  bench report --suite demo --format csv         the tidy table on standard output""",
    "translate": """examples:
  bench translate best:demo/transformer-base "A man is riding a bike."
  bench translate "transformer-base grammar-en-de demo s1" --file sentences.en > sentences.de
  bench translate RUN-ID --beam 8 --n_best 3 --scores < sentences.en

RUN is an id, a name (the newest finished run of it), or best:SUITE/ROW (the best on the validation set). One line in
gives one line out; with --n_best, NUMBER<tab>TRANSLATION lines; --scores puts the score (log probability in nats over
the length penalty) before the translation.""",
    "data": """examples:
  bench data list
  bench data show grammar-en-de --corpus.pairs 8000
  bench data check multi30k-en-de --corpus.path FOLDER
  bench data check files --corpus.train "[a.fr,a.en]" --corpus.val "[b.fr,b.en]" --corpus.test "[c.fr,c.en]"
  bench data fetch multi30k

`show` prints sizes, lengths in words and how much of each split the training text covers; `check` adds repeated pairs,
overlap between splits (equal, and near: 70 % of word trigrams in common) and bad lines, and exits with 1 if there are
bad lines or if pairs of a validation or test set stand in the training text.""",
    "models": """examples:
  bench models
  bench models --preset multi30k-cpu""",
    "ui": """examples:
  bench ui
  bench ui --port 5001 --tracking.folder runs""",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def build_parser() -> Parser:
    top = Parser(prog=PROGRAM, description=DESCRIPTION, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    run = command("run", "train and measure one row")
    run.add_argument("file", type=Path, help="an architecture's file, such as experiments/transformer.yaml")
    run.add_argument("--preset", default="demo", help="demo, multi30k-cpu, multi30k, paper (default: demo)")
    run.add_argument("--row", help="row id (default: the first of the file)")
    run.add_argument("--again", action="store_true", help="start a new run although one is finished or unfinished")
    run.add_argument("--settings", action="store_true", help="print every setting with its meaning and default")

    suite = command("suite", "run every row of a table, then write its report")
    suite.add_argument("file", type=Path, help="a suite's file, such as experiments/demo.yaml")
    suite.add_argument("--seeds", type=int, nargs="+", help="seeds of every row (default: those of the file)")
    suite.add_argument("--again", action="store_true", help="start new runs although some are finished")
    suite.add_argument("--out", type=Path, help="folder of the report (default: runs/reports/SUITE)")

    report = command("report", "write the comparison table of a suite")
    report.add_argument("--suite", help="name of the suite (default: the newest)")
    report.add_argument("--out", type=Path, help="folder to write to (default: runs/reports/SUITE)")
    report.add_argument("--format", choices=["csv"], help="print the tidy table instead of writing files")
    report.add_argument(
        "--ui_url", help="address of the MLflow UI that rows link to (default: a tracking server's own)"
    )

    translate = command("translate", "translate with a finished run")
    translate.add_argument("run", help="id, name, or best:SUITE/ROW")
    translate.add_argument("sentences", nargs="*", help="what to translate (default: standard input)")
    translate.add_argument("--file", type=Path, action="append", default=[], help="a file of sentences, one a line")
    translate.add_argument("--beam", type=int, help="hypotheses kept per sentence (default: the run's)")
    translate.add_argument("--n_best", type=int, default=1, help="translations printed per sentence (default: 1)")
    translate.add_argument("--scores", action="store_true", help="print the score of each translation")

    data = command("data", "list, show, check and fetch corpora")
    data.add_argument("action", choices=["list", "show", "check", "fetch"])
    data.add_argument("name", nargs="?", help="NAME-SRC-TGT, such as multi30k-en-de; for fetch, NAME")

    models = command("models", "print the ladder: rows, years, papers, parameters, FLOPs")
    models.add_argument("--preset", action="append", help="only this preset (may be given several times)")

    ui = command("ui", "open the MLflow UI on the runs")
    ui.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: 5000)")

    for reader in (report, translate, ui):
        reader.add_argument("--tracking.uri", dest="uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI)")
        reader.add_argument("--tracking.folder", dest="folder", default="runs", help="folder of the runs")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 a job failed, 2 bad input, 130 or 143 interrupted."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        known, rest = build_parser().parse_known_args(arguments)
        if known.command == "translate":  # argparse does not take sentences that stand behind a flag
            known.sentences += [part for part in rest if not part.startswith("-")]
            rest = [part for part in rest if part.startswith("-")]
        if rest and known.command not in ("run", "suite", "data"):
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
    from bench.job import run
    from bench.tracking import Store
    from bench.training import Diverged

    try:
        terminal.say(experiment.name)
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

    suite = Suite.read(known.file)
    suite.seeds = known.seeds or suite.seeds
    try:
        outcomes = run_suite(known.file, suite, flags, known.again)
    except Interrupted as interruption:
        terminal.say(str(interruption))
        return 128 + interruption.number
    tracking = outcomes[0].experiment.tracking
    _write_report(tracking.uri, tracking.folder, known.file.stem, known.out)
    return 1 if any(outcome.run is None for outcome in outcomes) else 0


def report_command(known: argparse.Namespace, _: list[str]) -> int:
    _write_report(known.uri, known.folder, known.suite, known.out, known.format, known.ui_url)
    return 0


def _write_report(
    uri: str | None,
    folder: str,
    suite: str | None,
    out: Path | None,
    form: str | None = None,
    ui_url: str | None = None,
) -> None:
    from bench import terminal
    from bench.tracking import Store, Tracking
    from reports import context, write

    store = Store(Tracking(uri, folder))
    found = context.gather(store, suite, ui_url)
    if form == "csv":
        sys.stdout.write(write.csv(found))
        return
    out = out or Path(folder) / "reports" / found.suite
    files = write.all_forms(found, out)
    terminal.table(*write.terminal(found))
    for file in files:
        terminal.say(f"{file}")


def translate_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench import translator
    from bench.terminal import printable
    from bench.tracking import Store, Tracking

    given = translator.sentences(known.sentences, known.file, sys.stdin)
    loaded = translator.load(Store(Tracking(known.uri, known.folder)), known.run)
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
        limit = loaded.experiment.text.max_length
        print(f"{PROGRAM}: {over} of {read} sentences had more than {limit} tokens and were cut", file=sys.stderr)
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


def ui_command(known: argparse.Namespace, _: list[str]) -> int:
    from bench.tracking import Store, Tracking, serve

    serve(Store(Tracking(known.uri, known.folder)), known.port)
    return 0


COMMANDS = {
    "run": run_command,
    "suite": suite_command,
    "report": report_command,
    "translate": translate_command,
    "data": data_command,
    "models": models_command,
    "ui": ui_command,
}


if __name__ == "__main__":
    sys.exit(main())
