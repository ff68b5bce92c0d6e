import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from trillium.cli import app as trillium_app
from trillium.errors import BackendError, ConfigError, DataError
from trillium_rec.cli import app
from trillium_rec.live_catalogue import current_revision, lock_catalogue, publish
from trillium_rec.metrics import ranks_of, recall
from trillium_rec.new_items import read_new_items
from trillium_rec.ranking import Request
from trillium_rec.served_run import ServedRun
from trillium_rec.splits import pack
from typer.testing import CliRunner

WIDTH = 64  # content numbers of the simulator's items


def write_items(folder, *entries):
    path = folder / "new.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).stdout


def recommend(served, live, history, k=50):
    request = Request(pack([np.array(history, np.int64)]), torch.from_numpy(live.ids.is_active))
    return served.recommender(live).recommend(request, k).items[0].tolist()


def test_a_new_item_is_recommended_where_its_like_is_and_old_codes_stay(own_run, tmp_path):
    served = ServedRun.open(own_run)
    before = served.catalogue()
    assert before.ids.revision == 0
    content = served.data.positive.catalogue.vectors
    assert content is not None
    history = served.data.split.test.histories.of(0).tolist()
    best = recommend(served, before, history)[0]
    path = write_items(
        tmp_path, {"id": "twin", "title": "A twin", "vector": content[best].tolist()}
    )
    shown = call("catalogue", "add", own_run, path)
    assert "revision 1: 201 active items, 0 hidden, 0 retired" in shown
    after = served.catalogue()
    assert after.ids.version == before.ids.version
    assert (after.ids.codes[:200] == before.ids.codes).all()
    assert after.titles[200] == "A twin"
    placed = after.space.vectors[200]
    nearest = np.square(after.ids.codebooks[0] - placed).sum(axis=1).argmin()
    assert after.ids.codes[200, 0] == nearest
    alone = after.with_state(after.ids.items[:200], "hidden")
    assert recommend(served, alone, history)[:2] == [200, -1]


def test_hidden_items_come_back_and_retired_ones_do_not(own_run):
    served = ServedRun.open(own_run)
    items = served.catalogue().ids.items
    listed = recommend(served, served.catalogue(), [])
    call("catalogue", "hide", own_run, items[listed[0]], items[listed[1]])
    assert not {listed[0], listed[1]} & set(recommend(served, served.catalogue(), []))
    call("catalogue", "unhide", own_run, items[listed[0]])
    assert listed[0] in recommend(served, served.catalogue(), [])
    shown = call("catalogue", "retire", own_run, items[listed[1]])
    assert "revision 3: 199 active items, 0 hidden, 1 retired" in shown
    assert call("catalogue", "show", own_run) == shown
    with pytest.raises(ConfigError, match="is retired and cannot become active"):
        call("catalogue", "unhide", own_run, items[listed[1]])
    assert current_revision(own_run) == 3


def test_what_cannot_be_done_is_one_sentence_and_leaves_the_catalogue_as_it_was(own_run, tmp_path):
    vector = [0.0] * WIDTH
    items = ServedRun.open(own_run).catalogue().ids.items
    clash = write_items(tmp_path, {"id": items[0], "vector": vector})
    with pytest.raises(ConfigError, match=f"item {items[0]}: is in the catalogue already"):
        call("catalogue", "add", own_run, clash)
    short = write_items(tmp_path, {"id": "n", "vector": [1.0]})
    with pytest.raises(ConfigError, match=f"item n: has content of 1 numbers, .* have {WIDTH}"):
        call("catalogue", "add", own_run, short)
    with pytest.raises(ConfigError, match="items nothing: are not in the catalogue"):
        call("catalogue", "hide", own_run, "nothing")
    with pytest.raises(ConfigError, match="none of 200 items would be active"):
        call("catalogue", "hide", own_run, *items)
    with pytest.raises(DataError, match="is no run of the recommender"):
        call("catalogue", "show", tmp_path)
    assert current_revision(own_run) == 0


