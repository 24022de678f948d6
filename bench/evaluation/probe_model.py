"""Probes a trained model: contrasts by phenomenon, scores of long and of deeply nested sentences, word alignment.

The corpus provides the probes (`find_corpus.probes`). A corpus that consists of sentence pairs only has none.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import compress

from bench.data import find_corpus
from bench.data.corpus import Contrast, Example, Split
from bench.data.vocabulary import TextSettings, Vocabularies
from bench.decoding import beam_search, unk_replacement
from bench.evaluation import trained_model
from bench.evaluation.attempt import measure_or_reason
from bench.experiment.job_data import JobData, corpus_of
from bench.experiment.spec import Experiment
from bench.measures import alignment, probes, quality
from bench.measures.measure import Measure
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter
from bench.tracking.store import Store
from models.parts.translator import Translator

BASELINE_SENTENCES = 200_000
"""The target-only model reads at most this many training sentences, the first ones: it stores all of their 5-grams."""

ALIGNED_SENTENCES = 500
"""Number of test sentences, the first ones, whose attention is compared with gold alignments."""

KINDS = ("contrastive", "target_only")
"""Accuracies on contrasts: of the model, and of a model of the target language."""


# --- in every run -----------------------------------------------------------------------------------------------------


def probe(model: Translator, experiment: Experiment, job_data: JobData, writer: RunWriter) -> list[Measure]:
    """Returns the measures of all probes of the corpus; an empty list if the corpus has none.

    A kind of probe that cannot be measured has no value and a reason.
    """
    known = find_corpus.probes(experiment.corpus)
    if known is None:
        return []
    vocabularies, train = job_data.vocabularies, job_data.corpus.train.targets
    contrasts = [_normalized(contrast, experiment.text) for contrast in known.contrasts]
    topics = (
        (KINDS, partial(contrast_accuracies, model, vocabularies, contrasts, train)),
        (("deeper/bleu/longer",), partial(deeper_scores, model, experiment, job_data, known.deeper, writer)),
        (
            ("aer", "aer_diagonal"),
            partial(alignment_error_rates, model, vocabularies, known.test[:ALIGNED_SENTENCES], job_data.max_length),
        ),
    )
    return [measure for metrics, take in topics for measure in measure_or_reason(metrics, take)]


def contrast_accuracies(
    model: Translator, vocabularies: Vocabularies, contrasts: Sequence[Contrast], train_targets: Sequence[str]
) -> list[Measure]:
    """Accuracies of the model (contrastive/...), each followed by that of a target-only model (target_only/...)."""
    ours = probes.accuracies(probes.decide(contrasts, vocabularies, probes.of_model(model)))
    theirs = _target_only(vocabularies, tuple(contrasts), tuple(train_targets[:BASELINE_SENTENCES]))
    return [measure for pair in zip(ours, theirs, strict=True) for measure in pair]


@functools.lru_cache(maxsize=2)  # the rows of a suite have the same contrasts and the same training text
def _target_only(
    vocabularies: Vocabularies, contrasts: tuple[Contrast, ...], text: tuple[str, ...]
) -> tuple[Measure, ...]:
    baseline = probes.TargetOnly(vocabularies.target.encode(text), len(vocabularies.target))
    found = probes.accuracies(probes.decide(contrasts, vocabularies, baseline), "target_only")
    provenance = f"{baseline.order}-gram model of {len(text):,} training targets"
    return tuple(replace(measure, provenance=f"{measure.provenance}; {provenance}") for measure in found)


def scores_by_group(
    name: str, split: Split, hypotheses: Sequence[str], experiment: Experiment, tokenizer: str
) -> list[Measure]:
    """BLEU of the first test set by source length in words and, if the corpus knows it, by depth of clauses."""
    statistics = quality.statistics(hypotheses, split.targets, tokenizer=tokenizer)
    known = find_corpus.probes(experiment.corpus)
    lengths = probes.by_group(statistics, probes.length_groups(split.sources))
    depths = probes.by_group(statistics, [example.depth for example in known.test]) if known else {}
    return [
        replace(measure, metric=f"{name}/bleu/{kind}/{group}")
        for kind, found in (("length", lengths), ("depth", depths))
        for group, measure in sorted(found.items(), key=lambda item: int(re.findall(r"\d+", str(item[0]))[-1]))
    ]


def deeper_scores(
    model: Translator, experiment: Experiment, job_data: JobData, examples: Sequence[Example], writer: RunWriter
) -> list[Measure]:
    """Length generalisation: BLEU of sentences whose clauses nest deeper than any in the training text.

    One score for each depth, and one for those sentences that are also longer than any in the training text.
    """
    split = Split([one.source for one in examples], [one.target for one in examples])
    sources, truncated = job_data.cut(split)
    best = [hypotheses[0] for hypotheses in beam_search.translate(model, sources, experiment.decoding)]
    hypotheses = unk_replacement.hypothesis_texts(best, split.sources, job_data.vocabularies, job_data.lexicon)
    depths = [one.depth for one in examples]
    columns = {"source": split.sources, "reference": split.targets, "hypothesis": hypotheses, "depth": depths}
    writer.table(columns, "hypotheses/deeper.json")
    statistics = quality.statistics(hypotheses, split.targets, tokenizer=job_data.selection.tokenizer)
    longest = max(len(source.split()) for source in job_data.corpus.train.sources)
    is_longer = [len(source.split()) > longest for source in split.sources]
    how = f"; beam {experiment.decoding.beam}; clauses deeper than any of the training text"
    how += f"; {truncated} sources cut to {job_data.source_length_limit} tokens" if truncated else ""
    measures = {f"depth/{depth}": measure for depth, measure in probes.by_group(statistics, depths).items()}
    longer = probes.by_group(statistics, is_longer).get(True)
    if longer:
        limit = f"more than {longest} words, the longest source of the training text"
        measures["longer"] = replace(longer, provenance=f"{longer.provenance}; {limit}")
    return [
        replace(measure, metric=f"deeper/bleu/{group}", provenance=measure.provenance + how)
        for group, measure in measures.items()
    ]


def alignment_error_rates(
    model: Translator, vocabularies: Vocabularies, examples: Sequence[Example], max_length: int
) -> list[Measure]:
    """Alignment error rate of the attention that `step` returns, and that of the diagonal as its baseline."""
    sources = vocabularies.source.encode([one.source for one in examples])
    targets = vocabularies.target.encode([one.target for one in examples])
    fits = [max(len(a), len(b)) <= max_length for a, b in zip(sources, targets, strict=True)]
    short = list(compress(examples, fits))
    gold = [one.alignment for one in short]
    attention = alignment.forced_attention(model, list(compress(sources, fits)), list(compress(targets, fits)))
    diagonals = [alignment.diagonal(len(one.source_words), len(one.target_words)) for one in short]
    baseline = alignment.one_link_error_rate(diagonals, gold)
    baseline = replace(baseline, metric="aer_diagonal", provenance="the diagonal, no model")
    if attention is None:
        return [Measure("aer", None, "percent", provenance="not measured: the model has no attention"), baseline]
    found = [
        alignment.links(
            attention_TS,
            alignment.words_of(vocabularies.source.split(one.source), one.source_words),
            alignment.words_of(vocabularies.target.split(one.target), one.target_words),
        )
        for attention_TS, one in zip(attention, short, strict=True)
    ]
    return [alignment.one_link_error_rate(found, gold), baseline]


# --- of finished runs -------------------------------------------------------------------------------------------------


def select_runs(store: Store, references: Sequence[str], suite: str | None) -> list[TrackedRun]:
    """Returns the runs that are named, or else the newest finished run of every job of a suite, oldest row first.

    Args:
        suite: By default the suite with the newest run.

    Raises:
        ValueError: there is no such run.
    """
    if references:
        return [trained_model.find_run(store, reference) for reference in references]
    suite = suite or next(iter(store.suites()), None)
    if suite is None:
        raise ValueError(f"there are no runs in {store.uri} yet; train some with bench suite experiments/demo.yaml")
    newest: dict[str, TrackedRun] = {}
    for run in store.runs(suite):
        if run.status == "FINISHED":
            newest.setdefault(run.tags["job_hash"], run)
    if not newest:
        raise ValueError(f"--suite: {suite} has no finished run yet")
    first: dict[str, datetime] = {}  # when a row's first run began, so that the seeds of a row are adjacent
    for run in newest.values():
        first[run.tags["row"]] = min(run.started, first.get(run.tags["row"], run.started))
    return sorted(
        newest.values(), key=lambda run: (int(run.tags["year"]), first[run.tags["row"]], int(run.tags["seed"]))
    )


def run_accuracies(run: TrackedRun, store: Store, contrasts: Sequence[Contrast] | None) -> dict[str, Measure]:
    """Returns contrastive/... and target_only/... of a finished run.

    They are the recorded ones, unless `contrasts` are given or the run recorded none. Then they are measured now, and
    nothing is written to the store.

    Raises:
        ValueError: no contrasts are given, and the run's corpus has none of its own.
    """
    recorded = {one.metric: one for one in store.measures(run) if one.metric.partition("/")[0] in KINDS}
    if recorded and contrasts is None:
        return recorded
    loaded = trained_model.load(store, run.id)
    settings = loaded.experiment.corpus
    if contrasts is None:
        known = find_corpus.probes(settings)
        if known is None:
            raise ValueError(f"{run.name}: {run.tags['corpus']} has no contrasts of its own; give some with --file")
        contrasts = known.contrasts
    contrasts = [_normalized(contrast, loaded.experiment.text) for contrast in contrasts]
    train = corpus_of(loaded.experiment).train.targets
    return {one.metric: one for one in contrast_accuracies(loaded.model, loaded.vocabularies, contrasts, train)}


def _normalized(contrast: Contrast, text: TextSettings) -> Contrast:
    """The contrast in the Unicode normalization of a training text."""
    wrong = tuple(map(text.normalized, contrast.wrong))
    return replace(
        contrast, source=text.normalized(contrast.source), right=text.normalized(contrast.right), wrong=wrong
    )


def accuracy_table(
    runs: Sequence[TrackedRun], store: Store, contrasts: Sequence[Contrast] | None
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Columns and rows for `terminal.table`: accuracies with intervals, beside each that of the target-only model.

    One run: a row for each phenomenon and distance. Several runs: a row for each run, columns for each phenomenon.
    """
    found = [run_accuracies(run, store, contrasts) for run in runs]
    metrics = dict.fromkeys(metric for one in found for metric in one if metric.startswith("contrastive/"))
    names = [metric.removeprefix("contrastive/") for metric in metrics]
    if len(runs) == 1:
        columns = [("phenomenon/distance", "left"), ("accuracy, %", "right"), ("95 % interval", "left")]
        columns += [("target only, %", "right"), ("95 % interval", "left"), ("contrasts", "left")]
        (one,) = found
        return columns, [[name, *_cells(one, name), _count_and_chance(one[f"contrastive/{name}"])] for name in names]
    names = [name for name in names if "/" not in name]
    columns = [("run", "left")]
    for name in names:
        columns += [(f"{name}, %", "right"), ("95 % interval", "left"), ("target only, %", "right")]
    several_corpora = len({run.tags["corpus"] for run in runs}) > 1
    several_seeds = len({run.tags["seed"] for run in runs}) > 1
    rows = []
    for run, one in zip(runs, found, strict=True):
        title = run.tags["name"] + (f", {run.tags['corpus']}" if several_corpora else "")
        title += f", seed {run.tags['seed']}" if several_seeds else ""
        rows.append([title, *(cell for name in names for cell in _cells(one, name)[:3])])
    levels = [next(one[name].chance for one in found if name in one) for name in (f"contrastive/{n}" for n in names)]
    rows.append(["chance", *(cell for level in levels for cell in ("" if level is None else f"{level:.1f}", "", ""))])
    return columns, rows


