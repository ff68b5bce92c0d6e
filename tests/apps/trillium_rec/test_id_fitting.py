import json

import pytest
from trillium.config import find_run_file, load_config
from trillium.errors import DataError
from trillium_rec.config import RecConfig
from trillium_rec.pipeline import run_rec

N_ITEMS = 200


def write_index(path, first):
    """Codes of two levels of 20; those of the first level begin at `first`."""
    codes = {str(n): [f"<a_{(n // 20 + first) % 20}>", f"<b_{n % 20}>"] for n in range(N_ITEMS)}
    path.write_text(json.dumps(codes))


def fit(folder, index):
    overrides = [f"output={folder}", f"ids.path={index}", "align=null", "reward=null"]
    path = find_run_file("tiny", package="trillium_rec")
    return run_rec(load_config(RecConfig, path, overrides), until="ids")


def test_ready_ids_are_read_again_when_their_file_has_changed_and_only_then(tmp_path):
    index = tmp_path / "x.index.json"
    write_index(index, 0)
    first = fit(tmp_path / "run", index)
    assert first.ids.codes[0].tolist() == [0, 0]
    index.write_text(json.dumps(json.loads(index.read_text()), indent=1))  # the same codes
    assert fit(tmp_path / "run", index).stages["ids"] == first.stages["ids"]
    write_index(index, 7)
    changed = fit(tmp_path / "run", index)
    assert changed.ids.codes[0].tolist() == [7, 0]
    assert changed.ids.version == fit(tmp_path / "other", index).ids.version != first.ids.version


def test_ready_ids_whose_file_has_gone_are_one_sentence(tmp_path):
    index = tmp_path / "x.index.json"
    write_index(index, 0)
    fit(tmp_path / "run", index)
    index.unlink()
    with pytest.raises(DataError, match=r"x\.index\.json: cannot be read .*give an \.index\.json"):
        fit(tmp_path / "run", index)
