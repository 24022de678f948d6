"""The database of studies."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from bench.sweep.storage import open_storage
from tests.helpers import tracking_folder


@pytest.mark.parametrize("name", ["my%20project", "50% what?", "c# & own's 日本"])
def test_every_legal_file_name_is_that_of_a_tracking_folder(name: str, tmp_path: Path) -> None:
    folder = tracking_folder.create(tmp_path / name)
    optuna.create_study(storage=open_storage(None, folder), study_name="own's 100%")
    assert optuna.get_all_study_names(open_storage(None, folder)) == ["own's 100%"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