def test_more_items_than_codes_are_refused_as_a_whole(own_run, tmp_path):
    room = 16**3 - 200
    entries = [{"id": f"n{n}", "vector": [float(n == 0)] * WIDTH} for n in range(room + 1)]
    path = write_items(tmp_path, *entries)
    with pytest.raises(ConfigError, match=r"all 4096 tuples of codes are taken \(200 items"):
        call("catalogue", "add", own_run, path)
    assert current_revision(own_run) == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", r"new\.jsonl:2: is not JSON"),
        ("7", r"new\.jsonl:2: holds 7 \(needs an object with id and text\)"),
        ('{"id": "x"}', r"new\.jsonl:2: item x needs a text or a vector, one of the two"),
        ('{"id": "x", "text": " "}', r"item x needs a text or a vector"),
        ('{"id": "x", "text": "t", "vector": [1]}', r"item x needs a text or a vector"),
        ('{"id": "", "text": "t"}', r"id is '' \(needs a text without white space around it\)"),
        ('{"id": 3, "text": "t"}', r"id is 3 \(needs a text\)"),
        ('{"id": "x", "vector": [NaN]}', r"vector holds nan \(needs finite numbers\)"),
        ('{"id": "x", "vector": [1e39]}', r"vector holds 1e\+39 \(needs finite numbers\); keep"),
        (f'{{"id": "x", "vector": [-1{"0" * 400}]}}', r"vector holds -10{38} \(needs finite numb"),
        ('{"id": "x", "id": "y", "text": "t"}', r"new\.jsonl:2: has the field 'id' twice"),
        ('{"id": "x", "text": "\\ud83d"}', r"new\.jsonl:2: holds \\ud83d, half of a character"),
        ("[" * 100_000, r"new\.jsonl:2: is nested too deeply to be read"),
        ('{"id": "x", "vector": ["1"]}', r"vector holds '1' \(needs numbers\)"),
        ('{"id": "x", "vector": []}', r"vector is '\[\]' \(needs a list of numbers\)"),
        ('{"id": "x", "txt": "t"}', r"has the key 'txt' \(known are id, title, text, vector\)"),
        ('{"id": "a", "text": "t"}', r"new\.jsonl:2: item a stands there twice"),
    ],
)
def test_a_bad_line_of_new_items_is_named(tmp_path, line, sentence):
    path = tmp_path / "new.jsonl"
    path.write_text('{"id": "a", "text": "t"}\n' + line + "\n")
    with pytest.raises(DataError, match=sentence):
        read_new_items(path)


@pytest.mark.parametrize("mark", ["\x85", "\u2028"])
def test_only_a_line_feed_ends_the_line_of_a_new_item(tmp_path, mark):
    path = tmp_path / "new.jsonl"
    path.write_text(f'{{"id": "a", "text": "one{mark}two"}}\n', encoding="utf-8")
    assert [item.text for item in read_new_items(path)] == [f"one{mark}two"]


def test_a_new_item_of_any_size_leaves_all_scores_finite(own_run, tmp_path):
    served = ServedRun.open(own_run)
    live = served.catalogue()
    large = read_new_items(write_items(tmp_path, {"id": "n", "vector": [3e38] * WIDTH}))
    grown = live.with_items(large)
    assert np.linalg.norm(grown.space.vectors[200]) == pytest.approx(1)
    request = Request(pack([np.array([0])]), torch.ones(201, dtype=torch.bool))
    assert served.recommender(grown).recommend(request, 50).scores.isfinite().all()
    endless = replace(large[0], vector=np.full(WIDTH, np.inf, np.float32))
    with pytest.raises(ConfigError, match="item n: its content is not finite"):
        live.with_items([endless])


def test_titles_that_are_damaged_are_one_sentence(own_run):
    served = ServedRun.open(own_run)
    with lock_catalogue(own_run):
        publish(own_run, served.catalogue().with_state([served.catalogue().ids.items[0]], "hidden"))
    titles = own_run / "catalogue" / "revision-1" / "titles.json"
    titles.write_text(titles.read_text()[:100])
    with pytest.raises(DataError, match=r"titles\.json: holds no titles"):
        served.catalogue()
    titles.write_text('["one"]')
    with pytest.raises(DataError, match="holds no list of 200 titles"):
        served.catalogue()


