"""Batches of a search at the same time on a CPU.

A decoding step of one batch is many small operations, and threads that share each of them wait for each other at its
end. Two batches at the same time, each on half of the threads, wait less (docs/latency.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from models.parts.translator import Translator

AT_ONCE = 2
"""Batches at the same time."""

LEAST_FLOPS = 50e6
"""FLOPs of a step from which on two batches at the same time are faster.

Between two operations Python's lock passes from one thread to the other, and with smaller steps that takes longer than
the operations.
"""

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def batches_at_once(model: Translator, hypotheses: int, source_length: int) -> int:
    """How many batches with so many hypotheses in all are searched at the same time: 1 or `AT_ONCE`.

    It is 1 on a GPU, with threads that cannot be shared equally, with small steps, and in autocast, which holds for one
    thread only.
    """
    if model.device.type != "cpu" or torch.get_num_threads() % AT_ONCE or torch.is_autocast_enabled("cpu"):
        return 1
    flops = (model.flops_step(source_length, 0) + model.flops_project()).forward * hypotheses
    return AT_ONCE if flops >= LEAST_FLOPS else 1


def map_batches(search: Callable[[Batch], Result], batches: Sequence[Batch], at_once: int) -> list[Result]:
    """The results of `search` for each batch, in order; `search` and the model must allow `at_once` calls at a time."""
    if at_once == 1:
        return [search(batch) for batch in batches]
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def in_thread(batch: Batch) -> Result:
        with torch.inference_mode(inference):  # it holds for one thread only
            return search(batch)

    pool = ThreadPoolExecutor(at_once, "search", torch.set_num_threads, (threads // at_once,))
    try:
        return list(pool.map(in_thread, batches))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, the batches that wait are not searched
        torch.set_num_threads(threads)  # threads that start later would get the number of the pool's
