"""What a trained model knows of its language, one question at a time: phenomena, long and deep sentences, alignment.

The questions are the corpus's own (`corpora.probes`); one that is sentence pairs and no more is asked none of them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from bench.data import corpus_loading
from bench.data.corpus import Contrast, Example, Split
from bench.data.vocabulary import Vocabularies
from bench.decoding import beam_search, unk_replacement
from bench.evaluation import trained_model
from bench.experiment.job_data import JobData
from bench.experiment.spec import Experiment
from bench.measures import alignment, probes, quality
from bench.measures.measure import Measure
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store
from models.parts.translator import Translator

BASELINE_SENTENCES = 200_000
"""Training sentences that the target-only model reads at most, from the beginning: it holds every 5-gram of them."""

ALIGNED_SENTENCES = 500
"""Sentences whose attention is compared with gold alignments, from the beginning of the test set."""


# --- in every run -----------------------------------------------------------------------------------------------------


def probe(model: Translator, experiment: Experiment, job_data: JobData, job: RunWriter) -> list[Measure]:
    """All that the corpus can ask; nothing of a corpus that knows no more than its sentence pairs."""
    asked = corpus_loading.probes(experiment.corpus)
    if asked is None:
        return []
    return [
        *contrasts(model, job_data.vocabularies, asked.contrasts, job_data.corpus.train.targets),
        *deeper(model, experiment, job_data, asked.deeper, job),
        *alignments(model, job_data.vocabularies, asked.test[:ALIGNED_SENTENCES], job_data.max_length),
    ]


def contrasts(
    model: Translator, vocabularies: Vocabularies, asked: Sequence[Contrast], train_targets: Sequence[str]
) -> list[Measure]:
    """Accuracies of the model (contrastive/...), each followed by that of a target-only model (target_only/...)."""
    ours = probes.accuracies(probes.decide(asked, vocabularies, probes.of_model(model)))
    theirs = _target_only(vocabularies, tuple(asked), tuple(train_targets[:BASELINE_SENTENCES]))
    return [measure for pair in zip(ours, theirs, strict=True) for measure in pair]


@functools.lru_cache(maxsize=2)  # the rows of a suite are asked the same, and have read the same text
def _target_only(vocabularies: Vocabularies, asked: tuple[Contrast, ...], text: tuple[str, ...]) -> tuple[Measure, ...]:
    baseline = probes.TargetOnly(vocabularies.target.encode(text), len(vocabularies.target))
    found = probes.accuracies(probes.decide(asked, vocabularies, baseline), "target_only")
    provenance = f"{baseline.order}-gram model of {len(text):,} training targets"
    return tuple(replace(measure, provenance=f"{measure.provenance}; {provenance}") for measure in found)


def groups(name: str, split: Split, hypotheses: Sequence[str], experiment: Experiment) -> list[Measure]:
    """BLEU of the first test set by words of the source and, where the corpus knows it, by depth of clauses."""
    read, asked = quality.statistics(hypotheses, split.targets), corpus_loading.probes(experiment.corpus)
    lengths = probes.by_group(read, probes.length_groups(split.sources))
    depths = probes.by_group(read, [example.depth for example in asked.test]) if asked else {}
    return [
        replace(measure, metric=f"{name}/bleu/{kind}/{group}")
        for kind, found in (("length", lengths), ("depth", depths))
        for group, measure in sorted(found.items(), key=lambda item: int(re.findall(r"\d+", str(item[0]))[-1]))
    ]


def deeper(
    model: Translator, experiment: Experiment, job_data: JobData, asked: Sequence[Example], job: RunWriter
) -> list[Measure]:
    """Length generalisation: BLEU of sentences that nest deeper than any of the training text, by depth, and of those
    among them that are longer than any as well.
    """
    split = Split([one.source for one in asked], [one.target for one in asked])
    sources, too_long = job_data.cut(split)
    found = beam_search.translate(model, sources, experiment.decoding)
    best = [hypotheses[0] for hypotheses in found]
    hypotheses = unk_replacement.hypothesis_texts(best, split.sources, job_data.vocabularies, job_data.lexicon)
    depths = [one.depth for one in asked]
    columns = {"source": split.sources, "reference": split.targets, "hypothesis": hypotheses, "depth": depths}
    job.table(columns, "hypotheses/deeper.json")
    read = quality.statistics(hypotheses, split.targets)
    longest = max(len(source.split()) for source in job_data.corpus.train.sources)
    lengths = [len(source.split()) > longest for source in split.sources]
    how = f"; beam {experiment.decoding.beam}; clauses deeper than any of the training text"
    how += f"; {too_long} sources cut to {job_data.source_length_limit} tokens" if too_long else ""
    measures = {f"depth/{depth}": measure for depth, measure in probes.by_group(read, depths).items()}
    longer = probes.by_group(read, lengths).get(True)
    if longer:
        measures["longer"] = replace(
            longer, provenance=f"{longer.provenance}; more than {longest} words, the longest there"
        )
    return [
        replace(measure, metric=f"deeper/bleu/{group}", provenance=measure.provenance + how)
        for group, measure in measures.items()
    ]


def alignments(
    model: Translator, vocabularies: Vocabularies, asked: Sequence[Example], max_length: int
) -> list[Measure]:
    """Alignment error rate of the attention that `step` returns, and that of the diagonal, its baseline."""
    sources = vocabularies.source.encode([one.source for one in asked])
    targets = vocabularies.target.encode([one.target for one in asked])
    short = [max(len(a), len(b)) <= max_length for a, b in zip(sources, targets, strict=True)]
    kept = [one for one, fits in zip(asked, short, strict=True) if fits]
    gold = [one.alignment for one in kept]
    looked = alignment.forced_attention(
        model,
        [source for source, fits in zip(sources, short, strict=True) if fits],
        [target for target, fits in zip(targets, short, strict=True) if fits],
    )
    lines = [alignment.diagonal(len(one.source_words), len(one.target_words)) for one in kept]
    baseline = replace(alignment.single_look(lines, gold), metric="aer_diagonal", provenance="the diagonal, no model")
    if looked is None:
        return [Measure("aer", None, "percent", provenance="not measured: the model has no attention"), baseline]
    found = [
        alignment.links(
            looked_TS,
            alignment.words_of(vocabularies.source.split(one.source), one.source_words),
            alignment.words_of(vocabularies.target.split(one.target), one.target_words),
        )
        for looked_TS, one in zip(looked, kept, strict=True)
    ]
    return [alignment.single_look(found, gold), baseline]


# --- of finished runs -------------------------------------------------------------------------------------------------

KINDS = ("contrastive", "target_only")


def runs(store: Store, references: Sequence[str], suite: str | None) -> list[TrackedRun]:
    """The runs that are named, else the newest finished one of every job of a suite, oldest architecture first.

    Raises:
        ValueError: there is none.
    """
    if references:
        return [trained_model.find(store, reference) for reference in references]
    suite = suite or next(iter(store.suites()), None)
    if suite is None:
        raise ValueError(f"there are no runs in {store.uri} yet; train some with bench suite experiments/demo.yaml")
    newest: dict[str, TrackedRun] = {}
    for run in store.runs(suite):
        if run.status == "FINISHED":
            newest.setdefault(run.tags["job_hash"], run)
    if not newest:
        raise ValueError(f"--suite: {suite} has no finished run yet")
    first: dict[str, datetime] = {}  # when a row began, so that its seeds stand together
    for run in newest.values():
        first[run.tags["row"]] = min(run.started, first.get(run.tags["row"], run.started))
    return sorted(
        newest.values(), key=lambda run: (int(run.tags["year"]), first[run.tags["row"]], int(run.tags["seed"]))
    )


def of_run(run: TrackedRun, store: Store, given: Sequence[Contrast] | None) -> dict[str, Measure]:
    """contrastive/... and target_only/... of a finished run: those recorded with it, unless contrasts are given or it
    is from before there were any; then they are measured now, and nothing is written.

    Raises:
        ValueError: none are given, and the run's corpus has none of its own.
    """
    recorded = {one.metric: one for one in store.measures(run) if one.metric.partition("/")[0] in KINDS}
    if recorded and given is None:
        return recorded
    loaded = trained_model.load(store, run.id)
    settings = loaded.experiment.corpus
    if given is None:
        known = corpus_loading.probes(settings)
        if known is None:
            raise ValueError(f"{run.name}: {run.tags['corpus']} has no contrasts of its own; give some with --file")
        given = known.contrasts
    train = corpus_loading.load(settings).train.targets
    return {one.metric: one for one in contrasts(loaded.model, loaded.vocabularies, given, train)}


def table(
    runs: Sequence[TrackedRun], store: Store, given: Sequence[Contrast] | None
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Columns and rows for `terminal.table`: accuracies with intervals, beside each that of the target-only model.

    One run: a row for each phenomenon and distance. Several: a row for each run, a pair of columns a phenomenon.
    """
    found = [of_run(run, store, given) for run in runs]
    names = [metric.removeprefix("contrastive/") for metric in found[0] if metric.startswith("contrastive/")]
    if len(runs) == 1:
        columns = [("phenomenon/distance", "left"), ("accuracy, %", "right"), ("95 % interval", "left")]
        columns += [("target only, %", "right"), ("95 % interval", "left"), ("contrasts", "left")]
        (one,) = found
        return columns, [[name, *_cells(one, name), _asked(one[f"contrastive/{name}"])] for name in names]
    names = [name for name in names if "/" not in name]
    columns = [("run", "left")]
    for name in names:
        columns += [(f"{name}, %", "right"), ("95 % interval", "left"), ("target only, %", "right")]
    several = len({run.tags["seed"] for run in runs}) > 1
    rows = []
    for run, one in zip(runs, found, strict=True):
        title = run.tags["name"] + (f", seed {run.tags['seed']}" if several else "")
        rows.append([title, *(cell for name in names for cell in _cells(one, name)[:3])])
    chance = [found[0][f"contrastive/{name}"].chance for name in names]
    rows.append(["chance", *(cell for level in chance for cell in ("" if level is None else f"{level:.1f}", "", ""))])
    return columns, rows