def test_a_run_without_content_says_that_new_items_have_no_place(own_run, tmp_path):
    live = ServedRun.open(own_run).catalogue()
    empty = np.zeros((0, 0), np.float32)
    blind = replace(live, space=replace(live.space, content_mean=empty, content_axes=empty))
    new = read_new_items(write_items(tmp_path, {"id": "n", "vector": [1.0]}))
    with pytest.raises(ConfigError, match="were fitted without content"):
        blind.with_items(new)
    with pytest.raises(ConfigError, match="came from a file, so no item can be added"):
        replace(live, space=None).with_items(new)


def test_an_aligned_model_recommends_by_its_codes_and_a_folder_without_one_is_named(
    finished_run, tmp_path
):
    aligned = ServedRun.open(finished_run, finished_run / "model")
    found = aligned.recommender(aligned.catalogue())
    assert found.name == "lazy, codes"
    history = aligned.data.split.test.histories
    everything = torch.ones(200, dtype=torch.bool)
    lists = found.recommend(Request(history, everything), 10).items.numpy()
    rows = (finished_run / "evaluation.jsonl").read_text().splitlines()
    codes = next(row for row in map(json.loads, rows) if row["name"] == "lazy, codes")
    ranks = ranks_of(lists, aligned.data.split.test.target)
    assert recall(ranks, 10).mean() == codes["recall@10"]["mean"]
    nothing = ServedRun.open(finished_run, tmp_path)
    with pytest.raises(DataError, match="holds no model"):
        nothing.recommender(nothing.catalogue())


def test_a_run_trained_again_does_not_take_the_old_catalogue(own_run):
    served = ServedRun.open(own_run)
    with lock_catalogue(own_run):
        publish(own_run, served.catalogue().with_state([served.catalogue().ids.items[0]], "hidden"))
    record = own_run / "ids" / "ids.json"
    entries = json.loads(record.read_text())
    record.write_text(json.dumps(entries | {"version": "another"}))
    with pytest.raises(DataError, match=r"was trained on version another since; move .*catalogue"):
        served.catalogue()


def test_a_publication_that_was_killed_leaves_the_old_revision_and_can_be_made_again(own_run):
    served = ServedRun.open(own_run)
    changed = served.catalogue().with_state([served.catalogue().ids.items[0]], "hidden")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "import trillium_rec.live_catalogue as c\n"
        "from trillium_rec.served_run import ServedRun\n"
        "run = Path(sys.argv[1]); live = ServedRun.open(run).catalogue()\n"
        "changed = live.with_state([live.ids.items[0]], 'hidden')\n"
        "c.sync_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with c.lock_catalogue(run): c.publish(run, changed)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(own_run)], check=False, env=os.environ
    )
    assert killed.returncode == -signal.SIGKILL
    assert (own_run / "catalogue" / "revision-1").is_dir()
    assert served.catalogue().ids.revision == 0
    with lock_catalogue(own_run):
        publish(own_run, changed)
    assert served.catalogue().ids.revision == 1
    assert int((served.catalogue().ids.states == 1).sum()) == 1


def test_a_full_disk_is_one_sentence_and_leaves_the_old_revision(own_run):
    served = ServedRun.open(own_run)
    changed = served.catalogue().with_state([served.catalogue().ids.items[0]], "hidden")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with lock_catalogue(own_run):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
        try:
            with pytest.raises(BackendError, match=r"ids\.safetensors: the disk or a quota"):
                publish(own_run, changed)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert served.catalogue().ids.revision == 0
        publish(own_run, changed)
    assert served.catalogue().ids.revision == 1


def test_the_command_line_ends_with_code_2_and_the_sentence(own_run):
    result = CliRunner().invoke(trillium_app, ["rec", "catalogue", "hide", str(own_run), "nothing"])
    assert result.exit_code == 2
    assert "items nothing: are not in the catalogue" in result.stderr
