"""Measures the preparation of a large corpus: sentences per second, memory, a kill in the middle, shared pages.

    python -m tests.helpers.large_corpus [PAIRS] [FOLDER]

It makes PAIRS (4,500,000) training pairs of the grammar, whose 6,000 pairs are repeated with numbers that differ, and
prepares them as a job does: text, vocabulary, encoding, statistics. It asserts no speed, because speed depends on the
machine.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.data.corpus import CorpusSettings
from bench.data.find_corpus import load

JOB = """
import sys, time
from pathlib import Path
from bench.experiment.loading import resolve
from bench.runs import job
def status(text): return next(l.split()[1] for l in open("/proc/self/status") if l.startswith(text))
import bench.experiment.job_data, sentencepiece, pandas
imported = int(status("VmHWM"))
begin = time.perf_counter()
from bench.data.corpus_stats import cached_stats
from bench.data import learn_vocabularies
from bench.experiment.job_data import JobData
experiment = resolve(Path("experiments/transformer.yaml"), flags=sys.argv[2:])
data = JobData.of(experiment)
learn_vocabularies.save_to_cache(data.vocabularies)
print(f"  text, vocabulary and encoding: {time.perf_counter() - begin:.1f} s", flush=True)
batch = next(iter(data.train.train_dataloader()))
print(f"  first batch after {time.perf_counter() - begin:.1f} s", flush=True)
if sys.argv[1] == "statistics":
    cached_stats(data.corpus, experiment.tracking.path / "corpus_stats")
    print(f"  with statistics: {time.perf_counter() - begin:.1f} s", flush=True)
print(f"  peak resident memory {(int(status('VmHWM')) - imported) / 1024:.0f} MB above {imported / 1024:.0f} MB of "
      f"the imports", flush=True)
if sys.argv[1] == "share":
    stream = iter(data.train.train_dataloader())
    for _ in range(300): next(stream)
    print("ready", flush=True)
    sys.stdin.read()
"""


def write_corpus(folder: Path, pairs: int) -> None:
    """Write the files train, val and test, each with the endings .en and .de."""
    corpus = load(CorpusSettings("grammar-en-de"))
    splits = {"train": corpus.train, "val": corpus.validation, "test": next(iter(corpus.tests.values()))}
    for split, text in splits.items():
        for language, sentences in (("en", list(text.sources)), ("de", list(text.targets))):
            count = pairs if split == "train" else len(sentences)
            with (folder / f"{split}.{language}").open("w", encoding="utf-8") as file:
                for begin in range(0, count, len(sentences)):
                    round_ = begin // len(sentences)
                    number = f" {round_ // 30} {round_ % 30}" if split == "train" else ""
                    file.writelines(f"{sentence}{number}\n" for sentence in sentences[: count - begin])


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 4_500_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        begin = time.perf_counter()
        write_corpus(folder, pairs)
        size = sum(path.stat().st_size for path in folder.glob("train.*")) / 1e6
        print(f"{pairs:,} pairs, {size:.0f} MB, written in {time.perf_counter() - begin:.0f} s", flush=True)
        flags = ["--corpus.name", "files", "--machine.threads", "2", "--tracking.folder", str(folder / "runs")]
        for split in ("train", "val", "test"):
            flags += [f"--corpus.{split}", f"[{folder}/{split}.en,{folder}/{split}.de]"]
        flags += ["--text.vocabulary_size", "2000"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}

        def job(kind: str, stdin: int | None = None, stdout: int | None = None) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", JOB, kind, *flags]
            return subprocess.Popen(command, env=environment, text=True, stdin=stdin, stdout=stdout)

        print("killed while it encodes:", flush=True)
        process, chunks = job("start"), list[Path]()
        while process.poll() is None and len(chunks) < max(1, pairs // 20_000 // 2):
            time.sleep(0.2)
            chunks = list((folder / "cache").glob("attention-ladder/encoded/.*.partial/chunk-*"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"  killed with {len(chunks)} chunks; continued, with the statistics:", flush=True)
        job("statistics").wait()
        print("second start:", flush=True)
        begin = time.perf_counter()
        job("start").wait()
        print(f"  whole process {time.perf_counter() - begin:.1f} s", flush=True)
        print("four processes at once:", flush=True)
        pipe = subprocess.PIPE
        processes = [job("share", stdin=pipe, stdout=pipe) for _ in range(4)]
        for each in processes:
            assert each.stdout
            while each.stdout.readline() not in ("ready\n", ""):
                pass
        for each in processes:
            rollup = Path(f"/proc/{each.pid}/smaps_rollup").read_text()
            sizes = {key: int(value) / 1024 for key, value in re.findall(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
            text = ", ".join(
                f"{key} {sizes[key]:.0f}" for key in ("Rss", "Pss", "Pss_Anon", "Pss_File", "Shared_Clean")
            )
            maps = Path(f"/proc/{each.pid}/smaps").read_text()
            arrays = re.findall(r"\.npy\n.*?Rss: +(\d+) kB\nPss: +(\d+) kB", maps, re.DOTALL)
            shared = [sum(int(found[column]) for found in arrays) / 1024 for column in (0, 1)]
            print(f"  process {each.pid}: {text} MB; of the mapped arrays Rss {shared[0]:.0f}, Pss {shared[1]:.0f} MB")
        for each in processes:
            each.communicate()


if __name__ == "__main__":
    main()
