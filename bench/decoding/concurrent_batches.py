"""Batches of a search at the same time on a CPU.

A decoding step of one batch is many small operations, and threads that share each of them wait for each other at its
end. Two batches at the same time, each on half of the threads, wait less (docs/latency.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

AT_ONCE = 2
"""Batches at the same time. Python runs one thread at a time between the operations, so more would wait for it."""

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def map_batches(search: Callable[[Batch], Result], batches: Sequence[Batch], device: torch.device) -> list[Result]:
    """The results of `search` for each batch, in order.

    On a CPU with several threads, batches are searched `AT_ONCE` at a time, so `search` and the model must allow that.
    Elsewhere, and in autocast, which holds for one thread only, they are searched one at a time.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < AT_ONCE or len(batches) < AT_ONCE or torch.is_autocast_enabled("cpu"):
        return [search(batch) for batch in batches]
    inference = torch.is_inference_mode_enabled()

    def in_thread(batch: Batch) -> Result:
        with torch.inference_mode(inference):  # it holds for one thread only, too
            return search(batch)

    pool = ThreadPoolExecutor(AT_ONCE, "search", torch.set_num_threads, (threads // AT_ONCE,))
    try:
        return list(pool.map(in_thread, batches))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, the batches that wait are not searched
        torch.set_num_threads(threads)  # threads that start later would get the number of the pool's
