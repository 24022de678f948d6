"""Removes from text what names a machine or a person: absolute paths, and user and password in addresses.

A path keeps its last part, /home/jane/corpus/train.en becoming train.en, so that settings and commands stay readable.
Of a path with one or two parts, such as a home folder, nothing is kept. Exports and reports show text in this form.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

PLACEHOLDER = "FOLDER"
"""What a short path becomes."""

_PART = r"""/[^\s/'"`,;:()\[\]{}<>|]+"""
_PATH = re.compile(rf"(?<![\w.:/#~<-])(?:(?:file|sqlite):/*(?=/))?({_PART}(?:{_PART})+)")
"""An absolute path inside a sentence, without spaces. Not matched: a relative path, the rest of a URL, #/fragments."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")

_PERSONAL_TAGS = ("mlflow.user", "mlflow.source.name")


def public_path(path: str) -> str:
    """The last part of an absolute path, or PLACEHOLDER if that might be the name of a person; others are unchanged."""
    if not path.startswith("/"):
        return path
    parts = PurePosixPath(path).parts[1:]
    return parts[-1] if len(parts) > 2 else PLACEHOLDER


def public_text(text: str) -> str:
    """A sentence without absolute paths and credentials. A path that contains spaces is found up to the first one."""
    return _CREDENTIALS.sub("", _PATH.sub(lambda found: public_path(found[1]), text))


def public_setting(text: str) -> str:
    """The value of a setting as text: a path, a list of paths, or anything else."""
    if text.startswith("/"):
        return public_path(text)
    if text.startswith("[") and "/" in text:
        try:
            return str(public_data(ast.literal_eval(text), public_setting))
        except (ValueError, SyntaxError):  # without quotation marks, as people type it
            return f"[{','.join(public_setting(part.strip()) for part in text.strip('[]').split(','))}]"
    return public_text(text)


def public_command(command: str) -> str:
    """A command line. It is returned as it is if it contains nothing private."""
    try:
        words = shlex.split(command)
    except ValueError:
        return public_text(command)
    shown = [_public_word(word) for word in words]
    return command if shown == words else shlex.join(shown)


def _public_word(word: str) -> str:
    flag, equals, value = word.partition("=")
    return f"{flag}={public_setting(value)}" if equals and flag.startswith("--") else public_setting(word)


def public_data(data: Any, public: Callable[[str], str] = public_text) -> Any:
    """Plain data (of JSON or YAML) in which every text is replaced by `public(text)`."""
    if isinstance(data, dict):
        return {key: public_data(value, public) for key, value in data.items()}
    if isinstance(data, list):
        return [public_data(value, public) for value in data]
    return public(data) if isinstance(data, str) else data


def public_json(text: str) -> str:
    """A JSON document without absolute paths. It is returned as it is if it has none, or is no JSON."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return public_text(text)
    shown = public_data(data)
    return text if shown == data else json.dumps(shown, indent=1, ensure_ascii=False)


def public_file(content: bytes, name: str) -> bytes:
    """The content of a file of a run without absolute paths. It is returned as it is if it has none.

    Args:
        name: Its name. In config.yaml the address of the store is removed, too; besides, only JSON is changed.
    """
    if name == "config.yaml":
        settings = yaml.safe_load(content)
        shown = public_data(settings, public_setting)
        if isinstance(shown, dict) and isinstance(tracking := shown.get("tracking"), dict):
            tracking["uri"] = None
        return content if shown == settings else yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).encode()
    if name.endswith(".json"):
        text = content.decode("utf-8", "replace")
        return content if (public := public_json(text)) == text else public.encode()
    return content


def public_params(params: Mapping[str, str]) -> dict[str, str]:
    """The params of a run without absolute paths and without the address of its store."""
    shown = {key: public_setting(value) for key, value in params.items()}
    return shown | ({"tracking.uri": "None"} if "tracking.uri" in shown else {})


def public_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run without the user, the path of the program, and absolute paths."""
    public = {"command": public_command, "reason": public_text, "mlflow.note.content": public_text}
    return {key: public.get(key, str)(value) for key, value in tags.items() if key not in _PERSONAL_TAGS}
