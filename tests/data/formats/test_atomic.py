"""Files that appear whole or not at all."""

import json

import pytest

from transframer.data.formats.atomic import write_json, write_text
from transframer.errors import DataError


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_json_in_a_folder_that_is_missing_and_in_one_that_cannot_be(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"a": [1, None]}
    with pytest.raises(DataError, match=r"a\.json: cannot be made"):
        write_json(tmp_path / "new" / "a.json" / "b.json", {})
