"""Evaluates a trained model: the scores of every test set, the costs of training, and the costs of decoding.

Each function returns the numbers of one topic. `evaluate_job` joins them in the order in which they are printed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch

from bench.data import find_corpus
from bench.data.batches import evaluation_batches
from bench.data.corpus import Split
from bench.data.encoded_pairs import Pairs, truncate
from bench.decoding import beam_search, unk_replacement
from bench.evaluation import attention_maps, probe_model
from bench.evaluation.attempt import measure_or_reason
from bench.evaluation.trained_model import TrainedTranslator
from bench.experiment.job_data import VALIDATION_SENTENCES, JobData
from bench.experiment.spec import Experiment
from bench.measures import bleu_variants, costs, excess_loss, flops, latency, memory, quality, selection
from bench.measures.measure import Measure
from bench.measures.selection import DEFAULT_TOKENIZER
from bench.system.machine import GPU_SHARE, MachineSettings, bf16_fallback, siblings
from bench.tracking.run_writer import RunWriter
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup
from bench.training.reward import mean_gleu
from bench.training.trainer import TrainingResult
from bench.training.validation import Score
from models.parts.translator import Translator, evaluation_mode

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "64-true": torch.float64}
"""The data type of the matrix products in training, by `training.precision`."""

SPEED = ("latency_p50_ms", "latency_p95_ms", "sentences_per_s", "peak_memory_bytes")
"""The main measures of `latency.measure`."""

OVERHEAD = "counting, curves, checkpoints, tracking and messages, as a share of the updates' time; validations excluded"
REPEATED = "lower bound on the work repeated after a kill; excluded from all other metrics"


def mean_loss(model: Translator, pairs: Pairs, batch_tokens: int, label_smoothing: float = 0.0) -> float:
    """Cross entropy in nats per target token."""
    total = tokens = 0.0
    with evaluation_mode(model):
        for _, batch in evaluation_batches(pairs, batch_tokens):
            losses_N = model.token_losses(batch.to(model.device), label_smoothing)
            total, tokens = total + losses_N.sum().item(), tokens + len(losses_N)
    return total / tokens


def validate(model: Translator, job_data: JobData) -> Score:
    """Greedy BLEU and GLEU, and cross entropy, on the first VALIDATION_SENTENCES sentences of the validation set.

    chrF2 is measured only if it selects the weights.
    """
    sentences, references, chosen = job_data.validation.sources, job_data.validation.targets, job_data.selection
    sources, aligned = job_data.sources(job_data.validation), job_data.lexicon is not None
    best = beam_search.greedy(model, sources, job_data.extra_length, attention=aligned)
    hypotheses = unk_replacement.hypothesis_texts(best, sentences, job_data.vocabularies, job_data.lexicon)
    return Score(
        quality.bleu(hypotheses, references, chosen.tokenizer),
        mean_gleu(hypotheses, references, chosen.tokenizer),
        mean_loss(model, job_data.validation_pairs, job_data.batch_tokens),
        quality.chrf(hypotheses, references) if chosen.score == "chrf" else None,
    )


def evaluate_job(
    model: Translator,
    training_measures: list[Measure],
    experiment: Experiment,
    job_data: JobData,
    writer: RunWriter,
    group: ProcessGroup = SINGLE_PROCESS,
) -> list[Measure]:
    """Measures everything of a finished job. A measure that cannot be taken has no value and a reason.

    Args:
        model: The model with the weights that are evaluated: the best ones or the mean of the last ones.
        training_measures: From `training_costs`, or for an ensemble from `ensemble_costs`.
        writer: The run that receives translations and attention weights.
        group: The processes that share the translation of the test sets.
    """
    measure_or_reason((), lambda: store_attention(model, experiment, job_data, writer))
    return [
        *score_test_sets(model, experiment, job_data, writer, group),
        *validation_scores(model, experiment, job_data),
        *probe_model.probe(model, experiment, job_data, writer),
        *parameter_counts(model),
        *training_measures,
        *decoding_costs(model, experiment, job_data, *next(iter(job_data.corpus.tests.items()))),
    ]


def store_attention(model: Translator, experiment: Experiment, job_data: JobData, writer: RunWriter) -> list[Measure]:
    """Stores the model's attention weights for one sentence, which is the same for all rows of a corpus; no measures.

    The sentence is one that the corpus provides as an illustration (the grammar has the slides' pitcher and cup).
    Otherwise it is the first validation sentence of 6 to 14 words: long enough for a pattern, short enough to read.
    """
    if experiment.members or not attention_maps.has_attention(model):
        return []
    probes, sources = find_corpus.probes(experiment.corpus), job_data.validation.sources
    illustrations = [one.source for one in probes.illustrations] if probes else []
    readable = (source for source in sources if 6 <= len(source.split()) <= 14)
    if sentence := next(chain(illustrations, readable, filter(str.strip, sources)), None):
        trained = TrainedTranslator(experiment, job_data.vocabularies, model, job_data.lexicon)
        attention = attention_maps.sentence_attention(trained, sentence)
        writer.text(json.dumps(attention.data(), ensure_ascii=False), f"attention/{attention.name}.json")
    return []


def evaluate_trial(
    model: Translator,
    training_measures: list[Measure],
    experiment: Experiment,
    job_data: JobData,
    goals: Sequence[str],
) -> list[Measure]:
    """Measures what a sweep needs of a trial: validation scores and costs, and speed only if a goal requires it.

    Everything is measured on the validation set, because it decides which settings a row gets.
    """
    measures = [*validation_scores(model, experiment, job_data), *parameter_counts(model), *training_measures]
    if set(goals) <= {measure.metric for measure in measures}:
        return measures
    return [*measures, *decoding_costs(model, experiment, job_data, "validation", job_data.validation)]


def score_test_sets(
    model: Translator,
    experiment: Experiment,
    job_data: JobData,
    writer: RunWriter,
    group: ProcessGroup = SINGLE_PROCESS,
) -> list[Measure]:
    """Translates and scores every test set once; stores the translations and sentence statistics with the run."""
    search, tokenizer = experiment.decoding, job_data.selection.tokenizer
    measures: list[Measure] = []
    model.pop_routing_statistics()  # discard what the validations have accumulated
    for name, split in job_data.corpus.tests.items():
        sources, truncated = job_data.cut(split)
        best = [hypotheses[0] for hypotheses in group.translate(model, sources, search)]
        hypotheses = unk_replacement.hypothesis_texts(best, split.sources, job_data.vocabularies, job_data.lexicon)
        writer.table(
            {"source": list(split.sources), "reference": list(split.targets), "hypothesis": hypotheses},
            f"hypotheses/{name}.json",
        )
        scores = measure_or_reason(
            quality.metrics_of(tokenizer), partial(main_scores, hypotheses, split.targets, tokenizer, name, writer)
        )
        scores += measure_or_reason(
            ("bleu_lowercase",),
            partial(bleu_variants.variants, hypotheses, split.targets, job_data.corpus.target_language, tokenizer),
        )
        how = f"; beam {search.beam}, alpha {search.alpha}"
        how += " of the mean" if search.length_penalty == "mean" else ""
        how += f", coverage {search.coverage}" if search.coverage else ""
        how += f", pruned at {search.prune}" if search.prune is not None else ""
        how += f", unknown words: {search.pos_unk}" if search.replaces_unknown_words else ""
        measures += [
            replace(measure, metric=f"{name}/{measure.metric}", provenance=measure.provenance + how)
            for measure in scores
        ]
        if split is next(iter(job_data.corpus.tests.values())):
            measures += measure_or_reason(
                (), partial(probe_model.scores_by_group, name, split, hypotheses, experiment, tokenizer)
            )
        metric = f"{name}/bleu_shuffled_references"
        measures += measure_or_reason((metric,), partial(shuffled_bleu, metric, hypotheses, split.targets, tokenizer))
        limit = f"of {len(split)}; sources with more than {job_data.source_length_limit} tokens are cut to that length"
        measures.append(Measure(f"{name}/truncated", truncated, "sentences", provenance=limit))
    provenance = "mean over all source and output tokens of the test sets, in every hypothesis of the beam"
    return measures + [
        Measure(name, mean, "1", provenance=provenance) for name, mean in model.pop_routing_statistics().items()
    ]


def main_scores(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str, test_set: str, writer: RunWriter
) -> list[Measure]:
    """The scores of `quality.metrics_of`; stores the sentence statistics that they are computed from."""
    statistics = [
        quality.statistics(hypotheses, references, metric, tokenizer) for metric in quality.metrics_of(tokenizer)
    ]
    writer.statistics(statistics, test_set)
    return [quality.mean_with_interval([of_metric]) for of_metric in statistics]


def shuffled_bleu(metric: str, hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> list[Measure]:
    """BLEU when each hypothesis is compared with the reference of the next sentence."""
    if len(references) < 2:
        raise ValueError("the test set has one sentence; two are needed")
    return [Measure(metric, quality.bleu(hypotheses, [*references[1:], *references[:1]], tokenizer), "percent")]


def validation_scores(model: Translator, experiment: Experiment, job_data: JobData) -> list[Measure]:
    """BLEU, GLEU and losses on the validation set; chrF2 too if it selects the weights.

    The losses are those without label smoothing, with the label smoothing of the training above its lower bound
    (`excess_loss`), and without smoothing when each target has the next sentence's source.
    """
    provenance = f"first {VALIDATION_SENTENCES} sentences of the validation set"
    score, tokenizer = validate(model, job_data), job_data.selection.tokenizer
    greedy = f"greedy, {provenance}"
    tokens = f"; tokenizer {tokenizer}" if tokenizer != DEFAULT_TOKENIZER else ""
    chrf = [] if score.chrf is None else [Measure("validation_chrf", score.chrf, "percent", provenance=greedy)]
    return [
        Measure("validation_bleu", score.bleu, "percent", provenance=greedy + tokens),
        *chrf,
        Measure("validation_gleu", score.gleu, "percent", provenance=f"mean over sentences, {greedy}{tokens}"),
        Measure("validation_loss", score.loss, "nats/token", provenance=provenance + job_data.left_out),
        excess(model, experiment.training.label_smoothing, job_data),
        *measure_or_reason(("validation_loss_shuffled_sources",), lambda: [shuffled_loss(model, job_data)]),
    ]


def excess(model: Translator, smoothing: float, job_data: JobData) -> Measure:
    """The loss on the validation pairs with label smoothing, minus the entropy of the smoothed targets."""
    bound = excess_loss.entropy(smoothing, len(job_data.vocabularies.target))
    value = mean_loss(model, job_data.validation_pairs, job_data.batch_tokens, smoothing) - bound
    provenance = f"first {VALIDATION_SENTENCES} sentences of the validation set; label smoothing {smoothing:g}, "
    provenance += f"minus the entropy {bound:.4f}{job_data.left_out}"
    return Measure("validation_excess_loss", value, "nats/token", provenance=provenance)


def shuffled_loss(model: Translator, job_data: JobData) -> Measure:
    """The loss on the validation pairs when each target has the source of the next pair."""
    pairs, provenance = job_data.validation_pairs, f"first {VALIDATION_SENTENCES} sentences of the validation set"
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} validation pair has at most {job_data.max_length} tokens; two are needed")
    value = mean_loss(model, pairs.with_shuffled_sources(), job_data.batch_tokens)
    return Measure("validation_loss_shuffled_sources", value, "nats/token", provenance=provenance + job_data.left_out)


def parameter_counts(model: Translator) -> list[Measure]:
    """The number of all parameters, of those outside embeddings and softmax, and of those that are multiplied."""
    total, core = model.parameter_counts()
    multiplied = model.multiplied_parameters()
    return [
        Measure("params", total, "parameters"),
        Measure("params_core", core, "parameters", provenance="outside embeddings and softmax"),
        Measure("params_multiplied", multiplied, "parameters", provenance="without look-up tables and idle experts"),
    ]


def training_costs(
    result: TrainingResult, model: Translator, experiment: Experiment, job_data: JobData
) -> list[Measure]:
    """The costs of a training: counted FLOPs, the papers' clock estimate and joules (never added), time, memory."""
    budget, machine, dtype = result.budget, experiment.machine, DTYPES[experiment.training.precision]
    longest = job_data.train.longest()

    def clock_estimate() -> list[Measure]:
        ceiling = costs.ceiling(machine.device.type, dtype)
        return costs.costs(
            budget.flop_counter.model_flops, budget.seconds, ceiling, machine.devices * machine.num_nodes
        )

    def training_memory() -> list[Measure]:  # needs a second copy of the model, for which there may be no memory
        with bf16_fallback(machine.device, dtype == torch.bfloat16):
            return [memory.training_memory(model, longest, dtype)]

    return [
        Measure("train_flops", budget.flop_counter.model_flops, "FLOP", provenance="closed form, real tokens"),
        Measure("executed_flops", budget.flop_counter.executed_flops, "FLOP", provenance="closed form, padded batches"),
        *measure_or_reason(("clock_flops", "mfu"), clock_estimate),
        energy(result, machine),
        Measure("wall_s", budget.seconds, "s", provenance="updates only"),
        Measure("overhead", 100 * budget.overhead_s / budget.seconds, "percent", provenance=OVERHEAD),
        Measure("repeated_updates", result.repeated_work.updates, "updates", provenance=REPEATED),
        Measure("repeated_s", result.repeated_work.seconds, "s", provenance=REPEATED),
        Measure("pairs", budget.pairs, "sentence pairs"),
        Measure("updates", budget.updates, "updates"),
        Measure("target_tokens", budget.target_tokens, "tokens", provenance="real tokens, EOS included"),
        best_update(result, experiment, job_data),
        Measure(
            "target_tokens_per_s", budget.target_tokens / budget.seconds, "tokens/s", provenance="training, real tokens"
        ),
        *measure_or_reason(("memory_training_bytes",), training_memory),
    ]


def best_update(result: TrainingResult, experiment: Experiment, job_data: JobData) -> Measure:
    """The update of the best validation, with the score that selected it."""
    provenance = f"selected by {job_data.selection.reason}"
    if selection.is_constant(result.scores):
        provenance += (
            f"; it was {result.scores[0]:g} at all {len(result.scores)} validations, so the lowest loss selected"
        )
    if experiment.training.average:
        provenance += f"; the mean of the last {experiment.training.average} validations is evaluated"
    return Measure("best_update", result.best_update, "updates", provenance=provenance)


def energy(result: TrainingResult, machine: MachineSettings) -> Measure:
    """Joules of the updates. Counters are of whole devices, so jobs that share a device have none.

    Nor have jobs on several machines, because only the devices of process 0 are read.
    """
    found = result.budget.energy.measure()
    if machine.num_nodes > 1:
        reason = f"not measured: {machine.num_nodes} machines, and one of them was read"
        return replace(found, value=None, provenance=reason)
    share, others = os.environ.get(GPU_SHARE, "1"), siblings()
    if machine.device.type == "cuda" and float(share) < 1:
        reason = f"not measured: the counter is that of the whole GPU, of which the job had {share}"
        return replace(found, value=None, provenance=reason)
    if machine.device.type == "cpu" and others and found.value is not None:
        reason = f"not measured: the counter is that of the whole processor, which {others} other jobs shared"
        return replace(found, value=None, provenance=reason)
    return found


SUMMED = ("train_flops", "executed_flops", "clock_flops", "energy_j", "wall_s", "repeated_updates", "repeated_s")
SUMMED += ("pairs", "updates", "target_tokens")
"""Costs of an ensemble's training that are the sum of its members' costs."""


def ensemble_costs(members: Sequence[Sequence[Measure]]) -> list[Measure]:
    """The costs of training an ensemble, from the measures of its members. The budget holds for each member."""
    by_name = [{measure.metric: measure for measure in measures} for measures in members]
    provenance = f"sum of {len(members)} members"
    found = []
    for name in SUMMED:
        of_members = [member[name] for member in by_name if name in member]
        values = [measure.value for measure in of_members if measure.value is not None]
        if len(values) == len(members):
            found.append(replace(of_members[0], value=sum(values), provenance=provenance))
        elif of_members:
            reason = "not measured: not of every member, see their runs"
            found.append(replace(of_members[0], value=None, provenance=reason))
    rate, seconds = "target_tokens_per_s", "wall_s"
    tokens = sum((member[rate].value or 0) * (member[seconds].value or 0) for member in by_name)
    mean = tokens / sum(member[seconds].value or 0 for member in by_name)
    how = "training, real tokens; members one after the other"
    found.append(replace(by_name[0][rate], value=mean, provenance=how))
    sums = {measure.metric: measure.value for measure in found}
    if clock := sums.get("clock_flops"):
        found.append(Measure("mfu", (sums["train_flops"] or 0) / clock, "1", provenance=provenance))
    memory_metric = "memory_training_bytes"
    if all(memory_metric in member for member in by_name):
        found.append(max((member[memory_metric] for member in by_name), key=lambda measure: measure.value or 0))
    reason = "not measured: each member has its own, see its run"
    return [*found, Measure("best_update", None, "updates", provenance=reason)]


def decoding_costs(
    model: Translator, experiment: Experiment, job_data: JobData, name: str, split: Split
) -> list[Measure]:
    """The FLOPs, time and memory of translating a split with outputs as long as the references.

    Args:
        name: Of the split, for the provenance.
    """
    sources, references = job_data.sources(split), job_data.vocabularies.target.encode(split.targets)
    beam = experiment.decoding.beam
    lengths = Counter(
        (len(source) + 1, len(reference) + 1) for source, reference in zip(sources, references, strict=True)
    )
    # Outputs of training length at most: one reference of thousands of tokens would take hours, or all memory.
    timed, _ = truncate(references, job_data.max_length)

    def decoding_flops() -> list[Measure]:
        total = sum(count * flops.decoding_flops(model, *pair, beam) for pair, count in lengths.items())
        provenance = f"closed form; mean over {name}, as long as the references; beam {beam}"
        return [Measure("decoding_flops", total / len(split), "FLOP/sentence", provenance=provenance)]

    def speed() -> list[Measure]:
        graphs = experiment.machine.cuda_graphs
        return latency.measure(model, sources, timed, experiment.decoding, cuda_graphs=graphs)

    return [
        *measure_or_reason(("decoding_flops",), decoding_flops),
        Measure("memory_weights_bytes", memory.weights(model), "bytes", provenance="parameters and buffers"),
        *measure_or_reason(SPEED, speed),
    ]
