"""What stands for a recorded CUDA graph where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable


def repeated(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function, and return it, so that to repeat the recording is to call it again."""
    function()
    return function
