"""Test sets of sacreBLEU's registry, whose addresses and MD5 come with the package: newstest2014, IWSLT 2017, ..."""

from __future__ import annotations

import copy
import tarfile
import tempfile
import zlib
from pathlib import Path

from sacrebleu import SACREBLEU_DIR
from sacrebleu.dataset import DATASETS

from bench.data.corpora._download import RemoteFile, fetch, is_complete
from bench.data.corpora._reading import two_files
from bench.data.corpus import Split
from bench.system.files import cache_folder


def has_pair(name: str, source: str, target: str) -> bool:
    """Whether a test set of the registry has a direction."""
    return name in DATASETS and f"{source}-{target}" in DATASETS[name].langpairs


def archives(name: str, source: str, target: str) -> list[Path]:
    """The archives with both sides of a test set, downloaded if neither our cache nor sacreBLEU's has them.

    Raises:
        ValueError: a download failed.
    """
    dataset, members = DATASETS[name], DATASETS[name].langpairs[f"{source}-{target}"]
    # IWSLT has an archive for each side, named like its folder: en-de.tgz with en-de/...; WMT has one for all.
    folders = {member.partition("/")[0] for member in members}
    paths = []
    for url, md5 in zip(dataset.data, dataset.md5, strict=True):
        file = url.rpartition("/")[2]
        if len(dataset.data) > 1 and file.partition(".")[0] not in folders:
            continue
        remote, stored = RemoteFile(url, f"md5:{md5}"), f"{name.replace('/', '_')}.{file}"
        path = Path(SACREBLEU_DIR) / name / "raw" / stored
        if not is_complete(remote, path):
            path = cache_folder("sacrebleu") / stored
            fetch(remote, path)
        paths.append(path)
    return paths


def load(name: str, source: str, target: str) -> Split:
    """A test set, downloaded if it is not there, as `sacrebleu -t NAME -l SRC-TGT --echo src ref` prints it.

    Raises:
        ValueError: a download failed, or an archive has another content than the registry says.
    """
    paths, pair = archives(name, source, target), f"{source}-{target}"
    dataset = copy.copy(DATASETS[name])
    dataset.data, dataset.md5 = [], []  # sacreBLEU downloads nothing: it would use a file that was cut off
    with tempfile.TemporaryDirectory() as folder:
        dataset._outdir, dataset._rawdir = folder, f"{folder}/raw"
        try:
            for path in paths:
                with tarfile.open(path) as archive:
                    wanted = [file for file in archive if file.name.removeprefix("./") in dataset.langpairs[pair]]
                    archive.extractall(dataset._rawdir, wanted, filter="data")
            texts = dict(zip(dataset.fieldnames(pair), dataset.get_files(pair), strict=True))
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{' and '.join(map(str, paths))}: no test set {name} for {pair} ({error}); expected the archive of "
                "sacreBLEU's registry; delete it and run the same command again"
            ) from error
        return two_files(Path(texts["src"]), Path(texts["ref"]))
