"""What the run of a job says about it: its tags, its settings, and the hashes and statistics of its text."""

from __future__ import annotations

import functools
import json

from bench.data.corpus import Corpus
from bench.data.corpus_stats import cached_stats
from bench.data.languages import OtherLanguage
from bench.data.learn_vocabularies import SAMPLE_SEED, sentences_learnt_from
from bench.evaluation import first_losses
from bench.experiment.commands import job_command
from bench.experiment.job_data import JobData
from bench.experiment.loading import config_yaml
from bench.experiment.spec import Experiment, flatten
from bench.measures import quality
from bench.measures.other_code import FIRST_LOSSES_TAG
from bench.system import terminal
from bench.system.facts import COMMIT, UNKNOWN, environment_tags
from bench.system.files import inside
from bench.tracking.reading import TrackedRun
from bench.tracking.run_writer import RunWriter

LAST_METADATA_TAG = "vocabulary.target"
"""The metadata tag that is written last. A run without it was killed before its metadata was complete."""


def corpus_hashes(corpus: Corpus) -> str:
    """The beginning of the SHA-256 of each split, as JSON."""
    return json.dumps({split: digest[:16] for split, digest in corpus.hashes.items()})


def run_tags(experiment: Experiment, job_data: JobData) -> dict[str, str]:
    about, corpus = experiment.about, job_data.corpus
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
        "job_hash": experiment.job_hash,
        "command": job_command(experiment),
        "processes": str(experiment.machine.processes),
        "data": corpus_hashes(corpus),
        **job_data.selection.tags,
        **({"size": about.size} if about.size else {}),
        FIRST_LOSSES_TAG: json.dumps(first_losses.first_losses(experiment.row)),
        "mlflow.note.content": f"**{about.name}** ({about.paper}), {corpus.name}, preset {experiment.preset}, "
        f"seed {experiment.seed}.",
        **environment_tags(experiment.machine.device),
    }


def warn_of_differences(run: TrackedRun, tags: dict[str, str]) -> None:
    for key in (COMMIT, "threads", "version.torch", "hardware.cpu", "hardware.gpu"):
        before, now = run.tags.get(key) or UNKNOWN, tags[key]
        if before != now or now == UNKNOWN:  # two unknown values may differ
            terminal.say(f"  warning: {key} was {before} when the run began and is {now} now")


def write_metadata(writer: RunWriter, experiment: Experiment, job_data: JobData) -> None:
    """Writes the settings, the hashes and statistics of the corpus, and the vocabularies to the run."""
    corpus = job_data.corpus
    writer.text(config_yaml(experiment), "config.yaml")
    # The address of the store may have a password, and tells nobody who has opened the store anything.
    params = {key: value for key, value in flatten(experiment.settings).items() if key != "tracking.uri"}
    writer.params({key: value for key, value in params.items() if not key.startswith("about.")})
    splits = {"train": corpus.train, "validation": corpus.validation, **corpus.tests}
    profiles = {name: json.dumps({"pairs": len(split)}) for name, split in splits.items()}
    writer.datasets(corpus.hashes, corpus.name, profiles)
    for name, pairs in (("training", job_data.train.pairs), ("validation", job_data.validation_pairs)):
        if pairs.dropped:
            limit = f"over {experiment.text.max_length} tokens (text.max_length)"
            _say_once(f"left out: {pairs.dropped:,} of {pairs.dropped + len(pairs):,} {name} pairs {limit}")
    sides = dict(zip(("source", "target"), job_data.vocabularies, strict=True))
    corpus_stats = cached_stats(corpus, inside(experiment.tracking.path, "corpus_stats"))
    learnt, of = sentences_learnt_from(experiment.text, len(corpus.train))
    if learnt < of:
        _say_once(f"vocabularies are learnt from a sample of {learnt:,} of {of:,} sentences (seed {SAMPLE_SEED})")
    vocabularies = {
        side: {"size": len(v), "kind": experiment.text.kind, "sha256": v.hash, "sentences": learnt, "of_sentences": of}
        for side, v in sides.items()
    }
    for name, count in corpus.removed.items():
        _say_once(f"corpus.filters.{name} removed {count:,} training pairs")
    _say_once(f"weights on {corpus.name} are selected by {job_data.selection.reason}")
    bleu = quality.statistics(["x"], ["x"], tokenizer=job_data.selection.tokenizer).signature
    document = corpus_stats | {"vocabularies": vocabularies, "signature": bleu}
    writer.text(json.dumps(document, ensure_ascii=False, indent=1), "corpus_stats.json")
    for side in corpus_stats["other_language"]:
        _say_once(f"warning: {corpus.name}: {OtherLanguage(**side)}")
    for leak in corpus_stats["leaks"]:
        _say_once(f"warning: leakage in {corpus.name}, {leak}")
    writer.tag({"leakage": "; ".join(corpus_stats["leaks"]) or "none"})
    writer.record_files()  # here, because a run that is killed in training does not write its metadata again
    # LAST_METADATA_TAG is among these, so they must be written last.
    writer.tag({f"vocabulary.{side}": f"{len(v)} {experiment.text.kind}, sha256 {v.hash}" for side, v in sides.items()})


@functools.cache
def _say_once(line: str) -> None:
    """Prints a fact about the text, once in a process, because every row of a suite reads the same text."""
    terminal.say(f"  {line}")
