"""One job: an experiment trained, judged and tracked. The same command continues it, or prints it when finished."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import pandas as pd
import torch
import yaml

from bench import checkpoints, corpora, decoding, terminal, vocabulary
from bench.batches import PairBatches, Pairs, batches_of, truncated
from bench.checkpoints import Interrupted, Signals, save, write_beside
from bench.corpora import Corpus, CorpusSettings, Split
from bench.experiment import Experiment
from bench.machine import environment
from bench.measures import Measure, latency, quality
from bench.tracking import Job, Store, StoreFailure, TrackedRun
from bench.training import CHECKPOINT, Score, Trained, train
from bench.vocabulary import Vocabularies
from models.parts.translator import Translator

VALIDATION_SENTENCES = 500
"""Sentences that a validation translates, from the beginning of the validation set."""

DESCRIBED = "vocabulary.target"
"""The tag that is written last when a run is described: a run without it was killed before."""

REPEATED = "at least so much was lost with a killed process and done again; in no other measure"


@dataclass(frozen=True)
class Outcome:
    """A job after its command: the run (None if it failed before it had one, or did not finish) and its numbers."""

    experiment: Experiment
    run: TrackedRun | None
    measures: list[Measure]
    state: str  # finished now, finished before, failed

    def show(self) -> None:
        """Prints the final numbers as a table."""
        if self.run is None:
            return
        rows = [
            [
                measure.metric,
                "not measured" if measure.value is None else terminal.quantity(measure.value),
                measure.unit,
                terminal.interval(measure.low, measure.high),
            ]
            for measure in self.measures
        ]
        terminal.table([("measure", "left"), ("value", "right"), ("unit", "left"), ("95 % interval", "left")], rows)
        terminal.say(f"run {self.run.id}: {self.state}")


@dataclass(frozen=True)
class Material:
    """What a job trains and is judged on: text, and the same text as ids."""

    corpus: Corpus
    vocabularies: Vocabularies
    train: PairBatches
    validation: Split  # the sentences that a validation translates
    validation_pairs: Pairs
    batch_tokens: int
    max_length: int

    @classmethod
    def of(cls, experiment: Experiment) -> Material:
        corpus = _corpus(json.dumps(asdict(experiment.corpus)))
        text, tokens = experiment.text, experiment.training.batch_tokens
        vocabularies = vocabulary.build(text, corpus.train, experiment.tracking.path / "vocabularies")
        batches = PairBatches(Pairs.of(corpus.train, vocabularies, text.max_length), tokens, experiment.seed)
        first = Split(
            corpus.validation.sources[:VALIDATION_SENTENCES], corpus.validation.targets[:VALIDATION_SENTENCES]
        )
        pairs = Pairs.of(first, vocabularies, text.max_length)
        return cls(corpus, vocabularies, batches, first, pairs, tokens, text.max_length)

    def sources(self, split: Split) -> list[list[int]]:
        return self.cut(split)[0]

    def cut(self, split: Split) -> tuple[list[list[int]], int]:
        """The sources to translate, and how many of them were over the limit and have been cut."""
        return truncated(self.vocabularies.source.encode(split.sources), self.max_length)


@functools.lru_cache(maxsize=4)
def _corpus(settings: str) -> Corpus:
    """The rows of a suite read the same text: it is made once."""
    return corpora.load(CorpusSettings(**json.loads(settings)))


def shuffled(split: Split) -> Split:
    """Every sentence with the source of the next: what a model loses by it, it had taken from the source."""
    return Split([*split.sources[1:], *split.sources[:1]], split.targets)


def mean_loss(model: Translator, pairs: Pairs, batch_tokens: int) -> float:
    """Cross entropy in nats a target token, without label smoothing."""
    total = tokens = 0.0
    with decoding.evaluating(model):
        for _, batch in batches_of(pairs, batch_tokens):
            losses_N = model.token_losses(batch.to(model.device))
            total, tokens = total + losses_N.sum().item(), tokens + len(losses_N)
    return total / tokens


def validate(model: Translator, material: Material) -> Score:
    """Greedy BLEU and cross entropy on the first sentences of the validation set."""
    best = decoding.greedy(model, material.sources(material.validation))
    hypotheses = material.vocabularies.target.decode([hypothesis.ids for hypothesis in best])
    return Score(
        quality.bleu(hypotheses, material.validation.targets),
        mean_loss(model, material.validation_pairs, material.batch_tokens),
    )


def run(experiment: Experiment, store: Store, suite: str, *, parent: str | None = None, again: bool = False) -> Outcome:
    """Trains, judges and tracks one job.

    An unfinished run of the same job goes on in the same MLflow run, a finished one is returned as it is, unless
    `again` asks for a new one.

    Raises:
        ValueError: a setting that cannot be trained with; there is no run then, and nothing on the disk.
        Interrupted: a signal came; the run is saved, and its status is KILLED.
        Diverged: the loss became infinite or not a number; the run's status is FAILED.
    """
    earlier = store.find(suite, experiment.job)
    latest = earlier[0] if earlier and not again else None
    if latest and latest.status == "FINISHED":
        terminal.say(f"  finished before, run {latest.id}")
        return Outcome(experiment, latest, store.measures(latest), "finished before")
    with experiment.machine.ready(), Signals().listening() as signals:
        material = Material.of(experiment)
        model = _model(experiment, material)
        jobs = experiment.tracking.path / "jobs" / suite
        if latest:
            checkpoints.check(_folder(jobs, experiment, latest.id) / CHECKPOINT)
        vocabulary.keep(material.vocabularies)
        with _alone(jobs, experiment):
            tags = _tags(experiment, material.corpus)
            if latest:
                terminal.say(f"  continues run {latest.id}")
                _warn_of_differences(latest, tags)
                job = store.resume(latest.id)
            else:
                job = store.begin(suite, experiment.name, tags, parent)
            with _ending(job):
                if latest is None or DESCRIBED not in latest.tags:
                    _describe(job, experiment, material)
                folder = _folder(jobs, experiment, job.id)
                trained = _train(model, experiment, material, folder, job, signals)
                measures = store.measures(latest) if latest else []
                if not measures:  # or it was judged, and killed before it could say so
                    measures = _judge(model, trained, experiment, material, job)
                    curve = pd.DataFrame(trained.curve, columns=["update", "name", "value"])
                    job.frame(curve, "curves.parquet")
                    _keep(trained, material, folder, job)
                job.measures(measures)
                job.finish("FINISHED")
    return Outcome(experiment, store.run(job.id), measures, "finished now")


def _folder(jobs: Path, experiment: Experiment, run_id: str) -> Path:
    """Where a run keeps its checkpoints. It bears the run's id: a new run never finds another's weights."""
    return jobs / f"{experiment.row}-{experiment.corpus_name}-s{experiment.seed}-{run_id[:12]}"


@contextlib.contextmanager
def _alone(jobs: Path, experiment: Experiment) -> Iterator[None]:
    """Raises ValueError if another process has this job in its hands; the kernel frees the lock of a killed one."""
    jobs.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(jobs / f".{experiment.job}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"{experiment.name}: another process is at this job; wait for it or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _ending(job: Job) -> Iterator[None]:
    """Closes a run that does not come to its end: KILLED by a signal, FAILED by anything else, with the reason."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted)
        reason = str(error) if stopped else f"{type(error).__name__}: {error}"[:500]
        try:
            job.tag({"reason": reason})
            job.finish("KILLED" if stopped else "FAILED")
        except (*StoreFailure, OSError) as failure:
            terminal.say(f"  the store could not be told that the run has ended: {type(failure).__name__}")
        raise


