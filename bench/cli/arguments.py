"""The command line of `bench`: commands, their flags and examples. Imports nothing that is slow."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, NoReturn

PROGRAM = "bench"
DESCRIPTION = "Train translation models from the perceptron to the Transformer on the same data, and measure them."
EXAMPLES = {
    "run": """examples:
  bench run experiments/transformer.yaml
  bench run experiments/seq2seq.yaml --row lstm --seed 2 --training.max_updates 150
  bench run experiments/transformer.yaml --preset multi30k-cpu --corpus.path FOLDER
  bench run experiments/transformer.yaml --corpus.name files --corpus.train "[a.fr,a.en]" \\
      --corpus.val "[b.fr,b.en]" --corpus.test "[c.fr,c.en]"
  bench run experiments/transformer.yaml --settings     print every key with its meaning and default

Run the same command again to continue an unfinished run or to print a finished one; --again starts a new run.""",
    "suite": """examples:
  bench suite experiments/demo.yaml
  bench suite experiments/demo.yaml --seeds 1 2 3 --training.max_pairs 32000
  bench suite experiments/ladder.yaml --workers 2 --max_seconds 3600   two jobs at once; none starts after an hour
  bench suite my-table.yaml --export             a suite whose results grow over machines: docs/mlflow.md
  bench suite experiments/ladder.yaml --cluster auto --gpus_per_trial 0.25   on a Ray cluster: docs/clusters.md""",
    "scale": """examples:
  bench plan experiments/scale.yaml --workers auto    hours before it starts
  bench scale experiments/scale.yaml --workers auto   rows x sizes x budgets x seeds, then the report with the curves
  bench scale experiments/scale.yaml --max_seconds 3600

Runs continue and are skipped as those of a suite. The sizes of a row are in the file of its architecture
(rows.ROW.sizes); budgets, seeds and the rules for settings at other sizes are in FILE. See docs/scaling.md.""",
    "sweep": """examples:
  bench sweep experiments/sweep.yaml --row gnmt --preset demo --trials 30 --workers 2
  bench sweep experiments/sweep.yaml --row gnmt luong --training.max_pairs 8000
  bench sweep experiments/tune-demo.yaml --workers 2      the equal search of all rows of a preset
  bench sweep experiments/sweep.yaml --row lstm --storage postgresql+psycopg://user:password@host/optuna

Searches the settings under `search:` in the row's file; a setting given as a flag is fixed. Run the same command again
to continue a sweep. A suite uses the best settings with `sweeps: {gnmt: sweep}`. The file of an equal search names its
rows and preset; `bench tuned` writes what it found. See docs/sweeps.md.""",
    "plan": """examples:
  bench plan experiments/ladder.yaml --workers 2            hours, FLOPs, memory and disk on this machine
  bench plan experiments/demo.yaml --seeds 1 2 3 --training.max_pairs 32000
  bench plan experiments/tune-demo.yaml --workers 2         all trials of a sweep
  bench plan experiments/table2-multi30k-gpu.yaml --gpu H100   from the peak of a GPU and a utilisation
  bench plan experiments/ladder.yaml --from FOLDER --format json

FILE is the file of a suite, sweep or study; other flags are settings, as for bench suite. Nothing is started or
downloaded. The speed of a row is that of its finished runs in the tracking store or in exports (--from), else it is
measured here for a few seconds. See docs/planning.md.""",
    "tuned": """examples:
  bench tuned experiments/tune-demo.yaml

Writes experiments/tuned/PRESET.yaml from experiments/tuned/PRESET-trials.csv: for each row that has finished all of its
trials, the settings of the best one. The preset takes its values from there. Exits with 1 if rows are unfinished.""",
    "report": """examples:
  bench report                                   the newest suite, written to runs/reports/SUITE
  bench report --suite demo --out demo-report    report.html, report.md, report.tex, report.csv
  bench report --suite demo --format csv         the tidy table on standard output
  bench report --suite new --compare demo        also what changed since demo, with paired tests
  bench report --suite demo --lang ko --open     in Korean, shown in the browser
  bench report --suite demo --export FOLDER      save the runs that the report reads, as bench store export does
  bench report --site FOLDER                     a static site: all suites, and a page for each row
  bench report --from FOLDER                     the report of such a folder, on any machine and without the store