def illustration_rows(run: TrackedRun, store: Store) -> list[list[str]]:
    """Rows (source, right, wrong, P(right) in percent of the sum for right and wrong) of the corpus's illustrations."""
    loaded = trained_model.load(store, run.id)
    known = find_corpus.probes(loaded.experiment.corpus)
    rows = []
    for one in known.illustrations if known else ():
        targets = loaded.vocabularies.target.encode([one.right, *one.wrong])
        sources = loaded.vocabularies.source.encode([one.source] * len(targets))
        right, *wrong = probes.of_model(loaded.model)(sources, targets)
        share = 100 / (1 + sum(math.exp(min(500.0, other - right)) for other in wrong))
        rows.append([one.source, one.right, " / ".join(one.wrong), f"{share:.1f}"])
    return rows


def _count_and_chance(accuracy: Measure) -> str:
    """The number of contrasts and the accuracy that guessing reaches; empty where the run did not record them."""
    if accuracy.count is None or accuracy.chance is None:
        return ""
    return f"{accuracy.count} contrasts, chance {accuracy.chance:.1f}%"


def _cells(measures: dict[str, Measure], name: str) -> list[str]:
    """Accuracy and interval of the model and of the target-only model; empty cells where a run has none."""
    cells = []
    for kind in KINDS:
        one = measures.get(f"{kind}/{name}")
        if one is None or one.value is None or one.low is None or one.high is None:
            cells += ["", ""]
        else:
            cells += [f"{one.value:.1f}", f"[{one.low:.1f}, {one.high:.1f}]"]
    return cells