def _tags(experiment: Experiment, corpus: Corpus) -> dict[str, str]:
    about = experiment.about
    return {
        "row": experiment.row,
        "name": about.name,
        "year": str(about.year),
        "paper": about.paper,
        "family": about.family,
        "note": about.note,
        "direction": corpus.direction,
        "corpus": corpus.name,
        "preset": experiment.preset,
        "seed": str(experiment.seed),
        "job": experiment.job,
        "data": json.dumps({split: digest[:16] for split, digest in corpus.hashes.items()}),
        "mlflow.note.content": f"**{about.name}** ({about.paper}), {corpus.name}, preset {experiment.preset}, "
        f"seed {experiment.seed}.",
        **environment(),
    }


def _warn_of_differences(run: TrackedRun, tags: dict[str, str]) -> None:
    for key in ("data", "mlflow.source.git.commit", "threads", "version.torch", "hardware.cpu"):
        if run.tags.get(key) != tags[key]:
            terminal.say(f"  warning: {key} was {run.tags.get(key)} when the run began and is {tags[key]} now")


def _describe(job: Job, experiment: Experiment, material: Material) -> None:
    corpus = material.corpus
    job.text(yaml.safe_dump(experiment.settings, sort_keys=False, allow_unicode=True), "config.yaml")
    flat = pd.json_normalize(experiment.settings).iloc[0].to_dict()
    job.params({key: value for key, value in flat.items() if not key.startswith("about.")})
    splits = {"train": corpus.train, "validation": corpus.validation, **corpus.tests}
    profiles = {name: json.dumps({"pairs": len(split)}) for name, split in splits.items()}
    job.datasets(corpus.hashes, corpus.name, profiles)
    if material.train.pairs.left_out:
        terminal.say(f"  left out: {material.train.pairs.left_out:,} pairs over {experiment.text.max_length} tokens")
    sides = dict(zip(("source", "target"), material.vocabularies, strict=True))
    job.tag({f"vocabulary.{side}": f"{len(v)} {experiment.text.kind}, sha256 {v.hash}" for side, v in sides.items()})


