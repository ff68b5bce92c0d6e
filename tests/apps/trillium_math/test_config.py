from dataclasses import replace

import pytest
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError, DataError
from trillium.objectives.configs import DPOConfig
from trillium_math.arms import ArmsConfig
from trillium_math.config import MathConfig
from trillium_math.journey import problem_of
from trillium_math.methods.method import method_name
from trillium_math.methods.multi_turn import KTOMethod
from trillium_math.methods.oreo import OREOMethod
from trillium_math.preparation import hash_problems, prepare_problems
from trillium_math.problems import Problem
from trillium_math.selection import SelectConfig


def test_presets_are_valid_runs():
    from trillium.config import list_presets

    presets = list_presets("trillium_math")
    assert {"demo", "arms", "arms_smollm_gpu"} <= presets.keys()
    for name, path in presets.items():
        config = (
            load_config(ArmsConfig, path).run if "arms" in name else (load_config(MathConfig, path))
        )
        problems = prepare_problems(config)
        sets = [problems.warm_up, problems.train, problems.held_out]
        assert all(sets)
        held_out = {problem.template for problem in problems.held_out}
        # A preset may say that it also judges on new numbers in the templates of its training.
        is_mixed = config.problems.held_out.split == "not_shown"
        for other in sets[:1] if is_mixed else sets[:2]:
            assert held_out.isdisjoint(problem.template for problem in other)


def test_an_empty_stop_string_is_refused():
    """It would end every turn before it began."""
    with pytest.raises(ConfigError, match=r"stop\.0"):
        load_config(MathConfig, None, ["sampling.stop=['']"])


def test_the_comparison_on_a_gpu_judges_on_two_kinds_of_problems_half_each():
    from trillium.config import find_run_file

    path = find_run_file("arms_smollm_gpu", package="trillium_math")
    problems = prepare_problems(load_config(ArmsConfig, path).run)
    practised = {problem.template for problem in problems.train}
    assert len(problems.train) >= 190
    n_practised = sum(problem.template in practised for problem in problems.held_out)
    assert 94 <= n_practised <= 98
    asked = {problem.question for problem in problems.held_out}
    assert asked.isdisjoint(problem.question for problem in (*problems.train, *problems.warm_up))


def test_every_training_problem_belongs_to_one_round():
    config = MathConfig.model_validate({"problems": {"train": {"n_problems": 7}}})
    problems = prepare_problems(config)
    rounds = [problems.of_round(number, 3) for number in range(3)]
    assert sorted(p.id for group in rounds for p in group) == sorted(p.id for p in problems.train)
    assert [len(group) for group in rounds] == [3, 2, 2]


def test_an_id_of_both_sets_is_refused_before_anything_runs(tmp_path):
    """Lines without ids are numbered after their file: train/gsm.jsonl and test/gsm.jsonl clash."""
    paths = [tmp_path / part / "gsm.jsonl" for part in ("train", "test")]
    for path, asked in zip(paths, ("12", "34"), strict=True):
        path.parent.mkdir()
        path.write_text("".join(f'{{"question": "{n}?", "answer": "#### 1"}}\n' for n in asked))
    train, held_out = ({"source": str(path)} for path in paths)
    config = {"warm_up": None, "problems": {"train": train, "held_out": held_out}}
    with pytest.raises(DataError, match=r"'gsm/0' is the id .*; 2 such ids\); rename one file"):
        prepare_problems(MathConfig.model_validate(config))
    paths[1].write_bytes(paths[0].read_bytes() + b'{"question": "5?", "answer": "#### 1"}\n')
    config["problems"]["train"]["n_problems"] = 1
    with pytest.raises(ConfigError, match="0 of 1 problems are not held out as well"):
        prepare_problems(MathConfig.model_validate(config))


def test_a_warm_up_of_held_out_questions_alone_says_so_before_anything_runs(tmp_path):
    path, other = tmp_path / "held.jsonl", tmp_path / "train.jsonl"
    path.write_text('{"question": "1?", "answer": "#### 1"}\n')
    other.write_text('{"question": "2?", "answer": "#### 2"}\n')
    held_out, train = ({"source": str(each), "n_problems": 1} for each in (path, other))
    config = {"problems": {"train": train, "held_out": held_out}}
    reason = r"warm_up\.problems: 0 of 1 problems are not held out as well"
    with pytest.raises(ConfigError, match=reason):
        prepare_problems(MathConfig.model_validate({**config, "warm_up": {"problems": held_out}}))
    config["warm_up"] = {"problems": train}
    assert len(prepare_problems(MathConfig.model_validate(config)).warm_up) == 1


