"""The finding in two generated sentences: what the paired tests say of the rows' BLEU, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from reports import formatting as f
from reports.context import Context, Row, Track

TEST = "paired approximate randomisation, Holm-corrected"
Any_ = TypeVar("Any_")


def sentences(context: Context) -> list[str]:
    """One paragraph a track."""
    named = len(context.tracks) > 1
    return [(f"{track.label}: " if named else "") + " ".join(_of(context, track)) for track in context.tracks]


def caveat(context: Context) -> str:
    """What the intervals and tests do not cover."""
    seeds = {len(cell.runs) for row in context.rows for cell in row.cells.values() if cell.runs}
    if not seeds:
        return ""
    if seeds == {1}:
        return (
            "One seed per row: intervals and tests cover the choice of test sentences, not that of the seed; "
            "another seed may change the order of close rows."
        )
    least, most = min(seeds), max(seeds)
    number = f.count(least, "seed") if least == most else f"{least} to {f.count(most, 'seed')}"
    return f"{number} per row: values are means, intervals cover seeds and test sentences."


def _of(context: Context, track: Track) -> list[str]:
    rows = context.scored(track)
    if not rows:
        return ["No row has a BLEU score yet; the reasons stand at the end."]
    best, others = rows[0], rows[1:]
    place = f"{track.test_set} of {track.corpus}"
    score = best.cells[track].number("bleu", track.test_set)
    assert score is not None
    ends = f.interval("bleu", score.low, score.high)
    result = f.value("bleu", score.value) + (f" ({ends})" if ends else "")
    if not others:
        return [f"Only {best.name} has a BLEU score on {place}, {result}: there is nothing to compare it with."]
    return [
        f"{best.name} has the highest BLEU on {place}, {result}{_standing(context, track, best, others)}.",
        *_cost(context, track, rows),
    ]


def _standing(context: Context, track: Track, best: Row, others: Sequence[Row]) -> str:
    tests = {row.id: context.comparison(track, best.id, row.id) for row in others}
    better = [row for row in others if (test := tests[row.id]) and test.verdict == "better"]
    same = [row for row in others if (test := tests[row.id]) and test.verdict == "identical"]
    level = [row for row in others if (test := tests[row.id]) and test.verdict == "no significant difference"]
    untested = [row for row in others if tests[row.id] is None]
    worst = max((t.adjusted for row in better if (t := tests[row.id]) and t.adjusted is not None), default=None)

    def against(row: Row) -> str:
        test = tests[row.id]
        assert test is not None
        p = f", {f.probability(test.adjusted)}" if test.adjusted is not None else ""
        return f"{row.name} ({f.difference('bleu', test.difference)}{p})"

    size = next((test.size for test in tests.values() if test), 0)
    how = f"{TEST} for {f.count(size, 'test')}"
    if len(better) == len(others) and worst is not None:
        return f", significantly above every other row: next is {against(others[0])}; {how}"
    parts = []
    if level:
        parts.append(f"not significantly above {f.listed([against(row) for row in level])}")
    if same:
        parts.append(f"with the same translations as {f.listed([row.name for row in same])}")
    if better and worst is not None:
        parts.append(f"significantly above {f.listed([row.name for row in better])} ({f.probability(worst)}; {how})")
    elif level:
        parts.append(f"so no row stands out ({how})")
    if untested:
        parts.append(f"not tested against {f.listed([row.name for row in untested])}")
    return ", " + "; ".join(parts) if parts else ""


def _cost(context: Context, track: Track, rows: Sequence[Row]) -> list[str]:
    flops = {row.id: row.cells[track].value("train_flops") for row in rows}
    costed = [row for row in rows if flops[row.id]]
    best = rows[0]
    if best not in costed or len(costed) < 2:
        return []
    second = next(row for row in costed if row is not best)
    own, other = flops[best.id] or 0.0, flops[second.id] or 1.0
    share = f"{f.ratio(own / other)} those of {second.name}"
    names = f.listed([row.name for row in efficient(costed, [flops[row.id] or 0.0 for row in costed])])
    return [
        f"It was trained with {f.quantity('train_flops', own)} FLOPs, {share}; no cheaper row reaches the BLEU of "
        f"{names} (the Pareto front, by the scores alone)."
    ]


def efficient(best_first: Sequence[Any_], costs: Sequence[float]) -> list[Any_]:
    """Of items ordered by score, the highest first, those that no better or equal one undercuts; the cheapest first."""
    front, cheapest = [], float("inf")
    for item, cost in zip(best_first, costs, strict=True):
        if cost < cheapest:
            front.append(item)
            cheapest = cost
    return front[::-1]
