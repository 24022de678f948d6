"""What a finished training is worth: every test set scored once, and what it cost.

Each function below measures one thing and gives a list of numbers; `judge` puts them together in the order of a table.
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
from bench.data.batches import Pairs, batches_of
from bench.data.corpus import Split
from bench.decoding import beam_search, unk_replacement
from bench.evaluation import attention_maps, probe_model
from bench.evaluation.trained_model import TrainedTranslator
from bench.experiment.job_data import VALIDATION_SENTENCES, Material
from bench.experiment.spec import Experiment
from bench.measures import costs, flops, latency, memory, protocols, quality
from bench.measures.measure import Measure
from bench.system.machine import GPU_SHARE, Machine, bf16
from bench.tracking.run_writer import Job
from bench.training.distributed import ALONE, Ranks
from bench.training.reward import mean_gleu
from bench.training.trainer import Score, Trained
from models.parts.translator import Translator

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "64-true": torch.float64}
"""What products of a training are computed in."""

OVERHEAD = "counts, curves, checkpoints, notes and reports, of the time of the updates; validations in neither"
REPEATED = "at least so much was lost with a killed process and done again; in no other measure"


def shuffled(split: Split) -> Split:
    """Every sentence with the source of the next: what a model loses by it, it had taken from the source."""
    return Split([*split.sources[1:], *split.sources[:1]], split.targets)


def mean_loss(model: Translator, pairs: Pairs, batch_tokens: int) -> float:
    """Cross entropy in nats a target token, without label smoothing."""
    total = tokens = 0.0
    with beam_search.evaluating(model):
        for _, batch in batches_of(pairs, batch_tokens):
            losses_N = model.token_losses(batch.to(model.device))
            total, tokens = total + losses_N.sum().item(), tokens + len(losses_N)
    return total / tokens


def validate(model: Translator, material: Material) -> Score:
    """Greedy BLEU and GLEU, and cross entropy, on the first sentences of the validation set."""
    sentences = material.validation.sources
    best = beam_search.greedy(model, material.sources(material.validation), attention=material.lexicon is not None)
    hypotheses = unk_replacement.written(best, sentences, material.vocabularies, material.lexicon)
    return Score(
        quality.bleu(hypotheses, material.validation.targets),
        mean_gleu(hypotheses, material.validation.targets),
        mean_loss(model, material.validation_pairs, material.batch_tokens),
    )


def judge(
    model: Translator, used: list[Measure], experiment: Experiment, material: Material, job: Job, ranks: Ranks = ALONE
) -> list[Measure]:
    """All that is measured of a run whose model has the weights that it is judged by; `used` is what training used."""
    pictured(model, experiment, material, job)
    return [
        *translations(model, experiment, material, job, ranks),
        *validation(model, material),
        *probe_model.probe(model, experiment, material, job),
        *sizes(model),
        *used,
        *translating(model, experiment, material),
    ]


def pictured(model: Translator, experiment: Experiment, material: Material, job: Job) -> None:
    """Keeps where the model looks in one sentence, the same for all rows of a text; no measure.

    The sentence is one of those that the corpus shows to people (the grammar has the slides' pitcher and cup), or the
    first of the validation set that is long enough to see something and short enough to read.
    """
    if experiment.members or not attention_maps.has(model):
        return
    asked, sources = corpus_loading.probes(experiment.corpus), material.validation.sources
    shown = [one.source for one in asked.shown] if asked else []
    fitting = (one for one in sources if 6 <= len(one.split()) <= 14)
    if chosen := next(chain(shown, fitting, filter(str.strip, sources)), None):
        loaded = TrainedTranslator(experiment, material.vocabularies, model, material.lexicon)
        looks = attention_maps.look(loaded, chosen)
        job.text(json.dumps(looks.data(), ensure_ascii=False), f"attention/{looks.name}.json")


def tuned(
    model: Translator, used: list[Measure], experiment: Experiment, material: Material, goals: Sequence[str]
) -> list[Measure]:
    """What a sweep needs to know of a job: the validation set and costs; speed only if a goal asks for it."""
    measures = [*validation(model, material), *sizes(model), *used]
    if set(goals) <= {measure.metric for measure in measures}:
        return measures
    return [*measures, *translating(model, experiment, material)]


def translations(
    model: Translator, experiment: Experiment, material: Material, job: Job, ranks: Ranks = ALONE
) -> list[Measure]:
    """Scores every test set, once, by whichever processes it is translated; what was written is kept with the run."""
    search = experiment.decoding
    measures: list[Measure] = []
    model.observed()  # what validations have left behind
    for name, split in material.corpus.tests.items():
        sources, too_long = material.cut(split)
        found = ranks.translate(model, sources, search)
        best = [hypotheses[0] for hypotheses in found]
        hypotheses = unk_replacement.written(best, split.sources, material.vocabularies, material.lexicon)
        job.table(
            {"source": split.sources, "reference": split.targets, "hypothesis": hypotheses}, f"hypotheses/{name}.json"
        )
        kept = [quality.statistics(hypotheses, split.targets, metric) for metric in quality.METRICS]
        job.statistics(kept, name)
        scores = [quality.measure([of_metric]) for of_metric in kept]
        scores += protocols.variants(hypotheses, split.targets, material.corpus.target_language)
        how = f"; beam {search.beam}, alpha {search.alpha}"
        how += " of the mean" if search.length_penalty == "mean" else ""
        how += f", coverage {search.coverage}" if search.coverage else ""
        how += f", pruned at {search.prune}" if search.prune is not None else ""
        how += f", unknown words: {search.pos_unk}" if search.replaces else ""
        measures += [
            replace(measure, metric=f"{name}/{measure.metric}", recipe=measure.recipe + how) for measure in scores
        ]
        if split is next(iter(material.corpus.tests.values())):
            measures += probe_model.groups(name, split, hypotheses, experiment)
        other = [*split.targets[1:], *split.targets[:1]]
        measures.append(Measure(f"{name}/bleu_shuffled_references", quality.bleu(hypotheses, other), "percent"))
        limit = f"of {len(split)}; sources of more than {material.cut_at} tokens, cut to it"
        measures.append(Measure(f"{name}/truncated", too_long, "sentences", recipe=limit))
    recipe = "mean over all tokens read and written to translate the test sets, every hypothesis of the beam"
    return measures + [Measure(what, mean, "1", recipe=recipe) for what, mean in model.observed().items()]


def validation(model: Translator, material: Material) -> list[Measure]:
    """BLEU and loss on the validation set, and the loss with the sources of other sentences."""
    wrong = Pairs.of(shuffled(material.validation), material.vocabularies, material.max_length)
    recipe = f"first {VALIDATION_SENTENCES} sentences of the validation set"
    right = validate(model, material)
    wrong_loss = mean_loss(model, wrong, material.batch_tokens)
    return [
        Measure("validation_bleu", right.bleu, "percent", recipe=f"greedy, {recipe}"),
        Measure("validation_gleu", right.gleu, "percent", recipe=f"mean over sentences, greedy, {recipe}"),
        Measure("validation_loss", right.loss, "nats/token", recipe=recipe),
        Measure("validation_loss_shuffled_sources", wrong_loss, "nats/token", recipe=recipe),
    ]


def sizes(model: Translator) -> list[Measure]:
    """Parameters."""
    whole, core = model.parameter_counts()
    return [
        Measure("params", whole, "parameters"),
        Measure("params_core", core, "parameters", recipe="outside embeddings and softmax"),
    ]


def spent(trained: Trained, model: Translator, experiment: Experiment, material: Material) -> list[Measure]:
    """What the training used, in three costs that are never mixed: FLOPs counted, the clock's estimate, joules."""
    meter, machine, dtype = trained.meter, experiment.machine, DTYPES[experiment.training.precision]
    ceiling = costs.ceiling(machine.device.type, dtype)
    places, _ = next(batches_of(material.train.pairs, material.batch_tokens))
    longest = material.train.part(places)  # what one device of several reads of a batch
    try:
        with bf16(machine.device, dtype == torch.bfloat16):
            held = memory.training_memory(model, longest, dtype)
    except torch.OutOfMemoryError:  # it works on a second copy of the model; a finished training is not lost for it
        held = Measure("memory_training_bytes", None, "bytes", recipe="not measured: no memory for a second copy")
    return [
        Measure("train_flops", meter.ledger.model_flops, "FLOP", recipe="closed form, real tokens"),
        Measure("executed_flops", meter.ledger.executed_flops, "FLOP", recipe="closed form, padded batches"),
        *costs.costs(meter.ledger.model_flops, meter.seconds, ceiling, machine.devices * machine.num_nodes),
        joules(trained, machine),
        Measure("wall_s", meter.seconds, "s", recipe="updates only"),
        Measure("overhead", 100 * meter.overhead / meter.seconds, "percent", recipe=OVERHEAD),
        Measure("repeated_updates", trained.repeated.updates, "updates", recipe=REPEATED),
        Measure("repeated_s", trained.repeated.seconds, "s", recipe=REPEATED),
        Measure("pairs", meter.pairs, "sentence pairs"),
        Measure("updates", meter.updates, "updates"),
        Measure("best_update", trained.best_update, "updates"),
        Measure("target_tokens_per_s", meter.target_tokens / meter.seconds, "tokens/s", recipe="training, real tokens"),
        held,
    ]


def joules(trained: Trained, machine: Machine) -> Measure:
    """Of the updates. Counters are those of whole devices, and of the machine of process 0."""
    found = trained.meter.energy.measure()
    if machine.num_nodes > 1:
        return replace(
            found, value=None, recipe=f"not measured: {machine.num_nodes} machines, and one of them was read"
        )
    share = os.environ.get(GPU_SHARE, "1")
    if machine.device.type == "cuda" and float(share) < 1:
        return replace(found, recipe=f"{found.recipe}; of the whole GPU, of which the job had {share}")
    return found


SUMMED = ("train_flops", "executed_flops", "clock_flops", "energy_j", "wall_s", "repeated_updates", "repeated_s")
SUMMED += ("pairs", "updates")
"""What the training of an ensemble costs is the sum of what the training of its members cost."""


def together(members: Sequence[Sequence[Measure]]) -> list[Measure]:
    """What the training of an ensemble used, from what its members' did. The budget holds for each of them."""
    by_name = [{measure.metric: measure for measure in measures} for measures in members]
    recipe = f"sum of {len(members)} members"
    used = []
    for name in SUMMED:
        found = [one[name] for one in by_name if name in one]
        values = [measure.value for measure in found if measure.value is not None]
        if len(values) == len(members):
            used.append(replace(found[0], value=sum(values), recipe=recipe))
        elif found:
            used.append(replace(found[0], value=None, recipe="not measured: not of every member, see their runs"))
    rate, seconds = "target_tokens_per_s", "wall_s"
    tokens = sum((one[rate].value or 0) * (one[seconds].value or 0) for one in by_name)
    mean = tokens / sum(one[seconds].value or 0 for one in by_name)
    used.append(replace(by_name[0][rate], value=mean, recipe="training, real tokens; members one after the other"))
    sums = {measure.metric: measure.value for measure in used}
    if clock := sums.get("clock_flops"):
        used.append(Measure("mfu", (sums["train_flops"] or 0) / clock, "1", recipe=recipe))
    if all("memory_training_bytes" in one for one in by_name):
        used.append(max((one["memory_training_bytes"] for one in by_name), key=lambda measure: measure.value or 0))
    return [*used, Measure("best_update", None, "updates", recipe="not measured: each member has its own, see its run")]


def translating(model: Translator, experiment: Experiment, material: Material) -> list[Measure]:
    """What translating the first test set takes: FLOPs, time and memory. Each text becomes as long as its reference."""
    name, quoted = next(iter(material.corpus.tests.items()))
    sources, references = material.sources(quoted), material.vocabularies.target.encode(quoted.targets)
    beam = experiment.decoding.beam
    lengths = Counter(
        (len(source) + 1, len(reference) + 1) for source, reference in zip(sources, references, strict=True)
    )
    cost = sum(count * flops.decoding_flops(model, *pair, beam) for pair, count in lengths.items())
    recipe = f"closed form; mean over {name}, as long as the references; beam {beam}"
    return [
        Measure("decoding_flops", cost / len(quoted), "FLOP/sentence", recipe=recipe),
        Measure("memory_weights_bytes", memory.weights(model), "bytes", recipe="parameters and buffers"),
        *latency.measure(model, sources, references, experiment.decoding),
    ]