The folder does not contain --compare, --lang and --ui_url: give them again with --from.""",
    "store": """examples:
  bench store export results --suite demo        the numbers of all runs of a suite or sweep, without its sentences
  bench store export all --artifacts             everything of all suites and sweeps, with sentences and models
  bench store import results                     adds them to this store; what it has already is left as it is
  bench store import reports/results/NAME/runs   the same for a folder of exports, the results of a suite
  MLFLOW_TRACKING_URI=http://HOST:5000 bench store import results

An export is a folder with Parquet tables and export.yaml (docs/mlflow.md). An import gives the runs new ids and writes
the reports of its suites.""",
    "translate": """examples:
  bench translate best:demo/transformer-base/en-de "A man is riding a bike."
  bench translate "transformer-base grammar-en-de demo s1" --file sentences.en > sentences.de
  bench translate RUN-ID --beam 8 --n_best 3 --scores < sentences.en
  bench translate best:ladder/luong/en-de --with best:ladder/bahdanau/en-de "A man is riding a bike."      an ensemble

RUN is an id, a name (its newest finished run), best:SUITE/ROW or best:SUITE/ROW/DIRECTION (the best on the validation
set), or a registered models:/NAME/VERSION. Each input line gives one output line; with --n_best, lines of
NUMBER<tab>TRANSLATION; --scores prints the score (log probability in nats divided by the length penalty) before it.""",
    "probe": """examples:
  bench probe                                    all runs of the newest suite: architecture x phenomenon
  bench probe best:demo/transformer-base/en-de   one run, also by distance
  bench probe RUN RUN --file lingeval97.json

A contrast is a source with a right and a wrong translation; the score is how often the model gives the right one the
higher probability. --file accepts the JSON of LingEval97 and ContraPro, or tab-separated columns (source, right, wrong,
category, distance). See docs/probes.md.""",
    "attention": """examples:
  bench attention best:demo/transformer-base/en-de "She poured water from the pitcher into the cup until it was full."
  bench attention RUN "The man sees the dog." --kind encoder --layer 1 --head 2

Writes the picture (SVG) and the weights of all layers and heads (JSON) to --out and to the artifacts of the run.""",
    "promote": """examples:
  bench promote best:demo/transformer-base/en-de --name nmt-en-de
  bench translate models:/nmt-en-de/1 "A man is riding a bike."
  MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db mlflow models serve -m models:/nmt-en-de/1 --env-manager local""",
    "data": """examples:
  bench data list
  bench data show grammar-en-de --corpus.pairs 8000
  bench data check multi30k-en-de --corpus.path FOLDER
  bench data check files --corpus.train "[a.fr,a.en]" --corpus.val "[b.fr,b.en]" --corpus.test "[c.fr,c.en]"
  bench data check files-en-de --corpus.train "[FOLDER]" --corpus.val "[FOLDER]" --corpus.test "[FOLDER]"
  bench data fetch wmt14-en-de

`show` prints sizes, lengths in words, and how much of each split the training text covers. `check` adds repeated pairs,
overlap between splits (equal, and near: 70 % of word trigrams in common), sides in another language than the name says,
and bad lines; if lines cannot be read, it lists all of them and nothing else. It exits with 1 if there are bad lines or
sides in another language, or if the training text contains pairs of a validation or test set.

`fetch` downloads a corpus into the cache, resumes where an earlier download ended, and prints the licence. Other
commands do so at the first use. See docs/corpora.md.""",
    "models": """examples:
  bench models
  bench models --preset multi30k-cpu""",
    "latency": """examples:
  bench latency best:demo/lstm/en-de best:demo/transformer-base/en-de
  bench latency RUN-ID --times 5

Measures the p50 of finished runs again as docs/latency.md describes: all runs once, then all again. Exit code 1 if the
medians of a run on a quiet machine differ by more than 5 % and the pace of the machine does not explain it.""",
    "speed": """examples:
  bench speed train                                            every row of the demo: target tokens per second, MFU
  bench speed decode lstm transformer-base --length 15         sentences per second, and ms for one sentence
  bench speed decode --suite experiments/table2-multi30k.yaml  latency of all rows of a table, for its report
  bench speed startup lstm                                     seconds from the command to the first update
  bench speed train transformer-base --preset multi30k-cpu --against "./peer.sh" --format json

