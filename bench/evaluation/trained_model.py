"""Loads a trained translator from a tracked run: for `bench translate`, attention maps and serving.

The run's model is a folder: config.yaml says how to build the network and how to search; beside it are the weights, the
vocabularies and, with `decoding.pos_unk`, the lexicon.
"""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import torch

from bench.data import vocabulary
from bench.data.encoded_pairs import encode_sources
from bench.data.text_lines import check_text, decode_line, without_line_end
from bench.data.vocabulary import Vocabularies
from bench.decoding import beam_search
from bench.decoding.beam_search import DecodingSettings
from bench.decoding.ensemble import Ensemble
from bench.decoding.unk_replacement import LEXICON, Lexicon, hypothesis_texts
from bench.experiment.loading import read_config
from bench.experiment.spec import Experiment
from bench.measures.selection import Selection
from bench.system.machine import MachineSettings
from bench.tracking.logged_model import MODELS_URI
from bench.tracking.reading import TrackedRun
from bench.tracking.store import Store
from models.parts.translator import Translator

BEST = "best:"


class Candidate(NamedTuple):
    """A translation and its score: log P(Y|X) / lp(Y), in nats."""

    text: str
    score: float


@dataclass(frozen=True)
class TrainedTranslator:
    """A run's model with its weights, in evaluation mode, its vocabularies, and the settings of its evaluation."""

    experiment: Experiment
    vocabularies: Vocabularies
    model: Translator
    lexicon: Lexicon | None

    def ids(self, sentences: Sequence[str]) -> tuple[list[list[int]], int]:
        """Returns the token ids of the sources, and how many sources were longer than the limit and were truncated.

        Raises:
            ValueError: a sentence has a lone surrogate, as JSON allows in a request to a served model.
        """
        for number, sentence in enumerate(sentences, start=1):
            try:
                check_text(sentence)
            except ValueError as error:
                raise ValueError(f"sentence {number} {error}") from None
        limit = self.experiment.text.source_length_limit
        return encode_sources(self.prepare(sentences), self.vocabularies.source, limit)

    def prepare(self, sentences: Sequence[str]) -> list[str]:
        """Returns the sentences without line ends, in the Unicode normalization of the training text."""
        return [self.experiment.text.normalized(without_line_end(sentence)) for sentence in sentences]

    def translate(
        self, sentences: Sequence[str], settings: DecodingSettings | None = None
    ) -> tuple[list[list[Candidate]], int]:
        """Returns the translations of each sentence, best first, and how many sentences were truncated.

        The translation of an empty sentence is empty.

        Args:
            settings: By default the run's own.
        """
        ids, truncated = self.ids(sentences)
        found = beam_search.translate(self.model, ids, settings or self.experiment.decoding)
        flat = [one for hypotheses in found for one in hypotheses]
        sources = [
            source for source, hypotheses in zip(self.prepare(sentences), found, strict=True) for _ in hypotheses
        ]
        texts = iter(hypothesis_texts(flat, sources, self.vocabularies, self.lexicon))
        return [[Candidate(next(texts), one.score) for one in hypotheses] for hypotheses in found], truncated

    def decoding_settings(self, beam: int | None) -> DecodingSettings:
        """The run's own decoding settings, with another beam size if one is given."""
        own = self.experiment.decoding
        return own if beam is None else replace(own, beam=beam)


def read_sentences(
    given: Sequence[str], files: Sequence[Path], stdin: TextIO, chunk: int = 1000
) -> Iterator[list[str]]:
    """Yields the sentences to translate, in chunks: from the command line, else from files, else from standard input.

    A terminal is read line by line, so that each line is answered at once.

    Raises:
        ValueError: a file is missing, or a line is not UTF-8 (the message has its number).
    """
    for file in files:
        if not file.is_file():
            raise ValueError(f"--file: there is no file {file}; check the path")
    if given and files:
        raise ValueError("--file: give sentences or files, not both")
    return _chunks(given, files, stdin, 1 if stdin.isatty() else chunk)


def _chunks(given: Sequence[str], files: Sequence[Path], stdin: TextIO, size: int) -> Iterator[list[str]]:
    if given:
        yield list(given)
        return
    for file in files or (None,):
        with open(file, "rb") if file else nullcontext(stdin.buffer) as stream:
            numbered, where = enumerate(stream, start=1), str(file or "standard input")
            while lines := [decode_line(raw, number, where) for number, raw in islice(numbered, size)]:
                yield lines


def load(store: Store, reference: str) -> TrainedTranslator:
    """Loads the translator of the run that `reference` names: see `find_run`.

    Raises:
        ValueError: there is no such run, it is not finished, or a file of its model is damaged.
    """
    run = find_run(store, reference)
    with tempfile.TemporaryDirectory() as temporary:
        folder = store.download_translator(run, Path(temporary))
        if folder is None:
            raise ValueError(
                f"run {run.id} ({run.name}) is {run.status} and has no weights; finish it, or choose a finished run"
            )
        try:
            return load_folder(folder)
        except ValueError as error:  # its paths are those of the copy
            raise ValueError(f"run {run.id} ({run.name}): {str(error).replace(f'{folder}/', '')}") from error


