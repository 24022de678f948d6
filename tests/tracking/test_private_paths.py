"""Text without paths of a machine and names of persons."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.tracking import private_paths
from bench.tracking.private_paths import public_command, public_json, public_setting, public_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OSError: /home/jane/runs/x.db: no space", "OSError: x.db: no space"),
        ("sqlite:////home/jane/runs/mlflow.db", "mlflow.db"),
        ("file:///home/jane/x/y", "y"),
        ("in /home/jane", "in FOLDER"),
        ("see http://me:secret@host:5000/a/b/c", "see http://host:5000/a/b/c"),
        ("and/or, 3 / 4, ./a/b/c, ../x/y/z, a/b/c", "and/or, 3 / 4, ./a/b/c, ../x/y/z, a/b/c"),
        ("[trial](#/experiments/1/runs/ab)", "[trial](#/experiments/1/runs/ab)"),
        ("mlflow-artifacts:/1/2/3", "mlflow-artifacts:/1/2/3"),
        ("<b>x</b>", "<b>x</b>"),
    ],
)
def test_paths_in_sentences(text: str, expected: str) -> None:
    assert public_text(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/jane doe/corpus/train.en", "train.en"),
        ("/home/jane", "FOLDER"),
        ("/data", "FOLDER"),
        ("runs", "runs"),
        ("['/home/jane doe/a.en', 'b.de']", "['a.en', 'b.de']"),
        ("[/home/jane doe/a.en,b.de]", "[a.en,b.de]"),
        ("[0.9, 0.98]", "[0.9, 0.98]"),
    ],
)
def test_settings(value: str, expected: str) -> None:
    assert public_setting(value) == expected


def test_commands() -> None:
    command = (
        """bench run '/home/jane doe/x/a.yaml' --corpus.train "['/c/d/a.en', '/c/d/a.de']" --seed=1 --out=/e/f/g"""
    )
    assert shlex.split(public_command(command)) == [
        "bench",
        "run",
        "a.yaml",
        "--corpus.train",
        "['a.en', 'a.de']",
        "--seed=1",
        "--out=g",
    ]
    for unchanged in ("bench suite  experiments/demo.yaml", "bench run 'a b.yaml'", "it's"):
        assert public_command(unchanged) == unchanged


def test_files() -> None:
    config = yaml.safe_dump(
        {"corpus": {"path": "/home/jane/c/d"}, "tracking": {"uri": "http://a:b@c", "folder": "runs"}}
    )
    assert yaml.safe_load(private_paths.public_file(config.encode(), "config.yaml")) == {
        "corpus": {"path": "d"},
        "tracking": {"uri": None, "folder": "runs"},
    }
    text = '{"data": [["\\n/home/jane/x.txt", 1.0]]}'
    assert json.loads(private_paths.public_file(text.encode(), "trials.json")) == {"data": [["\nx.txt", 1.0]]}
    for name, same in (("a.json", b'{"a":1}'), ("config.yaml", b"seed:  1"), ("x.npz", b"/a/b/c/d\xff")):
        assert private_paths.public_file(same, name) == same


WORDS = st.text(st.characters(categories=["L", "N"]), min_size=3)


@given(st.lists(WORDS, min_size=1), WORDS, WORDS)
def test_no_part_of_a_home_folder_remains(rest: list[str], person: str, word: str) -> None:
    person = f"{person}-{word}-owner"  # in no other part
    path = "/".join(["/home", person, *rest])
    for text in (
        public_text(f"cannot read {path}: {word}"),
        public_setting(path),
        public_setting(str([path, path])),
        public_command(shlex.join(["bench", "run", path, f"--out={path}"])),
        public_json(json.dumps({"reason": f"({path})"}, ensure_ascii=False)),
    ):
        assert person not in text
        assert "/home" not in text