Rows have initial weights. --against runs COMMAND three times, in turn with the row, and prints how many times as fast
the row is. COMMAND prints lines such as `target_tokens_per_s 1675`, with the names of the figures in the JSON. The
figures are logged to the MLflow experiment `speed`. Other flags are settings, as for bench run (docs/latency.md).""",
    "verify": """examples:
  bench verify flops     closed form and counts on the meta device and on real tensors, for every row
  bench verify flops --device cuda
  bench verify costs     training costs in Table 2 of "Attention Is All You Need", from days x devices x rates
  bench verify sizes     parameter counts at the papers' sizes beside the published ones
  bench verify tuning    whether the recipe of every row comes from an equal search, chosen again from its trials
  bench verify tuning --preset demo
  bench verify scaling   fits, intervals and crossings of simulated scaling curves whose law is known; takes minutes

Exits with 1 if a number is beyond its tolerance; counts must be equal, and so must recipes.""",
    "ui": """examples:
  bench ui --open
  bench ui --port 5001 --tracking.folder runs""",
}


DEFAULT_UI_PORT = 5000


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ValueErrors of one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def worker_count(text: str) -> int | Literal["auto"]:
    """Type of --workers: a positive number, or auto."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; expected 1 or more, or auto")
    return int(text)


def positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; at least 1")
    return number


