"""The recommender from a simulated log to its report, through the command line's own parts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_rec.config import RecConfig
from trillium_rec.pipeline import run_rec
from trillium_rec.report_page import build_report, write_report

pytestmark = pytest.mark.e2e


def tiny(folder, *overrides):
    path = find_run_file("tiny", package="trillium_rec")
    return load_config(RecConfig, path, [f"output={folder}", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run of the preset, and its configuration."""
    config = tiny(tmp_path_factory.mktemp("rec") / "run")
    return config, run_rec(config)


def test_every_recommender_is_judged_on_every_user_with_valid_lists(finished):
    _, result = finished
    assert [each.name for each in result.evaluations] == [
        "popularity",
        "item-to-item",
        "sasrec",
        "lazy, codes aligned",
        "lazy, codes",
        "lazy, dense",
        "lazy, fused",
    ]
    n_users = result.data.counts["judged_users"]
    for each in result.evaluations:
        assert len(each.ranks) == n_users
        assert each.validity == 1.0


def test_the_same_command_again_computes_no_stage(finished):
    config, result = finished
    before = (result.folder / "run.json").read_text()
    again = run_rec(config)
    assert (result.folder / "run.json").read_text() == before
    assert [e.ranks.tolist() for e in again.evaluations] == [
        e.ranks.tolist() for e in result.evaluations
    ]


def test_another_folder_ends_in_the_same_bytes(finished, tmp_path):
    _, result = finished
    other = run_rec(tiny(tmp_path / "other"))
    names = ["evaluation.jsonl", "metrics.jsonl", "weights.json", "model/model.safetensors"]
    aligned = ["align/round_0/model/model.safetensors", "reward/model/model.safetensors"]
    for name in (*names, *aligned, "measures/aligned.json"):
        assert (other.folder / name).read_bytes() == (result.folder / name).read_bytes(), name


def test_other_validation_users_train_and_fuse_anew_all_that_they_decide(finished, tmp_path):
    _, result = finished
    folder = shutil.copytree(result.folder, tmp_path / "run")
    other = run_rec(tiny(folder, "evaluate.n_valid_users=20"))
    for name in ("train", "sasrec", "fuse"):
        before, after = result.stages[name], other.stages[name]
        assert before.input_hash != after.input_hash, name
        assert [each.inputs["valid_users"] for each in (before, after)] == ["2000", "20"]
        assert after.inputs["seed"] == "0"


def test_the_stages_of_a_run_are_those_that_it_asked_for(finished, tmp_path):
    _, result = finished
    folder = shutil.copytree(result.folder, tmp_path / "run")
    other = run_rec(tiny(folder, "align.n_beams=4"))
    names = {re.sub("pool_.*", "pool", name) for name in other.stages}
    assert names == {
        *("ids", "train", "sasrec", "reward", "judge", "pool", "measure_seed", "align_0"),
        *("measure_aligned", "fuse", "evaluate"),
    }
    pools = [{name for name in each.stages if name.startswith("pool_")} for each in (result, other)]
    assert [len(each) for each in pools] == [3, 3]
    assert not pools[0] & pools[1]
    bare = run_rec(tiny(folder, "align=null", "reward=null"))
    assert set(bare.stages) == {"ids", "train", "sasrec", "fuse", "evaluate"}
    assert set(run_rec(tiny(folder), until="ids").stages) == {"ids"}


def test_a_killed_training_goes_on_to_the_same_bytes(finished, tmp_path):
    _, result = finished
    command = [sys.executable, "-c", "from trillium.cli import main; main()", "rec", "train"]
    run = tmp_path / "run"
    with subprocess.Popen([*command, "tiny", f"output={run}"], stderr=subprocess.DEVNULL) as first:
        # Killed when the first epoch is on disk, or a little later.
        while first.poll() is None and not list(run.glob(".work/train-*/fit/state.pt")):
            with suppress(subprocess.TimeoutExpired):
                first.wait(timeout=0.005)
        os.kill(first.pid, signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL, "it ended before it could be killed"
    resumed = run_rec(tiny(run), until="train")
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (resumed.folder / name).read_bytes() == (result.folder / name).read_bytes(), name


def test_the_report_shows_recommendations_with_titles(finished):
    config, result = finished
    page = write_report(config, result).read_text()
    best = result.evaluations[-1]
    title = result.data.positive.catalogue.titles[int(best.lists[0, 0])]
    assert re.search(r"(Garden|Kitchen|Music|Sport|Travel|Science|Craft|Animals): \w+", title)
    assert title in page
    assert "Semantic ids" in page
    row = json.loads((result.folder / "evaluation.jsonl").read_text().splitlines()[-1])
    assert row["recall@10"]["mean"] == best.metrics["recall@10"].mean


def test_the_report_counts_test_items_that_their_user_took_before(finished):
    config, result = finished
    assert result.data.counts["test_targets_in_history"] == 0
    assert build_report(config, result).subtitle.endswith("users, full ranking, histories masked")
    test = result.data.split.test
    again = test.target.copy()
    again[:3] = [test.histories.of(row)[0] for row in range(3)]
    split = replace(result.data.split, test=replace(test, target=again))
    repeated = replace(result, data=replace(result.data, split=split))
    assert build_report(config, repeated).subtitle.endswith(
        "histories masked (and with them 3 of the test items, which all miss)"
    )


def test_the_load_of_the_experts_is_that_of_the_evaluation_whatever_ran_before(tmp_path):
    config = tiny(
        tmp_path / "run",
        "model.n_experts=4",
        "fit.n_epochs=1",
        "evaluate.with_sasrec=false",
        "align=null",
        "reward=null",
    )
    first = run_rec(config)
    assert [sum(load) for load in first.loads] == pytest.approx([1, 1])
    assert run_rec(config).loads == first.loads


def test_onerec_runs_through_the_same_stages_and_reports_the_load_of_its_experts(tmp_path):
    config = tiny(
        tmp_path / "run",
        "model={name: onerec, d_model: 16, d_head: 8, n_heads: 2, d_ff: 16, n_experts: 4,"
        " n_encoder_layers: 1, n_decoder_layers: 2, max_items: 10}",
        "fit.n_epochs=2",
        "evaluate.with_sasrec=false",
    )
    result = run_rec(config)
    assert result.evaluations[-1].name == "onerec, codes"
    assert result.evaluations[-1].validity == 1.0
    assert [len(load) for load in result.loads] == [4, 4]
    assert all(sum(load) == pytest.approx(1) for load in result.loads)
    assert "Share of tokens per expert" in write_report(config, result).read_text()


def test_ids_that_cannot_be_fitted_stop_the_run_with_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"ids\.codebook_size = 512: there are 200 items"):
        run_rec(tiny(tmp_path / "run", "ids.codebook_size=512"), until="ids")
