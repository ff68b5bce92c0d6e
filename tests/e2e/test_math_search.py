"""MCTS-DPO from problems to an adapter, on a tiny policy that knows a right and a wrong way."""

import json

import pytest
from trillium.config import load_config
from trillium.errors import ConfigError, DataError
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.round_rows import read_trees
from trillium_math.config import MathConfig
from trillium_math.pipeline import run_math
from trillium_math.records import read_records
from trillium_math.search.mcts import Search
from trillium_math.search.record import SearchTree

from .taught_math_policy import furnish

pytestmark = pytest.mark.e2e

SEARCH = "search: {n_iterations: 6, n_first: 4, n_actions: 2, max_depth: 2}"
TRAIN = (
    "train: {learning_rate: 3.0e-3, max_steps: 6, per_device_train_batch_size: 4,"
    " order: sequential}"
)
FORMS = {
    "lists": "{name: lipo, beta: 0.1}",
    "labels": "{name: kto}",
    "paths": "{name: tree_tpo}",
    "trajectories": "{name: oreo}",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return furnish(tmp_path_factory.mktemp("search"))


@pytest.fixture(autouse=True)
def _own_cache(workplace, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))


def load(workplace, name, *, form="pairs", objective="", search=SEARCH):
    objective = f"objective: {objective}, " if objective else ""
    method = f"{{name: mcts_dpo, tree_as: {form}, {objective}{search}, {TRAIN}}}"
    overrides = [f"output={workplace}/{name}", f"method={method}", "n_rounds=1"]
    return load_config(MathConfig, workplace / "run.yaml", [*overrides, "n_from_previous=0"])


@pytest.fixture(scope="module")
def finished(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))
        config = load(workplace, "run")
        return config, run_math(config)


def test_the_search_finds_right_and_wrong_ways_and_training_tells_them_apart(finished):
    config, result = finished
    assert [name for name in result.stages if name.endswith("_0")] == [
        *("search_0", "select_0", "train_0")
    ]
    found = read_records(config.output / "search_0.jsonl", SearchTree)
    assert sorted(tree.problem_id for tree in found) == ["t/a", "t/b", "t/c", "t/d"]
    for tree in found:
        assert tree.nodes[0].n == 6
        assert sum(tree.nodes[i].n for i in tree.children[0]) == 6
        assert all(0 < node.confidence < 1 for node in tree.nodes[1:])
        for node in tree.nodes[1:]:
            outcome = {None: 0.0, 1.0: 1.0, 0.0: -1.0}[node.reward]
            assert node.value == pytest.approx(outcome + node.confidence)
    counts = result.stages["search_0"].counts
    assert counts["problems_with_both"] >= 2
    assert counts["sampled_tokens"] > 0
    lines = (config.output / "train_0" / "metrics.jsonl").read_text().splitlines()
    margins = [json.loads(line)["margin_nats"] for line in lines]
    assert margins[0] == pytest.approx(0.0, abs=1e-3)
    assert margins[-1] > 0.2


def test_pairs_are_siblings_of_the_tree_smoothed_by_its_visits(finished):
    config, _ = finished
    found = {t.problem_id: t for t in read_records(config.output / "search_0.jsonl", SearchTree)}
    trees = read_trees(config.output / "select_0.jsonl")
    assert trees
    eos = tiny_tokenizer().eos_token_id
    for tree in trees:
        problem, _, pair = tree.id.partition("#mcts/")
        whole = found[problem]
        best, worst = map(int, pair.split(">"))
        assert whole.nodes[best].parent == whole.nodes[worst].parent
        assert whole.nodes[best].q > whole.nodes[worst].q
        n_best, n_worst = whole.nodes[best].n, whole.nodes[worst].n
        alpha = min(n_worst / (n_worst + max(1, n_best)), 0.5)
        assert tree.columns["label_smoothing"] == pytest.approx(alpha)
        context = whole.path(whole.nodes[best].parent).ids
        for index, node in ((0, best), (1, worst)):
            path = tree.path(index)
            assert path.ids[: len(context)] == context
            assert not any(path.scored[: len(context)])
            assert whole.nodes[node].outcome or path.ids[-1] != eos


def test_a_search_that_is_killed_continues_to_the_same_bytes(finished, workplace, monkeypatch):
    config, _ = finished
    grow = Search.grow
    grown = []

    def die_later(self, problems, *, seed):
        if grown:
            raise KeyboardInterrupt
        grown.append(problems)
        return grow(self, problems, seed=seed)

    again = load(workplace, "killed")
    with monkeypatch.context() as patch:
        patch.setattr(Search, "grow", die_later)
        with pytest.raises(KeyboardInterrupt):
            run_math(again)
    run_math(again)
    for name in ("search_0.jsonl", "select_0.jsonl", "train_0/metrics.jsonl"):
        assert (again.output / name).read_bytes() == (config.output / name).read_bytes(), name


@pytest.mark.parametrize(("form", "objective"), FORMS.items(), ids=FORMS)
def test_the_tree_teaches_in_every_form(workplace, finished, form, objective):
    config = load(workplace, form, form=form, objective=objective)
    result = run_math(config)
    searched = (config.output / "search_0.jsonl").read_bytes()
    assert searched == (finished[0].output / "search_0.jsonl").read_bytes()
    trees = read_trees(config.output / "select_0.jsonl")
    n_paths = {tree.n_paths for tree in trees}
    assert n_paths == {1} if form in {"labels", "trajectories"} else min(n_paths) >= 2
    adapters = [result.stages[name].outputs[f"{name}/adapter"] for name in ("warm_up", "train_0")]
    assert adapters[0] != adapters[1]


def test_searches_that_cannot_be_are_refused_with_what_to_do(workplace):
    with pytest.raises(ConfigError, match=r"dpo does not fit method mcts_dpo \(it needs pair"):
        run_math(load(workplace, "no", form="lists"))
    with pytest.raises(ConfigError, match=r"set method\.objective\.name=oreo"):
        run_math(load(workplace, "no", form="trajectories", objective="{name: dpo}"))
    with pytest.raises(ConfigError, match=r"n_first"):
        load(workplace, "no", search="search: {n_first: 1}")
    harvest = "harvest: {min_gap: 50}, " + SEARCH
    with pytest.raises(DataError, match=r"select_0: nothing to learn from \(searched 4, right"):
        run_math(load(workplace, "none", search=harvest))