def test_the_problem_of_a_tree_is_found_whatever_its_id_holds():
    known = {"a", "a#b", "c#d"}
    ids = ("a#12ab34-0>a#12ab34-1", "a#b#12ab34-0", "c#d#mcts/3>4", "e#12ab34-0")
    assert [problem_of(id, known) for id in ids] == ["a", "a#b", "c#d", ""]


def test_the_share_of_right_trajectories_is_the_one_that_was_written():
    for share, n_wrong, n_right in ((0.6, 2, 3), (0.7, 3, 7), (0.5, 4, 4), (0.1, 3, 1), (1, 0, 8)):
        method = OREOMethod(max_right_share=share, select=SelectConfig(n_pairs=8))
        assert method.most_right(n_wrong) == n_right


def test_k_beyond_the_samples_is_refused():
    with pytest.raises(ConfigError, match=r"evaluate\.k = 9 needs that many samples"):
        load_config(MathConfig, None, ["evaluate.k=[9]"])


def test_objectives_must_fit_the_method():
    for method, objective in (("m_dpo", "kto"), ("m_kto", "dpo"), ("dpo", "kto"), ("kto", "oreo")):
        overrides = [f"method={{name: {method}}}", f"method.objective.name={objective}"]
        with pytest.raises(ConfigError, match=f"{objective} does not fit method {method}"):
            load_config(MathConfig, None, overrides).method.check()
    for method in ("m_dpo", "m_kto", "dpo", "kto", "rejection"):
        config = load_config(MathConfig, None, [f"method.name={method}"])
        config.method.check()
        assert method_name(config.method) == method


def test_a_gap_is_refused_where_no_pairs_are_made():
    lists = ["method={name: mcts_dpo, tree_as: lists, objective: {name: lipo}}"]
    load_config(MathConfig, None, lists).method.check()
    with pytest.raises(ConfigError, match=r"min_gap=0\.5: has no meaning with .*=lists"):
        load_config(MathConfig, None, [*lists, "method.harvest.min_gap=0.5"]).method.check()
    load_config(MathConfig, None, ["method={name: mcts_dpo, harvest: {min_gap: 9}}"]).method.check()


def test_another_reasoning_makes_other_problems():
    """The oracle and the judge read it, so that what they found is found again."""
    one = Problem("a", "3 bags of 14?", "42", reasoning="3 * 14 = 42.")
    assert hash_problems([one]) != hash_problems([replace(one, reasoning="14 + 14 + 14 = 42.")])


def test_a_search_by_value_needs_a_method_that_trains_one():
    search = "evaluate.search={name: beam}"
    with pytest.raises(ConfigError, match=r"name = beam reads a value function and method m_dpo"):
        load_config(MathConfig, None, [search])
    config = load_config(MathConfig, None, [search, "method={name: oreo}"])
    assert config.evaluate.search.name == "beam"
    with pytest.raises(ConfigError, match=r"method oreo trains a value function, and objective"):
        load_config(MathConfig, None, ["method={name: oreo, objective: {name: dpo}}"])


def test_methods_that_sample_for_themselves_keep_to_a_budget():
    steps = load_config(MathConfig, None, ["method.name=step_dpo"]).method
    assert steps.within_budget(100).max_sampled_tokens == 100
    assert steps.within_budget(100).within_budget(200).max_sampled_tokens == 100
    pairs = load_config(MathConfig, None, []).method
    assert pairs.within_budget(100) is pairs


def test_an_unknown_method_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"method\.name = 'm_dop': unknown; did you mean m_dpo"):
        load_config(MathConfig, None, ["method.name=m_dop"])


def test_another_method_by_name_has_its_own_objective_and_keeps_how_it_trains(tmp_path):
    dpo = find_run_file("dpo", package="trillium_math")
    given = load_config(MathConfig, dpo).method
    kto = load_config(MathConfig, dpo, ["method.name=kto"]).method
    assert kto == KTOMethod(train=given.train, select=given.select)
    step_dpo = load_config(MathConfig, dpo, ["method.name=step_dpo"]).method
    assert step_dpo.objective == DPOConfig(beta=0.4)
    own = tmp_path / "own.yaml"
    own.write_text("method: {name: m_dpo, objective: {name: dpo, beta: 0.3}}")
    baseline = load_config(MathConfig, own, ["method.name=dpo"]).method  # both pair trajectories
    assert baseline.objective == DPOConfig(beta=0.3)
