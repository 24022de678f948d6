"""The published corpora, fetched from a local server with files of their layout. The real hosts were never asked."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu.dataset

from bench.cli.main import main
from bench.data import find_corpus
from bench.data.corpora import _published, _test_sets, iwslt2017, multi30k, opus100, wmt14
from bench.data.corpora._published import Publication
from bench.data.corpus import CorpusSettings
from bench.data.find_corpus import fetch, load
from tests.helpers.file_server import FileServer, serving

NAMES = {wmt14: "WMT14", iwslt2017: "IWSLT2017", opus100: "OPUS100"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "HTTP_PROXY", "MULTI30K"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_test_sets, "SACREBLEU_DIR", str(tmp_path / "sacrebleu"))
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hub/")
        yield server


def parquet(source: str, target: str, *pairs: tuple[str, str]) -> bytes:
    """A file with one struct, `translation`, as in wmt/wmt14, Helsinki-NLP/opus-100 and the converted iwslt2017."""
    with io.BytesIO() as file:
        rows = [{source: left, target: right} for left, right in pairs]
        pq.write_table(pa.table({"translation": rows}), file)
        return file.getvalue()


def publish(
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    files: Mapping[str, bytes],
    pinned: bool = True,
) -> Publication:
    """Serve files of a publication as Hugging Face does: an address with a commit redirects to another host."""
    name = NAMES[module]
    own: Publication = getattr(_published, name)
    digests = {file: _published.sha256(hashlib.sha256(content).hexdigest()) for file, content in files.items()}
    changed = replace(own, files=digests if pinned else {})
    monkeypatch.setattr(module, name, changed)
    folder = own.address.removeprefix("https://huggingface.co")
    for file, content in files.items():
        headers = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        server.redirects[f"/hub{folder}/{file}"] = (302, headers, f"{server.url}/lfs/{file}?signature=1")
        server.files[f"/lfs/{file}?signature=1"] = content
    return changed


def publish_test_set(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, name: str, pair: str, sides: tuple[list[str], list[str]]
) -> None:
    """Serve a test set in the layout of sacreBLEU's registry, and enter its address and MD5 there."""
    own, archives = sacrebleu.dataset.DATASETS[name], dict[str, bytes]()
    for member, lines in zip(own.langpairs[pair], sides, strict=True):
        segments = "".join(f'<seg id="{n}"> {line} </seg>\n' for n, line in enumerate(lines, start=1))
        text = f'<srcset setid="x">\n<doc sysid="ref" docid="d" genre="news" origlang="en">\n{segments}</doc>\n'
        archive = f"{member.partition('/')[0]}.tgz" if len(own.data) > 1 else own.data[0].rpartition("/")[2]
        archives.setdefault(archive, b"")
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w:gz") as packed:
                if archives[archive]:
                    with tarfile.open(fileobj=io.BytesIO(archives[archive])) as before:
                        for info in before:
                            packed.addfile(info, before.extractfile(info))
                info = tarfile.TarInfo(member)
                info.size = len(text.encode())
                packed.addfile(info, io.BytesIO(text.encode()))
            archives[archive] = file.getvalue()
    urls = []
    for archive, content in archives.items():
        server.files[f"/sets/{name}/{archive}"] = content
        urls.append(f"{server.url}/sets/{name}/{archive}")
    monkeypatch.setattr(own, "data", urls)
    monkeypatch.setattr(own, "md5", [hashlib.md5(content).hexdigest() for content in archives.values()])


