"""Where the corpora are published: addresses, sizes, hashes, licences and citations.

Every Hugging Face repository is pinned at a commit. Sizes and hashes are those of its Git LFS pointers, as its public
pages show them (commit, blob and blame pages, read on 2026-11-27); none was computed on a download, because the host
could not be reached where this table was written. A file that is not in the table has a hash that nobody has looked
up: `fetch` (_download.py) then compares the download with the hash that the host sends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.data.corpora._download import RemoteFile, fetch
from bench.system.files import cache_folder

HUB = "https://huggingface.co"
"""The environment variable HF_ENDPOINT replaces this address by that of a mirror, as in Hugging Face's own programs."""


@dataclass(frozen=True)
class Publication:
    """A published corpus.

    Attributes:
        name: Name of its folder in the cache.
        address: Address of the folder of its files.
        licence: What its publishers say about its use.
        citation: The paper that describes it.
        files: File -> size in bytes (None: unknown) and digest (None: unknown), for files whose digest is known.
    """

    name: str
    address: str
    licence: str
    citation: str
    files: Mapping[str, tuple[int | None, str | None]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the downloaded files."""
        return cache_folder(self.name)

    @property
    def terms(self) -> str:
        """Licence and citation in one line."""
        return f"licence: {self.licence}; cite: {self.citation}"

    def remote(self, file: str) -> RemoteFile:
        """A file with its address, its size and its digest."""
        size, digest = self.files.get(file, (None, None))
        address = self.address.replace(HUB, (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"), 1)
        return RemoteFile(f"{address}/{file}", digest, size)

    def provide(self, files: Sequence[str]) -> list[Path]:
        """The paths of files, downloaded if they are not there.

        Raises:
            ValueError: a download failed.
        """
        for file in files:
            fetch(self.remote(file), self.folder / file)
        return [self.folder / file for file in files]


def sha256(digest: str, size: int | None = None) -> tuple[int | None, str]:
    return size, f"sha256:{digest}"


WMT14 = Publication(
    name="wmt14",
    # Commit of 2024-04-03, "Convert dataset to Parquet (#8)". The commit that added de-en states a total of 818,467,512
    # bytes, which is the sum of the sizes of the five files with these hashes on the convert branch (commit 542030d).
    address=f"{HUB}/datasets/wmt/wmt14/resolve/b199e406369ec1b7634206d3ded5ba45de2fe696",
    licence="not stated (Hugging Face: unknown); its parts have terms of their own, see statmt.org/wmt14",
    citation="Bojar et al. 2014, Findings of the 2014 Workshop on Statistical Machine Translation",
    files={
        "de-en/train-00000-of-00003.parquet": sha256(
            "2bbe0f0c7d53a71dc9e22b8f5406b058da3bc0f587ebd1b04b0675020ec14dcb", 279527247
        ),
        "de-en/train-00001-of-00003.parquet": sha256(
            "94d02ee1d27bd31654e28676a0fb9c0beb485180edecc4a93bb8403919de70df", 264970514
        ),
        "de-en/train-00002-of-00003.parquet": sha256(
            "5192553dd3f9ec0ccb73387784ce2a3be0c407f539d61a30abecd692433dfed0", 272987200
        ),
        # Of the other 26 files of fr-en, no page with the pointer was found. All 30 have 7,776,517,237 bytes.
        "fr-en/train-00011-of-00030.parquet": sha256(
            "f47f540c00cb5d78e003b243c8a0025bdf7a2c720c0b5ee63f04d5c049c134ef", 241314516
        ),
        "fr-en/train-00022-of-00030.parquet": sha256(
            "cba68f677b05f094a28c3307b703f03c32f17b3fb4fe12cf454e0b0af8efdb16", 267480152
        ),
        "fr-en/train-00024-of-00030.parquet": sha256(
            "a0ca647e8e29f9de7fa89f48acaf6451419d894810825ba7bc41070b497d8364", 274199364
        ),
        "fr-en/train-00028-of-00030.parquet": sha256(
            "ede56cc034202b070e3635b0adfbd4cf67c413d41af6f5e9732b8255a388f599", 370163256
        ),
    },
)

IWSLT2017 = Publication(
    name="iwslt2017",
    # The repository's script does not run any more (datasets 4.0). Its files were converted on the branch
    # refs/convert/parquet; this is the commit of 2023-04-05, in which all pairs have the same layout.
    address=f"{HUB}/datasets/IWSLT/iwslt2017/resolve/022e1ac9e4e1a456146f82c4a32ef021b54f0077",
    licence="CC BY-NC-ND 4.0 (TED talks)",
    citation="Cettolo et al. 2017, Overview of the IWSLT 2017 Evaluation Campaign",
    files={
        "iwslt2017-en-de/iwslt2017-train.parquet": sha256(
            "39f518537ee06492a56f01366044454f14fd8dc50434f74181905dead0b4bd2a"
        ),
        "iwslt2017-en-de/iwslt2017-validation.parquet": sha256(
            "fdaa92327a2780b7c2bd44768870aafbd1fa4e3eda4312292319bf06088f059a"
        ),
        "iwslt2017-de-en/iwslt2017-train.parquet": sha256(
            "775169702cc226a66b768ab7f3fb22b744ce5a6e037b677e068a9d51c4af9fce"
        ),
        "iwslt2017-de-en/iwslt2017-validation.parquet": sha256(
            "6c4385add06f6d19de34978cc481e59a1f1b354ceaa2247101629f15c351b6f3"
        ),
        "iwslt2017-fr-en/iwslt2017-test.parquet": sha256(
            "c5b2976f771ee13c04c722f01ffa5c0b7821fc4a0143a80ee02545063af1c44c"
        ),
        "iwslt2017-zh-en/iwslt2017-train.parquet": sha256(
            "a190864d56b6fb8b2438fff0319ca925f9e0f7e7a25c87726ac2ccc6d404c909"
        ),
        "iwslt2017-en-zh/iwslt2017-train.parquet": sha256(
            "6188cfaa11f1648baeac2ed61e57d8a623a9e71e565a8bf4a62472bd0aa8f7f1"
        ),
        "iwslt2017-en-zh/iwslt2017-test.parquet": sha256(
            "e827818f42982b2f847af3701e1f2a7bc048ba152382b968f2d63e62d3dcf4b7"
        ),
        "iwslt2017-ja-en/iwslt2017-test.parquet": sha256(
            "6078380789d1cbf41a852bd580edab98c4860653512eb165211e6bd8bfecde02"
        ),
    },
)

OPUS100 = Publication(
    name="opus100",
    # Commit of 2024-02, "Convert dataset to Parquet (#5)".
    address=f"{HUB}/datasets/Helsinki-NLP/opus-100/resolve/95696bf5ec259450db818a5a5b2de705f38d1b91",
    licence="not stated (Hugging Face: unknown); its parts have terms of their own, see opus.nlpl.eu",
    citation="Zhang et al. 2020, Improving Massively Multilingual Neural Machine Translation; Tiedemann 2012, OPUS",
    files={
        "de-en/train-00000-of-00001.parquet": sha256(
            "496a8ce873740047105f4cc9b503c94f78e8446ad02b48d24d137b54cd8f4aec"
        ),
        "de-en/validation-00000-of-00001.parquet": sha256(
            "ae94b9183313ae36afca9c117e2be818de2700abaf57e1ad75d0111ffdcd8efe"
        ),
        "de-en/test-00000-of-00001.parquet": sha256("05913515e9dc8c11bc03570bd00ae5b551c32b03e07901369f91372ad63a3f11"),
        "en-fr/train-00000-of-00001.parquet": sha256(
            "ddd10852ab60339e51067ec15876ae1759e4e0bedf6fbba9e8a942a099a8bcc3", 141590671
        ),
        "en-fr/validation-00000-of-00001.parquet": sha256(
            "6698493d99a10056d89f88c2f64af16cb8614bb9c0bf879f1cb70dd3b507bfc3", 334050
        ),
        "en-fr/test-00000-of-00001.parquet": sha256(
            "6e5862c14744efb89cf4c807cf0fd1a5969249935f21a1d03f3fbdbc0fb81971", 327139
        ),
        "cs-en/train-00000-of-00001.parquet": sha256(
            "35d86712cc06db477d813d040130d990deff9314f9785caa4e82c651cdebe9de"
        ),
        "en-eu/train-00000-of-00001.parquet": sha256(
            "73cbe91e3405d44652cba506ff183ed5132f2d857e47d51d8641e30fbcb6cb52"
        ),
        "en-eu/test-00000-of-00001.parquet": sha256("50c54c226f2989ed35d4da5289275a7b8097197261b135bfa933a5fbf047421d"),
    },
)

# SHA-256 of each decompressed text (the bytes of a .gz also depend on the program that compressed it), computed by
# `gzip -dc FILE.gz | sha256sum` on a copy of that folder with the file names and dates of December 2017, when it was
# published. sacreBLEU's multi30k/2016 and multi30k/2017 are from the same repository; they were not compared.
MULTI30K_TEXTS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
    "test_2017_flickr.en": "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
    "test_2017_flickr.de": "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
    "test_2017_flickr.fr": "6f3764e31dac41e9455e612958bcfd4e877c5e15cd66df2c2b2be6d9bd83e5b6",
}

MULTI30K = Publication(
    name="multi30k",
    address="https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw",
    licence="for non-commercial research",
    citation="Elliott et al. 2016, Multi30K: Multilingual English-German Image Descriptions; Elliott et al. 2017",
    files={f"{text}.gz": (None, f"gunzip-sha256:{digest}") for text, digest in MULTI30K_TEXTS.items()},
)
