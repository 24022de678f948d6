"""What holds for the contrast sets of every language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bench.data.corpora._grammar.contrast import Contrast
from bench.data.corpus import Split


def check_balance(generated: Sequence[Contrast], train: Split) -> None:
    """Check that a fixed preference is right in half of the contrasts, and that none is in the training text."""
    assert len(generated) >= 150
    frequency = Counter(one.forms[0] for one in generated)
    forms = sorted(frequency)

    def half(preference: Callable[[str, str], float]) -> bool:
        """Whether choosing the translation with the smaller value is right in half of them; a tie counts half."""
        values = [(preference(one.right, one.forms[0]), preference(one.wrong, one.forms[1])) for one in generated]
        return sum((right < wrong) + 0.5 * (right == wrong) for right, wrong in values) == len(generated) / 2

    assert half(lambda text, form: forms.index(form))  # always the same form
    assert half(lambda text, form: len(text))  # the shorter one
    assert half(lambda text, form: len(text.split()))
    assert half(lambda text, form: -frequency[form])  # the more frequent one
    right, wrong = (Counter((one.distance, one.forms[i]) for one in generated) for i in (0, 1))
    assert right == wrong
    assert not {text for one in generated for text in (one.source, one.right)} & {*train.sources, *train.targets}
