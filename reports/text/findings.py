"""The finding in two generated sentences: the result of the paired tests on BLEU, and the training cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from bench.measures.comparison import Comparison, SeedSpread
from bench.measures.selection import CONSTANT_SCORE_TAG, Selection
from bench.system import formatting
from bench.tracking.reading import TrackedRun
from reports.gathering.context import Context, Row, Track
from reports.text import metric_format
from reports.text.catalogue import Catalogue

Item = TypeVar("Item")

OF_RESULT = (
    *("model.", "text.", "training.", "decoding."),
    *("corpus.pairs", "corpus.lemmas", "corpus.depth", "corpus.filters."),
)
"""Prefixes of the settings that determine a result, as in `Experiment.job_hash`, which a report does not import."""

HARMLESS_LEAK = 0.005
"""Share of a split up to which pairs that are also in the training data are no warning: they move its scores by less
than the choice of its sentences does. The table of the corpus has their number all the same.
"""

MAX_NAMED = 4
"""If there are more rows than this, the text has their number instead of their names."""


def sentences(context: Context) -> list[str]:
    """The finding: one paragraph of two sentences for each track."""
    named = len(context.tracks) > 1
    return [
        (f"{track.label}: " if named else "") + " ".join(_track_sentences(context, track)) for track in context.tracks
    ]


def caveat(context: Context) -> str:
    """How significance was tested, and what the intervals and tests do not cover."""
    say = context.catalogue
    lines = []
    tested = [test for test in context.comparisons if test.corrected is not None]
    if tested:
        sizes = sorted({test.corrected_for for test in tested})
        lines.append(say("caveat.tests", tests=say.count("test", sizes[-1], sizes[0])))
        if any(test.against != context.baseline for test in tested):
            lines.append(say("caveat.picked"))
        if found := [test.detectable or 0.0 for test in tested if test.against == context.baseline]:
            ends = dict.fromkeys(metric_format.value("bleu", end) for end in (min(found), max(found)))
            values = {"baseline": context.row(context.baseline).name, "range": "–".join(ends)}
            lines.append(say("caveat.detectable", **values))
    spreads = {test.track: test.spread for test in context.comparisons if test.spread}
    if spreads:
        several = len(context.tracks) > 1
        each = [f"{track} {_spread(say, of)}" if several else _spread(say, of) for track, of in spreads.items()]
        lines.append(say("caveat.spread", each="; ".join(each)))
        if any(not spread.equal for spread in spreads.values()):
            lines.append(say("caveat.unequal"))
    seeds = sorted({len(cell.runs) for row in context.rows for cell in row.cells.values() if cell.runs})
    if seeds == [1]:
        lines.append(say("caveat.one_seed"))
    elif seeds:
        lines.append(say("caveat.seeds", seeds=say.count("seed", seeds[-1], seeds[0])))
        if single := single_seed(context):
            few = len(single) <= MAX_NAMED
            lines.append(say("caveat.some", rows=say.listed(single) if few else say.count("row", len(single))))
    return " ".join(lines)


def _spread(say: Catalogue, spread: SeedSpread) -> str:
    """The pooled standard deviation between seeds, and those of single rows, so that a reader can judge the pooling."""
    numbers = {name: metric_format.value("bleu", getattr(spread, name)) for name in ("pooled", "lowest", "highest")}
    return say("caveat.spread_of", degrees=spread.degrees, **numbers)


def single_seed(context: Context) -> list[str]:
    """The rows with one seed; with the tracks, if they have more on another one."""
    found = []
    for row in context.rows:
        tracks = [track.label for track, cell in row.cells.items() if len(cell.runs) == 1]
        several = any(len(cell.runs) > 1 for cell in row.cells.values())
        if tracks:
            found.append(f"{row.name} ({', '.join(tracks)})" if several else row.name)
    return found


def paired_seeds(say: Catalogue, test: Comparison) -> str:
    """The seeds by which two rows are paired, if one of them has other seeds as well; else empty."""
    seeds = ", ".join(map(str, test.seeds))
    return say("tests.paired", seeds=seeds, total=test.total_seeds) if len(test.seeds) < test.total_seeds else ""


def warnings(context: Context) -> list[str]:
    """Reasons to doubt the comparison.

    They are seeds of one row with different settings, failed seeds beside finished ones, unequal tuning, test sentences
    that are also in the training data, exchanged languages, references that are too short for BLEU, validation scores
    that could not select weights, and BLEU with different tokenizers.
    """
    say, found = context.catalogue, []
    for row in context.rows:
        settings = {key: None for cell in row.cells.values() for key in _varying_settings([*cell.runs.values()])}
        if settings:
            found.append(say("warning.settings", row=row.name, settings=", ".join(settings)))
    failed = [
        f"{row.name}, {track.label}" if len(context.tracks) > 1 else row.name
        for row in context.rows
        for track, cell in row.cells.items()
        if cell.runs and any(state == "failed" for _, state, _ in cell.failures)
    ]
    if failed:
        found.append(say("warning.failed_seeds", rows="; ".join(failed)))
    if with_debt := [row for row in context.rows if context.tuned.get(row.id, {}).get("debt")]:
        rows = say.listed([f"{row.name} ({say.count('pair', context.tuned[row.id]['debt'])})" for row in with_debt])
        found.append(say("warning.debt", rows=rows))
    if unsearched := [row.name for row in context.rows if context.tuned.get(row.id, {}).get("no_search")]:
        found.append(say("warning.no_search", rows=say.listed(unsearched)))
    for track, corpus_stats in context.corpus_stats.items():
        sizes = {split["name"]: split["pairs"] for split in corpus_stats.get("splits", ())}
        for overlap in corpus_stats.get("overlaps", ()):
            if overlap["other_split"] == "train" and overlap["pairs"] > HARMLESS_LEAK * sizes[overlap["split"]]:
                pairs = say.count("pair", overlap["pairs"])
                found.append(say("warning.leak", corpus=track.corpus, split=overlap["split"], pairs=pairs))
        for side in corpus_stats.get("other_language", ()):
            found.append(say("warning.language", corpus=track.corpus, split=side["split"], language=side["language"]))
    for track in context.tracks:
        selection = context.selection(track)
        if selection.score != "bleu":
            found.append(say("warning.short", track=track.label))
        runs = [(row.name, run.tags) for row in context.rows for run in row.cells[track].runs.values()]
        constant = [name for name, tags in runs if tags.get(CONSTANT_SCORE_TAG)]
        other = [name for name, tags in runs if Selection.of_tags(tags).tokenizer != selection.tokenizer]
        values = {"track": track.label, "score": selection.label, "tokenizer": selection.tokenizer}
        for key, names in (("constant", constant), ("other_tokenizer", other)):
            if names:
                found.append(say(f"warning.{key}", rows=say.listed(list(dict.fromkeys(names))), **values))
    return list(dict.fromkeys(found))


def _varying_settings(runs: Sequence[TrackedRun]) -> list[str]:
    """The settings that determine a result and differ between these runs, if all of them have recorded it."""
    shared = set[str].intersection(*(set(run.params) for run in runs)) if runs else set[str]()
    return [key for key in sorted(shared) if key.startswith(OF_RESULT) and len({run.params[key] for run in runs}) > 1]


def _track_sentences(context: Context, track: Track) -> list[str]:
    """The sentences of one track: the highest BLEU and its tests, and the cost."""
    say, rows = context.catalogue, context.scored(track)
    if not rows:
        return [say("finding.nothing")]
    best, others = rows[0], rows[1:]
    test_set = f"{track.corpus} ({track.test_set})"
    score = best.cells[track].number("bleu", track.test_set)
    assert score is not None
    ends = metric_format.interval("bleu", score.low, score.high)
    result = metric_format.value("bleu", score.value) + (f" ({ends})" if ends else "")
    if not others:
        return [say("finding.alone", row=best.name, test_set=test_set, score=result)]
    standing = _standing(context, track, best, others)
    return [
        say("finding.best", row=best.name, test_set=test_set, score=result, standing=standing),
        *_cost(say, track, rows),
    ]


def _standing(context: Context, track: Track, best: Row, others: Sequence[Row]) -> str:
    """The part of the sentence that compares the highest row with the others.

    "Significantly" is said only of rows with enough seeds. Of the others it says which score is higher on these
    sentences.
    """
    say = context.catalogue
    tests = {row.id: test.reversed() for row in others if (test := context.comparison(track, row.id, best.id))}

    def with_verdict(verdict: str) -> list[Row]:
        return [row for row in others if row.id in tests and tests[row.id].verdict == verdict]

    def difference(row: Row) -> str:
        test = tests[row.id]
        return f"{metric_format.difference('bleu', test.difference)} {paired_seeds(say, test)}".strip()

    def against(row: Row) -> str:
        corrected = tests[row.id].corrected
        p = [] if corrected is None else [formatting.p_equals(corrected)]
        return f"{row.name} ({', '.join([difference(row), *p])})"

    better, level, same = with_verdict("better"), with_verdict("no significant difference"), with_verdict("identical")
    below = with_verdict("worse")  # possible if the best row has seeds that the other row does not have
    unproven = with_verdict("too few seeds")
    untested = [row for row in others if row.id not in tests]
    if len(better) == len(others):
        if len(others) == 1:
            return say("standing.above", rows=against(others[0]))
        return say("standing.above_all", row=against(others[0]), p=_p_of_all(say, [tests[row.id] for row in better]))
    parts = []
    if len(better) == 1:
        parts.append(say("standing.above", rows=against(better[0])))
    elif len(better) > MAX_NAMED:
        p = _p_of_all(say, [tests[row.id] for row in better])
        parts.append(say("standing.above_many", number=len(better), total=len(others), p=p))
    elif better:
        p = _p_of_all(say, [tests[row.id] for row in better])
        parts.append(say("standing.above", rows=f"{say.listed([row.name for row in better])} ({p})"))
    if level:
        key = "standing.but_not_above" if better else "standing.not_above"
        parts.append(say(key, rows=say.listed([against(row) for row in level])))
    if below:
        key = "standing.but_below" if parts else "standing.below"
        parts.append(say(key, rows=say.listed([against(row) for row in below])))
    if unproven:
        seeds = say(f"seeds.{min(len(tests[row.id].seeds) for row in unproven)}")
        if parts or any(tests[row.id].difference <= 0 for row in unproven):  # one may be ahead over the common seeds
            parts += _on_these_sentences(say, unproven, tests, seeds)
        else:
            parts.append(say("standing.highest", row=f"{unproven[0].name} ({difference(unproven[0])})", seeds=seeds))
    if same:
        parts.append(say("standing.same", rows=say.listed([row.name for row in same])))
    if untested:
        parts.append(say("standing.untested", rows=say.listed([row.name for row in untested])))
    return ", ".join(parts)


def _on_these_sentences(say: Catalogue, rows: Sequence[Row], tests: Mapping[str, Comparison], seeds: str) -> list[str]:
    """What is said of rows with too few seeds beside rows that were tested."""
    higher = [row.name for row in rows if tests[row.id].difference > 0]
    others = [row.name for row in rows if tests[row.id].difference <= 0]
    named = {"standing.higher": higher, "standing.not_higher": others}
    return [say(key, rows=say.listed(names), seeds=seeds) for key, names in named.items() if names]


def _p_of_all(say: Catalogue, tests: Iterable[Comparison]) -> str:
    """The upper bound of the corrected p of all tests."""
    return say(
        "standing.all", p=formatting.p_at_most(max(test.corrected for test in tests if test.corrected is not None))
    )


def _cost(say: Catalogue, track: Track, rows: Sequence[Row]) -> list[str]:
    """The cost of the highest score compared with that of the second highest, and the rows on the Pareto front."""
    flops = {row.id: row.cells[track].value("train_flops") or 0.0 for row in rows}
    costed = [row for row in rows if flops[row.id]]
    if rows[0] not in costed or len(costed) < 2:
        return []
    best, second = costed[:2]
    scores = [row.cells[track].value("bleu", track.test_set) or 0.0 for row in costed]
    front = pareto_front(costed, scores, [flops[row.id] for row in costed])
    return [
        say(
            "finding.cost",
            flops=metric_format.value("train_flops", flops[best.id]),
            compared=say.compared(flops[best.id], flops[second.id], second.name),
            front=say("finding.cheapest")
            if len(front) == 1
            else say("finding.front", rows=say.listed([row.name for row in front])),
        )
    ]


def pareto_front(items: Sequence[Item], scores: Sequence[float], costs: Sequence[float]) -> list[Item]:
    """The Pareto front, the cheapest first: items without another item of at least the same score at lower cost."""
    front, cheapest = [], float("inf")
    for n in sorted(range(len(items)), key=lambda n: (-scores[n], costs[n])):
        if costs[n] < cheapest:
            front.append(items[n])
            cheapest = costs[n]
    return front[::-1]