def test_wmt14_is_fetched_at_the_first_use(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(
        server,
        monkeypatch,
        wmt14,
        {
            f"de-en/train-0000{n}-of-00003.parquet": parquet("de", "en", (f"Satz {n}.", f"Sentence {n}."))
            for n in range(3)
        },
    )
    publish_test_set(server, monkeypatch, "wmt13", "en-de", (["A house .", "A  car"], ["Ein Haus .", "Ein Auto"]))
    publish_test_set(server, monkeypatch, "wmt14/full", "en-de", (["One.", "Two."], ["Eins.", "Zwei."]))
    corpus = load(CorpusSettings("wmt14-en-de"))
    assert list(corpus.train) == [(f"Sentence {n}.", f"Satz {n}.") for n in range(3)]
    assert list(corpus.validation) == [
        ("A house .", "Ein Haus ."),
        ("A car", "Ein Auto"),
    ]  # spaces as sacreBLEU has them
    assert list(corpus.tests) == ["newstest2014"]
    assert list(corpus.tests["newstest2014"]) == [("One.", "Eins."), ("Two.", "Zwei.")]
    count = len(server.requests)
    assert count == 2 * 3 + 2
    assert load(CorpusSettings("wmt14-en-de")) == corpus
    assert len(server.requests) == count
    assert sum(map(len, find_corpus.files(CorpusSettings("wmt14-en-de")).values())) == 3 + 2
    assert fetch("wmt14-en-de")[0] == wmt14.WMT14.folder
    assert len(server.requests) == count


def test_iwslt2017_has_the_test_set_of_the_campaign_first(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"iwslt2017-ko-en/iwslt2017-{split}.parquet": parquet("ko", "en", (f"{split} 하나.", f"{split} one."))
        for split in ("train", "validation", "test")
    }
    publish(server, monkeypatch, iwslt2017, files, pinned=False)
    publish_test_set(server, monkeypatch, "iwslt17", "ko-en", (["하나.", "둘."], ["One.", "Two."]))
    corpus = load(CorpusSettings("iwslt2017-ko-en"))
    assert list(corpus.train) == [("train 하나.", "train one.")]
    assert list(corpus.tests) == ["tst2017", "test"]
    assert list(corpus.tests["tst2017"]) == [("하나.", "One."), ("둘.", "Two.")]
    assert list(corpus.tests["test"]) == [("test 하나.", "test one.")]
    assert (
        sum(map(len, find_corpus.files(CorpusSettings("iwslt2017-ko-en")).values())) == 3 + 2
    )  # en-ko.tgz has the references
    record = iwslt2017.IWSLT2017.folder / "iwslt2017-ko-en" / "iwslt2017-train.parquet.sha256"
    assert record.read_text().startswith(hashlib.sha256(files["iwslt2017-ko-en/iwslt2017-train.parquet"]).hexdigest())


def test_the_archive_in_the_folder_of_sacrebleu_is_used(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_test_set(server, monkeypatch, "wmt14/full", "en-fr", (["One."], ["Un."]))
    stored = tmp_path / "sacrebleu" / "wmt14/full" / "raw" / "wmt14_full.test-full.tgz"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(server.files["/sets/wmt14/full/test-full.tgz"][:50])  # interrupted: sacreBLEU would use it
    assert list(_test_sets.load("wmt14/full", "en", "fr")) == [("One.", "Un.")]
    assert len(server.requests) == 1
    stored.write_bytes(server.files["/sets/wmt14/full/test-full.tgz"])
    (tmp_path / "cache" / "attention-ladder" / "sacrebleu" / "wmt14_full.test-full.tgz").unlink()
    assert list(_test_sets.load("wmt14/full", "en", "fr")) == [("One.", "Un.")]
    assert len(server.requests) == 1


def test_a_test_set_is_what_sacrebleu_prints(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["  Two  spaces &amp; more ", "«Un» été", "tab\there"]
    publish_test_set(server, monkeypatch, "wmt13", "en-fr", (lines, lines))
    ours = _test_sets.load("wmt13", "en", "fr")
    dataset = sacrebleu.dataset.DATASETS["wmt13"]
    monkeypatch.setattr(dataset, "_outdir", str(tmp_path / "own"))
    monkeypatch.setattr(dataset, "_rawdir", str(tmp_path / "own" / "raw"))
    with tarfile.open(fileobj=io.BytesIO(server.files["/sets/wmt13/test.tgz"])) as archive:
        archive.extractall(tmp_path / "own" / "raw", filter="data")
    monkeypatch.setattr(dataset, "data", [])
    texts = [Path(file).read_text().splitlines() for file in dataset.get_files("en-fr")[:2]]  # source, reference
    assert [ours.sources, ours.targets] == texts
    assert texts[0] == ["Two spaces &amp; more", "«Un» été", "tab here"]


def test_opus100_is_found_in_both_directions(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"en-fr/{split}-00000-of-00001.parquet": parquet("en", "fr", (f"{split} one.", f"{split} un."))
        for split in ("train", "validation", "test")
    }
    publish(server, monkeypatch, opus100, files)
    assert list(load(CorpusSettings("opus100-fr-en")).tests["test"]) == [("test un.", "test one.")]
    assert list(load(CorpusSettings("opus100-en-fr")).validation) == [("validation one.", "validation un.")]
    with pytest.raises(ValueError, match=r"de-en/train-00000-of-00001\.parquet: the server answers 404 Not Found"):
        load(CorpusSettings("opus100-en-de"))


def test_multi30k_is_downloaded_to_the_cache_folder(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {name: f"{name} one\n{name} two\n".encode() for name in _published.MULTI30K_TEXTS}
    server.files = {f"/{name}.gz": gzip.compress(text, mtime=0) for name, text in texts.items()}
    digests = {
        f"{name}.gz": (None, f"gunzip-sha256:{hashlib.sha256(text).hexdigest()}") for name, text in texts.items()
    }
    monkeypatch.setattr(multi30k, "MULTI30K", replace(multi30k.MULTI30K, address=server.url, files=digests))
    corpus = load(CorpusSettings("multi30k-en-fr"))
    assert list(corpus.tests) == ["test_2016_flickr", "test_2017_flickr"]
    assert list(corpus.train) == [("train.en one", "train.fr one"), ("train.en two", "train.fr two")]
    assert len(server.requests) == 8
    assert fetch("multi30k")[0] == tmp_path / "cache" / "attention-ladder" / "multi30k"
    assert len(server.requests) == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wmt14", "wmt14 has the directions en-de, de-en, en-fr and fr-en"),
        ("wmt14-de-fr", "wmt14 has the directions"),
        ("wmt14-en-cs", "wmt14 has the directions"),
        (
            "iwslt2017-de-fr",
            "iwslt2017 has English with ar, de, fr, ja, ko, zh, and the directions among en, it, nl, ro",
        ),
        ("iwslt2017-en-en", "iwslt2017 has English with"),
        ("opus100-de-fr", "opus100 has English with 99 languages"),
        ("multi30k-en-cs", "multi30k can be fetched for en, de and fr"),
        (
            "grammar-en-de",
            "there is nothing to fetch for 'grammar-en-de'; corpora that can be fetched: iwslt2017, multi30k",
        ),
        ("nothing", "there is nothing to fetch for 'nothing'"),
        ("wmt14-en", "is not NAME-SRC-TGT"),
    ],
)
def test_a_direction_that_is_not_published_is_one_line(server: FileServer, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fetch(name)
    assert server.requests == []


FAULTS = [
    ("interrupted", "bytes are missing); run the same command again to resume"),
    ("wrong hash", "the file was deleted; run the same command again"),
    ("404", "the server answers 404 Not Found; expected the file"),
    ("429", "the server answers 429 Too Many Requests; wait 900 s, as it asks, and run the same command again"),
    ("not there", "the download failed"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_each_fault_is_one_line_and_leaves_no_file(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    message: str,
) -> None:
    files = {
        f"de-en/{split}-00000-of-00001.parquet": parquet(
            "de", "en", *[(f"Satz {n}.", f"Sentence {n}.") for n in range(99)]
        )
        for split in ("train", "validation", "test")
    }
    publish(server, monkeypatch, opus100, files)
    good = dict(server.files)
    match fault:
        case "interrupted":
            server.max_bytes = 100
        case "wrong hash":
            server.files = {path: content[:-1] + b"2" for path, content in server.files.items()}
        case "404":
            server.files = {}
        case "429":
            server.faults = [(429, {"Retry-After": "900"})]
        case _:
            monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert main(["data", "fetch", "opus100-de-en"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    server.files, server.max_bytes = good, None
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hub")
    assert main(["data", "fetch", "opus100-de-en"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [opus100.OPUS100.terms, str(opus100.OPUS100.folder)]
    for file, content in files.items():
        assert (opus100.OPUS100.folder / file).read_bytes() == content


@pytest.mark.parametrize(
    "publication", [_published.WMT14, _published.IWSLT2017, _published.OPUS100, _published.MULTI30K]
)
def test_the_table_has_well_formed_digests(publication: Publication) -> None:
    for file, (size, digest) in publication.files.items():
        assert digest, file
        kind, _, value = digest.partition(":")
        assert kind in ("sha256", "gunzip-sha256"), file
        assert len(bytes.fromhex(value)) == 32, file
        assert size is None or size > 1000, file
    assert publication.address.startswith("https://")
