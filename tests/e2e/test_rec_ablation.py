"""The alignment experiment from a run file to its table, and again without computing anything."""

import csv
import json
from io import StringIO

import pytest
from rich.console import Console
from trillium.assets import ASSETS, cache_folder, is_cached
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_rec.alignment.ablation import AblationConfig, run_ablation
from trillium_rec.alignment.ablation_report import write_results
from trillium_rec.alignment.ablation_table import render_table, tabulate
from trillium_rec.config import RecConfig
from trillium_rec.semantic_ids import load_space
from trillium_rec.served_run import ServedRun
from trillium_rec.simulator import preset_config, simulate

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


def test_the_folder_of_a_seed_names_itself_and_the_world_that_it_was_trained_on(finished):
    config, _ = finished
    folder = config.output / "seed_3"
    saved = load_config(RecConfig, folder / "config.yaml")
    assert (saved.output, saved.seed, saved.data.source.seed) == (folder, 3, 3)
    served = ServedRun.open(folder, folder / "ipa" / "round_0" / "model")
    world = simulate(preset_config("tiny", seed=3)).dataset.catalogue.titles
    assert served.catalogue().titles == world
    assert world != simulate(preset_config("tiny", seed=0)).dataset.catalogue.titles


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


def write_log(folder, log):
    """A simulated log as a table of events and a file of item texts, as of a real shop."""
    names = ("watch_s", "view")
    events = log.events
    with (folder / "log.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp", "list", *names])
        columns = [events.timestamp, events.request, *(events.feedback[name] for name in names)]
        for user, item, *others in zip(events.user, events.item, *columns, strict=True):
            rows.writerow([log.users[user], log.catalogue.ids[item], *others])
    texts = dict(zip(log.catalogue.ids, log.catalogue.titles, strict=True))
    (folder / "items.json").write_text(json.dumps(texts))
    return f"name: table, path: {folder / 'log.csv'}, request: list, feedback: [watch_s, view]"


def test_users_of_one_log_are_the_same_users_in_every_seed_and_of_other_worlds_others(
    finished, tmp_path
):
    _, simulated = finished
    assert all(user.startswith("3/") for user in simulated[3].measured["ipa"].users)
    source = write_log(tmp_path, simulate(preset_config("tiny", seed=3)).dataset)
    config = small(
        tmp_path / "run",
        f"run.data.source={{{source}}}",
        "run.reward.min_auc_gain=-1",
        "seeds=[3, 4]",
        "arms=[rerank]",
    )
    results = run_ablation(config)
    users = [set(found.measured["rerank"].users) for found in results.values()]
    assert users[0] & users[1]
    n_users = len(users[0] | users[1])
    rows = tabulate(results)
    assert rows[1].verdict.gains["judge"].n_tasks == n_users < results[3].n_judged * 2
    assert str(render_table(rows, results).title).startswith(f"{n_users} users, 2 seeds")
    assert f"2 seeds, {n_users} users" in write_results(config, results).read_text()


def test_item_texts_enter_the_ids_of_an_experiment_as_of_a_run(tmp_path):
    if not is_cached(ASSETS["minilm-l6-v2"], cache_folder()):
        pytest.skip("the asset minilm-l6-v2 is not in the cache; trillium assets get it")
    source = write_log(tmp_path, simulate(preset_config("tiny", seed=3)).dataset)
    config = small(
        tmp_path / "run",
        f"run.data.source={{{source}, items: {tmp_path / 'items.json'}}}",
        "run.reward.min_auc_gain=-1",
        "arms=[rerank]",
    )
    run_ablation(config)
    assert load_space(config.output / "seed_3" / "ids").content_axes.shape[1] == 384