def shown(run: TrackedRun, store: Store) -> list[list[str]]:
    """Rows (source, right, wrong, share of the right one, of the two, in percent) of what a corpus has to show."""
    loaded = trained_model.load(store, run.id)
    asked = corpus_loading.probes(loaded.experiment.corpus)
    rows = []
    for one in asked.illustrations if asked else ():
        pair = loaded.vocabularies.target.encode([one.right, *one.wrong])
        sources = loaded.vocabularies.source.encode([one.source] * len(pair))
        right, *wrong = probes.of_model(loaded.model)(sources, pair)
        share = 100 / (1 + sum(math.exp(min(500.0, other - right)) for other in wrong))
        rows.append([one.source, one.right, " / ".join(one.wrong), f"{share:.1f}"])
    return rows


def _asked(accuracy: Measure) -> str:
    """The number of contrasts and the accuracy that guessing reaches; empty where the run did not record them."""
    if accuracy.count is None or accuracy.chance is None:
        return ""
    return f"{accuracy.count} contrasts, chance {accuracy.chance:.1f}%"


def _cells(measures: dict[str, Measure], name: str) -> list[str]:
    """Accuracy, interval, and the same of the target-only model; empty where a run has none."""
    cells = []
    for kind in KINDS:
        one = measures.get(f"{kind}/{name}")
        if one is None or one.value is None or one.low is None or one.high is None:
            cells += ["", ""]
        else:
            cells += [f"{one.value:.1f}", f"[{one.low:.1f}, {one.high:.1f}]"]
    return cells