def load_folder(folder: Path) -> TrainedTranslator:
    """Loads a translator from the folder with its configuration, weights, vocabularies and lexicon.

    A model that was trained on a GPU is loaded on the CPU where there is no GPU. The folder may come from somebody
    else: no pickled object is loaded from it.

    Raises:
        ValueError: a file is damaged, or is not what it should be.
    """
    experiment = read_config(folder / "config.yaml")
    vocabularies = Vocabularies(
        vocabulary.load(folder / "source.vocabulary"), vocabulary.load(folder / "target.vocabulary")
    )
    torch.backends.cudnn.allow_tf32 = False  # as in its evaluation: machine.py
    model = experiment.build(len(vocabularies.source), len(vocabularies.target))
    path = folder / "weights.pt"
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"{path}: not the weights of {experiment.name}, or damaged: {reason}; restore the file, or run the job "
            "again"
        ) from error
    lexicon = Lexicon.load(folder / LEXICON) if experiment.decoding.replaces_unknown_words else None
    device = MachineSettings("cpu" if experiment.machine.accelerator == "cpu" else "auto").device
    return TrainedTranslator(experiment, vocabularies, model.to(device).eval(), lexicon)


def join_ensemble(translators: Sequence[TrainedTranslator]) -> TrainedTranslator:
    """Returns an ensemble of the models of several runs, with the settings of the first run.

    Raises:
        ValueError: the vocabularies differ, a model is an ensemble itself, or the first run's search needs attention
            and a model has none.
    """
    first = translators[0]
    for other in translators:
        name = other.experiment.name
        for side, own, its in zip(("source", "target"), first.vocabularies, other.vocabularies, strict=True):
            if own.hash != its.hash:
                raise ValueError(
                    f"{name}: an ensemble needs one {side} vocabulary; this one has sha256 {its.hash[:12]}, that of "
                    f"{first.experiment.name} {own.hash[:12]}; choose runs that were trained with the same one"
                )
        if other.experiment.members:
            raise ValueError(f"{name}: is an ensemble; name the runs of its members, which its tag `members` lists")
    model = Ensemble([one.model for one in translators]).to(first.model.device).eval()
    beam_search.check_attention(model, first.experiment.decoding)
    return replace(first, model=model)


NAMED = 10
"""Number of runs that an error message names."""


def find_run(store: Store, reference: str) -> TrackedRun:
    """Returns the run that `reference` names.

    A reference is a run id, `models:/NAME/VERSION`, `best:SUITE/ROW` (the row's run with the best validation score; of
    a suite with several directions `best:SUITE/ROW/DIRECTION`), or words that describe the run: its row, corpus,
    direction, preset, suite or seed, such as "lstm en-de s1". Of several runs that fit, it is the newest finished one.
    The name that MLflow shows works, too.

    Raises:
        ValueError: there is no such run; the message lists the newest finished runs.
    """
    if reference.startswith(MODELS_URI):
        return store.registered_run(reference)
    if reference.startswith(BEST):
        return _best_run(store, reference.removeprefix(BEST))
    runs = sorted(
        (run for suite in store.suites() for run in store.runs(suite)), key=lambda run: run.started, reverse=True
    )
    words = set(reference.split())
    named = [run for run in runs if reference in (run.id, run.name) or (words and words <= _words(run))]
    if not named:
        finished = (run for run in runs if run.status == "FINISHED")
        newest = ", ".join(islice(dict.fromkeys(described(run) for run in finished), NAMED)) or "none yet"
        raise ValueError(
            f"there is no run {reference!r} in {store.uri}; the newest finished ones: {newest}; or {BEST}SUITE/ROW"
        )
    return next((run for run in named if run.status == "FINISHED"), named[0])


def described(run: TrackedRun) -> str:
    """The words that describe a run: row, corpus, preset and seed."""
    return " ".join([*(run.tags.get(key, "") for key in ("row", "corpus", "preset")), f"s{run.tags.get('seed', '')}"])


def _words(run: TrackedRun) -> set[str]:
    """All words by which `find_run` finds a run."""
    return {run.tags.get(key, "") for key in ("direction", "suite")} | set(described(run).split())


def _best_run(store: Store, reference: str) -> TrackedRun:
    """The best run that SUITE/ROW or SUITE/ROW/DIRECTION names."""
    suite, _, rest = reference.partition("/")
    row, _, direction = rest.partition("/")
    if not suite or not row:
        raise ValueError(f"{BEST}{reference}: write {BEST}SUITE/ROW; suites: {', '.join(store.suites()) or 'none yet'}")
    finished = [run for run in store.runs(suite) if run.status == "FINISHED"]
    rows = list(dict.fromkeys(run.tags["row"] for run in finished))
    runs = [run for run in finished if run.tags["row"] == row]
    if not runs:
        raise ValueError(f"{BEST}{reference}: no finished run of that row; there are: {', '.join(rows) or 'none yet'}")
    directions = ", ".join(sorted({run.tags["direction"] for run in runs}))
    runs = [run for run in runs if direction in ("", run.tags["direction"])]
    if not runs:
        raise ValueError(f"{BEST}{reference}: no finished run of that direction; there are: {directions}")
    corpora = {run.tags["corpus"]: run for run in runs}
    if len({run.tags["direction"] for run in corpora.values()}) > 1:
        raise ValueError(
            f"{BEST}{reference}: trained in several directions, {directions}; add one, such as "
            f"{BEST}{suite}/{row}/{runs[0].tags['direction']}"
        )
    if len(corpora) > 1:
        choices = ", ".join(f"{corpus} (such as {run.id})" for corpus, run in corpora.items())
        raise ValueError(f"{BEST}{reference}: trained on several corpora, name a run: {choices}")
    newest = max(runs, key=lambda run: run.started)
    selection = Selection.of_tags(newest.tags)
    # Runs that another score or tokenizer selected, such as those of an earlier version, have no comparable score.
    same = [run for run in runs if Selection.of_tags(run.tags) == selection]
    return max(same, key=lambda run: (_rank(run, selection), run.started))


def _rank(run: TrackedRun, selection: Selection) -> tuple[float, ...]:
    """The rank of a run by its validation score; a run without one is below all others."""
    return selection.rank(run.metrics.get(selection.metric, math.nan), run.metrics.get("validation_loss"))
