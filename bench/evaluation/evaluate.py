"""What a finished training is worth: every test set scored once, and what it cost.

Each function below measures one thing and gives a list of numbers; `evaluate_job` puts them together in the order of a table.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch

from bench.data import corpus_loading
from bench.data.batches import Pairs, evaluation_batches
from bench.data.corpus import Split
from bench.decoding import beam_search, unk_replacement
from bench.evaluation import attention_maps, probe_model
from bench.evaluation.trained_model import TrainedTranslator
from bench.experiment.job_data import VALIDATION_SENTENCES, JobData
from bench.experiment.spec import Experiment
from bench.measures import costs, flops, latency, memory, protocols, quality
from bench.measures.measure import Measure
from bench.system.machine import GPU_SHARE, MachineSettings, bf16_fallback
from bench.tracking.run_writer import RunWriter
from bench.training.distributed import SINGLE_PROCESS, ProcessGroup
from bench.training.reward import mean_gleu
from bench.training.trainer import TrainingResult
from bench.training.validation import Score
from models.parts.translator import Translator

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "64-true": torch.float64}
"""What products of a training are computed in."""

OVERHEAD = "counts, curves, checkpoints, notes and reports, of the time of the updates; validations in neither"
REPEATED = "at least so much was lost with a killed process and done again; in no other measure"


def with_shuffled_sources(split: Split) -> Split:
    """Every sentence with the source of the next: what a model loses by it, it had taken from the source."""
    return Split([*split.sources[1:], *split.sources[:1]], split.targets)


def mean_loss(model: Translator, pairs: Pairs, batch_tokens: int) -> float:
    """Cross entropy in nats a target token, without label smoothing."""
    total = tokens = 0.0
    with beam_search.evaluation_mode(model):
        for _, batch in evaluation_batches(pairs, batch_tokens):
            losses_N = model.token_losses(batch.to(model.device))
            total, tokens = total + losses_N.sum().item(), tokens + len(losses_N)
    return total / tokens


def validate(model: Translator, job_data: JobData) -> Score:
    """Greedy BLEU and GLEU, and cross entropy, on the first sentences of the validation set."""
    sentences = job_data.validation.sources
    best = beam_search.greedy(model, job_data.sources(job_data.validation), attention=job_data.lexicon is not None)
    hypotheses = unk_replacement.hypothesis_texts(best, sentences, job_data.vocabularies, job_data.lexicon)
    return Score(
        quality.bleu(hypotheses, job_data.validation.targets),
        mean_gleu(hypotheses, job_data.validation.targets),
        mean_loss(model, job_data.validation_pairs, job_data.batch_tokens),
    )


def evaluate_job(
    model: Translator,
    used: list[Measure],
    experiment: Experiment,
    job_data: JobData,
    job: RunWriter,
    group: ProcessGroup = SINGLE_PROCESS,
) -> list[Measure]:
    """All that is measured of a run whose model has the weights that it is judged by; `used` is what training used."""
    store_attention(model, experiment, job_data, job)
    return [
        *score_test_sets(model, experiment, job_data, job, group),
        *validation_scores(model, job_data),
        *probe_model.probe(model, experiment, job_data, job),
        *parameter_counts(model),
        *used,
        *decoding_costs(model, experiment, job_data),
    ]


def store_attention(model: Translator, experiment: Experiment, job_data: JobData, job: RunWriter) -> None:
    """Keeps where the model looks in one sentence, the same for all rows of a text; no measure.

    The sentence is one of those that the corpus shows to people (the grammar has the slides' pitcher and cup), or the
    first of the validation set that is long enough to see something and short enough to read.
    """
    if experiment.members or not attention_maps.has(model):
        return
    asked, sources = corpus_loading.probes(experiment.corpus), job_data.validation.sources
    shown = [one.source for one in asked.illustrations] if asked else []
    fitting = (one for one in sources if 6 <= len(one.split()) <= 14)
    if chosen := next(chain(shown, fitting, filter(str.strip, sources)), None):
        loaded = TrainedTranslator(experiment, job_data.vocabularies, model, job_data.lexicon)
        looks = attention_maps.look(loaded, chosen)
        job.text(json.dumps(looks.data(), ensure_ascii=False), f"attention/{looks.name}.json")


def evaluate_trial(
    model: Translator, used: list[Measure], experiment: Experiment, job_data: JobData, goals: Sequence[str]
) -> list[Measure]:
    """What a sweep needs to know of a job: the validation set and costs; speed only if a goal asks for it."""
    measures = [*validation_scores(model, job_data), *parameter_counts(model), *used]
    if set(goals) <= {measure.metric for measure in measures}:
        return measures
    return [*measures, *decoding_costs(model, experiment, job_data)]


def score_test_sets(
    model: Translator, experiment: Experiment, job_data: JobData, job: RunWriter, group: ProcessGroup = SINGLE_PROCESS
) -> list[Measure]:
    """Scores every test set, once, by whichever processes it is translated; what was written is kept with the run."""
    search = experiment.decoding
    measures: list[Measure] = []
    model.pop_routing_statistics()  # discard what validations have accumulated
    for name, split in job_data.corpus.tests.items():
        sources, too_long = job_data.cut(split)
        found = group.translate(model, sources, search)
        best = [hypotheses[0] for hypotheses in found]
        hypotheses = unk_replacement.hypothesis_texts(best, split.sources, job_data.vocabularies, job_data.lexicon)
        job.table(
            {"source": split.sources, "reference": split.targets, "hypothesis": hypotheses}, f"hypotheses/{name}.json"
        )
        kept = [quality.statistics(hypotheses, split.targets, metric) for metric in quality.METRICS]
        job.statistics(kept, name)
        scores = [quality.measure([of_metric]) for of_metric in kept]
        scores += protocols.variants(hypotheses, split.targets, job_data.corpus.target_language)
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
            measures += probe_model.groups(name, split, hypotheses, experiment)
        other = [*split.targets[1:], *split.targets[:1]]
        measures.append(Measure(f"{name}/bleu_shuffled_references", quality.bleu(hypotheses, other), "percent"))
        limit = f"of {len(split)}; sources of more than {job_data.source_length_limit} tokens, cut to it"
        measures.append(Measure(f"{name}/truncated", too_long, "sentences", provenance=limit))
    provenance = "mean over all tokens read and written to translate the test sets, every hypothesis of the beam"
    return measures + [
        Measure(what, mean, "1", provenance=provenance) for what, mean in model.pop_routing_statistics().items()
    ]


def validation_scores(model: Translator, job_data: JobData) -> list[Measure]:
    """BLEU and loss on the validation set, and the loss with the sources of other sentences."""
    wrong = Pairs.of(with_shuffled_sources(job_data.validation), job_data.vocabularies, job_data.max_length)
    provenance = f"first {VALIDATION_SENTENCES} sentences of the validation set"
    right = validate(model, job_data)
    wrong_loss = mean_loss(model, wrong, job_data.batch_tokens)
    return [
        Measure("validation_bleu", right.bleu, "percent", provenance=f"greedy, {provenance}"),
        Measure("validation_gleu", right.gleu, "percent", provenance=f"mean over sentences, greedy, {provenance}"),
        Measure("validation_loss", right.loss, "nats/token", provenance=provenance),
        Measure("validation_loss_shuffled_sources", wrong_loss, "nats/token", provenance=provenance),
    ]


def parameter_counts(model: Translator) -> list[Measure]:
    """Parameters."""
    whole, core = model.parameter_counts()
    return [
        Measure("params", whole, "parameters"),
        Measure("params_core", core, "parameters", provenance="outside embeddings and softmax"),
    ]


def training_costs(
    trained: TrainingResult, model: Translator, experiment: Experiment, job_data: JobData
) -> list[Measure]:
    """What the training used, in three costs that are never mixed: FLOPs counted, the clock's estimate, joules."""
    budget, machine, dtype = trained.budget, experiment.machine, DTYPES[experiment.training.precision]
    ceiling = costs.ceiling(machine.device.type, dtype)
    places, _ = next(evaluation_batches(job_data.train.pairs, job_data.batch_tokens))
    longest = job_data.train.local_part(places)  # what one device of several reads of a batch
    try:
        with bf16_fallback(machine.device, dtype == torch.bfloat16):
            held = memory.training_memory(model, longest, dtype)
    except torch.OutOfMemoryError:  # it works on a second copy of the model; a finished training is not lost for it
        held = Measure("memory_training_bytes", None, "bytes", provenance="not measured: no memory for a second copy")
    return [
        Measure("train_flops", budget.flop_counter.model_flops, "FLOP", provenance="closed form, real tokens"),
        Measure("executed_flops", budget.flop_counter.executed_flops, "FLOP", provenance="closed form, padded batches"),
        *costs.costs(budget.flop_counter.model_flops, budget.seconds, ceiling, machine.devices * machine.num_nodes),
        energy(trained, machine),
        Measure("wall_s", budget.seconds, "s", provenance="updates only"),
        Measure("overhead", 100 * budget.overhead_s / budget.seconds, "percent", provenance=OVERHEAD),
        Measure("repeated_updates", trained.repeated_work.updates, "updates", provenance=REPEATED),
        Measure("repeated_s", trained.repeated_work.seconds, "s", provenance=REPEATED),
        Measure("pairs", budget.pairs, "sentence pairs"),
        Measure("updates", budget.updates, "updates"),
        Measure("best_update", trained.best_update, "updates"),
        Measure(
            "target_tokens_per_s", budget.target_tokens / budget.seconds, "tokens/s", provenance="training, real tokens"
        ),
        held,
    ]


def energy(trained: TrainingResult, machine: MachineSettings) -> Measure:
    """Of the updates. Counters are those of whole devices, and of the machine of process 0."""
    found = trained.budget.energy.measure()
    if machine.num_nodes > 1:
        return replace(
            found, value=None, provenance=f"not measured: {machine.num_nodes} machines, and one of them was read"
        )
    share = os.environ.get(GPU_SHARE, "1")
    if machine.device.type == "cuda" and float(share) < 1:
        return replace(found, provenance=f"{found.provenance}; of the whole GPU, of which the job had {share}")
    return found


SUMMED = ("train_flops", "executed_flops", "clock_flops", "energy_j", "wall_s", "repeated_updates", "repeated_s")
SUMMED += ("pairs", "updates")
"""What the training of an ensemble costs is the sum of what the training of its members cost."""


def ensemble_costs(members: Sequence[Sequence[Measure]]) -> list[Measure]:
    """What the training of an ensemble used, from what its members' did. The budget holds for each of them."""
    by_name = [{measure.metric: measure for measure in measures} for measures in members]
    provenance = f"sum of {len(members)} members"
    used = []
    for name in SUMMED:
        found = [one[name] for one in by_name if name in one]
        values = [measure.value for measure in found if measure.value is not None]
        if len(values) == len(members):
            used.append(replace(found[0], value=sum(values), provenance=provenance))
        elif found:
            used.append(replace(found[0], value=None, provenance="not measured: not of every member, see their runs"))
    rate, seconds = "target_tokens_per_s", "wall_s"
    tokens = sum((one[rate].value or 0) * (one[seconds].value or 0) for one in by_name)
    mean = tokens / sum(one[seconds].value or 0 for one in by_name)
    used.append(replace(by_name[0][rate], value=mean, provenance="training, real tokens; members one after the other"))
    sums = {measure.metric: measure.value for measure in used}
    if clock := sums.get("clock_flops"):
        used.append(Measure("mfu", (sums["train_flops"] or 0) / clock, "1", provenance=provenance))
    if all("memory_training_bytes" in one for one in by_name):
        used.append(max((one["memory_training_bytes"] for one in by_name), key=lambda measure: measure.value or 0))
    return [
        *used,
        Measure("best_update", None, "updates", provenance="not measured: each member has its own, see its run"),
    ]


def decoding_costs(model: Translator, experiment: Experiment, job_data: JobData) -> list[Measure]:
    """What translating the first test set takes: FLOPs, time and memory. Each text becomes as long as its reference."""
    name, quoted = next(iter(job_data.corpus.tests.items()))
    sources, references = job_data.sources(quoted), job_data.vocabularies.target.encode(quoted.targets)
    beam = experiment.decoding.beam
    lengths = Counter(
        (len(source) + 1, len(reference) + 1) for source, reference in zip(sources, references, strict=True)
    )
    cost = sum(count * flops.decoding_flops(model, *pair, beam) for pair, count in lengths.items())
    provenance = f"closed form; mean over {name}, as long as the references; beam {beam}"
    return [
        Measure("decoding_flops", cost / len(quoted), "FLOP/sentence", provenance=provenance),
        Measure("memory_weights_bytes", memory.weights(model), "bytes", provenance="parameters and buffers"),
        *latency.measure(model, sources, references, experiment.decoding),
    ]