def _model(experiment: Experiment, material: Material) -> Translator:
    """With its initial weights. Raises ValueError for sizes that do not fit and an optimiser that does not exist."""
    torch.manual_seed(experiment.seed)
    model = experiment.build(len(material.vocabularies.source), len(material.vocabularies.target))
    model.recipe = experiment.training
    model.configure_optimizers()
    return model


def _train(
    model: Translator, experiment: Experiment, material: Material, folder: Path, job: Job, signals: Signals
) -> Trained:
    """Trains; afterwards the model has the weights that it is judged by."""
    live = terminal.Live(experiment.row)
    try:
        trained = train(
            model,
            material.train,
            experiment.training,
            experiment.machine,
            seed=experiment.seed,
            folder=folder,
            signals=signals,
            score=lambda model: validate(model, material),
            flush=job.curve,
            resumed=lambda curve: job.curve(job.missing(curve)),
            report=live,
        )
    finally:
        live.close()
    model.load_state_dict(trained.weights)
    model.to(experiment.machine.device)
    return trained


def _judge(model: Translator, trained: Trained, experiment: Experiment, material: Material, job: Job) -> list[Measure]:
    """Scores every test set once, and the costs."""
    meter, tests = trained.meter, material.corpus.tests
    measures: list[Measure] = []
    search = experiment.decoding
    for name, split in tests.items():
        sources, too_long = material.cut(split)
        found = decoding.translate(model, sources, search)
        hypotheses = material.vocabularies.target.decode([best.ids for best, *_ in found])
        job.table(
            {"source": split.sources, "reference": split.targets, "hypothesis": hypotheses}, f"hypotheses/{name}.json"
        )
        for measure in quality.score(hypotheses, split.targets):
            measures.append(
                _renamed(measure, f"{name}/{measure.metric}", f"; beam {search.beam}, alpha {search.alpha}")
            )
        other = [*split.targets[1:], *split.targets[:1]]
        measures.append(Measure(f"{name}/bleu_shuffled_references", quality.bleu(hypotheses, other), "percent"))
        limit = f"of {len(split)}; sources of more than {material.max_length} tokens, cut to it"
        measures.append(Measure(f"{name}/truncated", too_long, "sentences", recipe=limit))
    quoted = next(iter(tests.values()))
    wrong = Pairs.of(shuffled(material.validation), material.vocabularies, material.max_length)
    whole, core = model.parameter_counts()
    recipe = f"first {VALIDATION_SENTENCES} sentences of the validation set"
    right = validate(model, material)
    wrong_loss = mean_loss(model, wrong, material.batch_tokens)
    return [
        *measures,
        Measure("validation_bleu", right.bleu, "percent", recipe=f"greedy, {recipe}"),
        Measure("validation_loss", right.loss, "nats/token", recipe=recipe),
        Measure("validation_loss_shuffled_sources", wrong_loss, "nats/token", recipe=recipe),
        Measure("params", whole, "parameters"),
        Measure("params_core", core, "parameters", recipe="outside embeddings and softmax"),
        Measure("train_flops", meter.ledger.model_flops, "FLOP", recipe="closed form, real tokens"),
        Measure("executed_flops", meter.ledger.executed_flops, "FLOP", recipe="closed form, padded batches"),
        Measure("wall_s", meter.seconds, "s", recipe="updates only"),
        Measure("repeated_updates", trained.repeated.updates, "updates", recipe=REPEATED),
        Measure("repeated_s", trained.repeated.seconds, "s", recipe=REPEATED),
        Measure("pairs", meter.pairs, "sentence pairs"),
        Measure("updates", meter.updates, "updates"),
        Measure("best_update", trained.best_update, "updates"),
        Measure("target_tokens_per_s", meter.target_tokens / meter.seconds, "tokens/s", recipe="training, real tokens"),
        *latency.measure(model, material.sources(quoted), material.vocabularies.target.encode(quoted.targets), search),
    ]


def _renamed(measure: Measure, name: str, recipe: str) -> Measure:
    return Measure(name, measure.value, measure.unit, measure.low, measure.high, measure.recipe + recipe)


def _keep(trained: Trained, material: Material, folder: Path, job: Job) -> None:
    """The judged weights and the vocabularies go to the run: with config.yaml they are the whole translator."""
    weights = folder / "weights.pt"
    write_beside(weights, lambda path: save(trained.weights, path))
    job.file(weights, "model")
    for side, words in zip(("source", "target"), material.vocabularies, strict=True):
        words.save(folder / f"{side}.vocabulary")
        job.file(folder / f"{side}.vocabulary", "model")