def positive_float(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is too small; more than 0")
    return number


def port_number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port; expected a number from 1 to 65535")
    return number


def add_from_flag(command: argparse.ArgumentParser, what: str) -> None:
    """Adds --from, which names exports and can be given several times."""
    command.add_argument(
        "--from",
        dest="exported",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help=f"{what}; can be given several times",
    )


def add_worker_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that executes many jobs."""
    command.add_argument(
        "--workers",
        type=worker_count,
        help="worker processes that share this machine's cores and GPUs (default: none, one job at a time); auto: as "
        "many as the size of the models and the cores suggest; with --cluster the maximum number of workers (default, "
        "and auto: as many as fit)",
    )
    command.add_argument("--cluster", help="start the workers on a Ray cluster: auto, or its address")
    command.add_argument(
        "--gpus_per_trial", type=positive_float, help="with --cluster: GPUs of each worker; with 0.25 four share one"
    )
    command.add_argument(
        "--cpus_per_trial", type=positive_int, help="with --cluster: cores and threads of each worker (default: 1)"
    )
    command.add_argument(
        "--max_seconds", type=positive_float, help="start no job after this many seconds; exit code 3 if jobs remain"
    )


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
    run.add_argument("file", type=Path, help="file of an architecture, such as experiments/transformer.yaml")
    run.add_argument("--preset", default="demo", help="demo, multi30k-cpu, multi30k, paper (default: demo)")
    run.add_argument("--row", help="row id (default: the first of the file)")
    run.add_argument("--again", action="store_true", help="start a new run, even if there is an earlier one")
    run.add_argument(
        "--settings", action="store_true", help="print every setting with its meaning and default, and run nothing"
    )

    suite = command("suite", "run every row of a table, then write its report")
    suite.add_argument("file", type=Path, help="file of a suite, such as experiments/demo.yaml")
    scale = command("scale", "run every row at several sizes and budgets, then write the report with their curves")
    scale.add_argument("file", type=Path, help="file of a study, such as experiments/scale.yaml")
    for jobs in (suite, scale):
        jobs.add_argument("--seeds", type=int, nargs="+", help="seeds of every row (default: those in the file)")
        jobs.add_argument("--again", action="store_true", help="start new runs, also of finished jobs")
        jobs.add_argument("--out", type=Path, help="folder of the report (default: runs/reports/NAME)")
        jobs.add_argument(
            "--export", action="store_true", help="add each finished job to the results that the file names"
        )
        add_worker_flags(jobs)

    sweep = command("sweep", "search for the best settings of one or more rows, each under the same budget")
    sweep.add_argument("file", type=Path, help="file of a sweep, such as experiments/sweep.yaml")
    sweep.add_argument("--row", nargs="+", help="row ids, such as gnmt luong (default: those in the file)")
    sweep.add_argument("--preset", help="demo, multi30k-cpu, multi30k, paper (default: that of the file, or demo)")
    sweep.add_argument("--trials", type=positive_int, help="jobs of each row (default: as in the file)")
    sweep.add_argument("--storage", help="URL of the Optuna database (default: SQLite beside the runs)")
    add_worker_flags(sweep)

    plan = command("plan", "predict what a suite, sweep or study costs: hours, FLOPs, memory, disk, joules")
    plan.add_argument("file", type=Path, help="file of a suite, sweep or study, such as experiments/ladder.yaml")
    plan.add_argument(
        "--seeds", type=int, nargs="+", help="for a suite or study: seeds of every row (default: as in the file)"
    )
    plan.add_argument("--row", nargs="+", help="for a sweep: row ids (default: those in the file)")
    plan.add_argument("--preset", help="for a sweep: the preset (default: that of the file, or demo)")
    plan.add_argument("--trials", type=positive_int, help="for a sweep: jobs of each row (default: as in the file)")
    plan.add_argument(
        "--workers", type=worker_count, help="jobs at the same time, as for bench suite and sweep (default: 1)"
    )
    plan.add_argument("--gpu", metavar="NAME", help="plan for this GPU instead of this machine, such as H100 or L4")
    add_from_flag(plan, "an export with finished runs whose speed counts, beside the tracking store")
    plan.add_argument("--format", choices=["table", "json", "csv"], default="table", help="output (default: table)")

    tuned = command("tuned", "write the settings that an equal search found, which the preset then uses")
    tuned.add_argument("file", type=Path, help="file of an equal search, such as experiments/tune-demo.yaml")

    report = command("report", "write the report of a suite")
    report.add_argument("--suite", help="name of the suite (default: the newest)")
    report.add_argument("--out", type=Path, help="folder to write to (default: runs/reports/SUITE)")
    report.add_argument("--format", choices=["csv"], help="print the tidy table instead of writing files")
    report.add_argument("--compare", metavar="SUITE", help="add what changed since another suite, with paired tests")
    report.add_argument(
        "--baseline", metavar="ROW", help="the row that all others are compared with (default: that of the suite)"
    )
    report.add_argument("--lang", default="en", help="language: en or ko (default: en)")
    report.add_argument("--open", action="store_true", help="show the report in the browser")
    report.add_argument(
        "--ui_url", help="address of the MLflow UI that rows link to (default: a tracking server's own)"
    )
    report.add_argument("--export", type=Path, metavar="FOLDER", help="export the runs that the report reads")
    add_from_flag(report, "read an export, or a folder of exports, instead of a tracking store")
    report.add_argument(
        "--site", type=Path, metavar="FOLDER", help="write a static site of all suites and rows instead of one report"
    )
    report.add_argument("--artifacts", action="store_true", help="for --export: with sentences and models")

    store = command("store", "move runs between stores")
    store.add_argument("action", choices=["export", "import"])
    store.add_argument("exported", type=Path, metavar="FOLDER", help="folder of the export")
    store.add_argument("--suite", nargs="+", help="for export: suites and sweeps (default: all)")
    store.add_argument("--artifacts", action="store_true", help="for export: with sentences, attention maps and models")

    translate = command("translate", "translate with a finished run")
    translate.add_argument("run", help="id, name, best:SUITE/ROW, or models:/NAME/VERSION")
    translate.add_argument("sentences", nargs="*", help="sentences to translate (default: standard input)")
    translate.add_argument(
        "--with",
        dest="others",
        metavar="RUN",
        action="append",
        default=[],
        help="another run, to translate with an ensemble of both",
    )
    translate.add_argument("--file", type=Path, action="append", default=[], help="file with one sentence per line")
    translate.add_argument("--beam", type=int, help="hypotheses kept per sentence (default: the run's)")
    translate.add_argument("--n_best", type=int, default=1, help="translations printed per sentence (default: 1)")
    translate.add_argument("--scores", action="store_true", help="print the score of each translation")

    probe = command("probe", "test which linguistic phenomena the models of runs have learned")
    probe.add_argument("runs", nargs="*", metavar="run", help="id, name, or best:SUITE/ROW (default: all of --suite)")
    probe.add_argument("--suite", help="name of the suite (default: the newest)")
    probe.add_argument("--file", type=Path, help="file of contrasts (default: those of the corpus of the runs)")

    attention = command("attention", "draw the attention of a run while it translates a sentence")
    attention.add_argument("run", help="id, name, or best:SUITE/ROW")
    attention.add_argument("sentence", help="sentence to translate")
    attention.add_argument(
        "--kind",
        action="append",
        choices=["cross", "encoder", "decoder"],
        help="decoder over source, encoder self-attention, or decoder self-attention; may be given several times "
        "(default: the first two, if the model has them)",
    )
    attention.add_argument("--layer", type=int, help="counted from 1 (default: the last)")
    attention.add_argument("--head", type=int, help="counted from 1 (default: the mean over all)")
    attention.add_argument("--out", type=Path, help="folder to write to (default: runs/attention/RUN)")

    promote = command("promote", "register a run's model in MLflow under a name")
    promote.add_argument("run", help="id, name, or best:SUITE/ROW")
    promote.add_argument(
        "--name", required=True, help="name of the registered model; each promotion creates a new version"
    )

    data = command("data", "list, show, check and fetch corpora")
    data.add_argument("action", choices=["list", "show", "check", "fetch"])
    data.add_argument("name", nargs="?", help="NAME-SRC-TGT, such as multi30k-en-de")

    models = command("models", "print the table of models: rows, years, papers, parameters, FLOPs")
    models.add_argument("--preset", action="append", help="only this preset (may be given several times)")

    latency = command("latency", "measure the latency of finished runs several times")
    latency.add_argument("runs", nargs="+", help="id, name, best:SUITE/ROW, or models:/NAME/VERSION")
    latency.add_argument("--times", type=int, default=3, help="number of measurements of each run (default: 3)")

    speed = command("speed", "measure how fast rows train, decode and start on this machine")
    speed.add_argument("what", choices=["train", "decode", "startup"])
    speed.add_argument("rows", nargs="*", metavar="ROW", help="row ids, such as lstm (default: every row that trains)")
    speed.add_argument("--preset", help="demo, multi30k-cpu, multi30k, paper (default: demo)")
    speed.add_argument(
        "--seconds",
        type=positive_float,
        default=20.0,
        help="for the figures of a row, beside its warm-up (default: 20)",
    )
    speed.add_argument(
        "--length", type=positive_int, help="for decode: tokens of every output (default: those of its reference)"
    )
    speed.add_argument(
        "--against", metavar="COMMAND", default="", help="a shell command to measure in turn with the one row"
    )
    speed.add_argument(
        "--suite",
        type=Path,
        metavar="FILE",
        help="for decode: every row of a suite, with the times that its report has; they go to its results",
    )
    speed.add_argument("--format", choices=["table", "json"], default="table", help="output (default: table)")
    speed.add_argument("--out", type=Path, help="file for the figures as JSON")

    verify = command("verify", "compare the numbers of the harness with published and derived ones")
    verify.add_argument("what", choices=["flops", "costs", "sizes", "tuning", "scaling"])
    verify.add_argument("--preset", help="for tuning: only this preset (default: all that have an equal search)")
    verify.add_argument(
        "--device", choices=["cpu", "cuda"], help="for flops: device of the real tensors (default: cpu)"
    )

    ui = command("ui", "open the MLflow UI with the runs")
    ui.add_argument(
        "--port", type=port_number, default=DEFAULT_UI_PORT, help=f"port on 127.0.0.1 (default: {DEFAULT_UI_PORT})"
    )
    ui.add_argument("--open", action="store_true", help="open the comparison with the newest run in the browser")

    for reader in (report, store, latency, translate, probe, attention, promote, ui):
        reader.add_argument("--tracking.uri", dest="uri", help="MLflow tracking URI (default: MLFLOW_TRACKING_URI)")
        reader.add_argument(
            "--tracking.folder", dest="folder", default="runs", help="folder of the runs (default: runs)"
        )
    return top
