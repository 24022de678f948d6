"""The commands that need no run: corpora, the table of models, speed, and checks of the project."""

from __future__ import annotations

import argparse

from bench.cli.arguments import PROGRAM


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


def speed_command(args: argparse.Namespace, flags: list[str]) -> int:
    from bench.speed import command

    if args.suite:
        from bench.speed import suite_speed

        given = {"rows": args.rows, "--preset": args.preset, "--length": args.length, "--against": args.against}
        given |= {"--out": args.out, "--format json": args.format == "json"}
        if args.what != "decode":
            raise ValueError(f"--suite: bench speed {args.what} has no place in a report; use bench speed decode")
        for name, value in given.items():
            if value:
                raise ValueError(f"--suite: the file decides {name}, and the times go to its results; remove {name}")
        return int(not suite_speed.run(args.suite, flags, args.seconds, command.note))
    preset = args.preset or "demo"
    request = command.Request(args.what, args.rows, preset, flags, args.seconds, args.length, args.against)
    return int(not command.run(request, args.format, args.out))


def verify_command(args: argparse.Namespace, _: list[str]) -> int:
    from bench.checks import model_sizes, scaling_simulation, tuning, verify

    if args.preset and args.what != "tuning":
        raise ValueError(f"--preset: bench verify {args.what} checks all presets; remove the flag")
    if args.device and args.what != "flops":
        raise ValueError(f"--device: bench verify {args.what} computes on the CPU; remove the flag")
    checks = {
        "flops": lambda: verify.flops(args.device or "cpu"),
        "costs": verify.published_costs,
        "sizes": model_sizes.show,
        "tuning": lambda: tuning.show(args.preset),
        "scaling": scaling_simulation.show,
    }
    return int(not checks[args.what]())
