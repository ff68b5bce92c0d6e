"""The alignment experiment from a run file to its table, and again without computing anything."""

import json
from io import StringIO

import pytest
from rich.console import Console
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_rec.alignment.ablation import AblationConfig, run_ablation
from trillium_rec.alignment.ablation_report import write_results
from trillium_rec.alignment.ablation_table import render_table, tabulate

pytestmark = pytest.mark.e2e

SMALL = (
    "seeds=[3]",
    "arms=[rerank, ipa, s_dpo, grpo]",
    "run.data.source.preset=tiny",
    "run.ids.codebook_size=16",
    "run.model={name: lazy, d_model: 16, d_ff: 32, max_items: 10}",
    "run.fit={n_epochs: 2, eval_every: 2, warmup_steps: 5}",
    "run.reward.heads=[{column: watch_s}, {column: view, at_least: 1}]",
    "run.reward.d_model=16",
    "run.reward.fit={n_epochs: 2, eval_every: 1, warmup_steps: 5}",
    "run.align={n_rounds: 1, n_beams: 6, share: 0.5, n_session: 3}",
)


def small(folder, *overrides):
    path = find_run_file("alignment", package="trillium_rec")
    return load_config(AblationConfig, path, [f"output={folder}", *SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = small(tmp_path_factory.mktemp("ablation"), "run.reward.min_auc_gain=-1")
    return config, run_ablation(config)


def test_every_arm_is_measured_on_the_same_users_and_judged(finished):
    _, results = finished
    measured = results[3].measured
    assert list(measured) == ["seed", "rerank", "ipa", "s_dpo", "grpo"]
    assert len({each.users for each in measured.values()}) == 1
    assert all(each.totals["validity"] == 1.0 for each in measured.values())
    # Re-ranking chooses by the reward model among the seed model's sessions: never below it.
    best, likeliest = (measured[name].values["reward"] for name in ("rerank", "seed"))
    assert all(b >= a - 1e-6 for a, b in zip(likeliest, best, strict=True))
    assert measured["ipa"].values["judge"] != measured["seed"].values["judge"]
    assert len(results[3].rounds["ipa"]) == 1


def test_the_table_and_the_files_say_what_was_found(finished):
    config, results = finished
    rows = tabulate(results)
    table = render_table(rows, results)
    assert table.row_count == 5
    narrow = Console(width=80, file=StringIO())
    narrow.print(table)
    assert "…" not in narrow.file.getvalue()
    page = write_results(config, results).read_text()
    assert "Conditions of the rule" in page
    found = json.loads((config.output / "ablation.json").read_text())
    ipa = next(arm for arm in found["arms"] if arm["arm"] == "ipa")
    row = next(row for row in rows if row.name == "ipa")
    assert ipa["passes"] is row.verdict.passes
    oracle = results[3].measured
    gain = oracle["ipa"].mean("oracle") - oracle["seed"].mean("oracle")
    assert ipa["rewards"]["oracle"]["mean"] == pytest.approx(gain)
    assert found["reward"]["3"]["heads"][0]["name"] == "watch_s"


def test_the_same_command_again_computes_no_stage(finished):
    config, results = finished
    manifest = config.output / "seed_3" / "run.json"
    before = manifest.read_text()
    assert run_ablation(config)[3].measured == results[3].measured
    assert manifest.read_text() == before


def test_a_reward_model_that_knows_nothing_aligns_nothing(finished):
    config, _ = finished
    strict = small(config.output, "run.reward.min_auc_gain=0.9")
    with pytest.raises(ConfigError, match=r"reward: on \d+ lists of unseen users its AUC is"):
        run_ablation(strict)


def test_an_experiment_without_a_reward_model_is_refused(tmp_path):
    config = small(tmp_path)
    bare = config.model_copy(update={"run": config.run.model_copy(update={"reward": None})})
    with pytest.raises(ConfigError, match="reward is missing"):
        run_ablation(bare)
