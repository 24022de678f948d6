"""Text as LaTeX."""

from __future__ import annotations

import pytest

from reports.text import escaping
from tests.helpers import synthetic_runs

pytestmark = synthetic_runs.quiet_mlflow


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("a & b_c 5% #1 {x} $", r"a \& b\_c 5\% \#1 \{x\} \$"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("1.2\u00a0×\u00a010¹²", r"1.2~$\times$~10$^{12}$"),
        ("1.0–2.0 −3 —", "1.0--2.0 $-$3 ---"),
        ("a--b ''c''", r"a-{}-b '{}'c'{}'"),
        ("Tür", "Tür"),
        ("[a] *b", "{[}a{]} {*}b"),
        ("p ≤ 1", r"p $\leq$ 1"),
        ("א😀", r"\other{05D0}{א}\other{1F600}{😀}"),
        ("one\n two\x00", r"one  two\other{2400}{␀}"),
        ("a\u202eb\ufffe", "a\\other{FFFD}{\ufffd}b\\other{FFFD}{\ufffd}"),
    ],
)
def test_latex_escaping(text: str, latex: str):
    assert escaping.latex(text) == latex
