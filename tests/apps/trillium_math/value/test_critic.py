"""Values of states: the same numbers that training computed, read back from beside the adapter."""

import pytest
import torch
from trillium.errors import ConfigError
from trillium.objectives.recipe_configs import OREOConfig
from trillium.policies.adapters import add_adapter, save_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.scoring.layout import evaluating
from trillium.scoring.reference import open_reference
from trillium.training.heads import attached, build_heads, heads_of, save_heads
from trillium.training.inputs import gather
from trillium.training.steps import StepCollator
from trillium.trees import TokenPath, TokenTree
from trillium_math.agent.partial import Partial
from trillium_math.agent.trajectory import Trajectory
from trillium_math.problems import Problem
from trillium_math.value.critic import Critic, check_head, state_of

PATHS = [
    TokenPath(tuple(range(10, 21)), tuple(i in {2, 3, 4, 8, 9, 10} for i in range(11))),
    TokenPath(tuple(range(40, 46)), tuple(i > 1 for i in range(6))),
]


@pytest.fixture
def trained(tmp_path):
    """A policy with an adapter that has an effect and a head of random numbers, both saved."""
    model = add_adapter(tiny_policy(seed=2), LoraSettings(r=4, alpha=8), base_name="t", seed=1)
    generator = torch.Generator().manual_seed(0)
    objective = OREOConfig(alpha=0)
    with torch.no_grad():
        for name, entry in model.named_parameters():
            if "lora_B" in name:
                entry.copy_(torch.randn(entry.shape, generator=generator) * 0.1)
    heads = build_heads(objective, model)
    with attached(model, heads), torch.no_grad():
        for entry in heads_of(model).parameters():
            entry.copy_(torch.randn(entry.shape, generator=generator))
        save_adapter(model, tmp_path)
        save_heads(heads_of(model), tmp_path)
        trees = [TokenTree.from_paths(f"t{i}", (path,), {"reward": (1.0,)})
                 for i, path in enumerate(PATHS)]  # fmt: skip
        (rows,) = StepCollator("padded", 3, 4096, n_counted=1).batch_rows(trees)
        with evaluating(model):
            found = gather(
                objective, model, open_reference("base", model), rows, tokens_per_path=(5.0,)
            )
    by_id = dict(zip(rows.tree_ids, found.computed["values"].tolist(), strict=True))
    return model, tmp_path, [by_id[f"t{i}"] for i in range(len(PATHS))]


def test_the_critic_gives_the_values_that_training_computes(trained):
    model, folder, values = trained
    critic = Critic(model, folder)
    for path, expected in zip(PATHS, values, strict=True):
        places = [place for place, is_scored in enumerate(path.scored) if is_scored]
        found = critic.values([path.ids[:place] for place in places])
        assert found == pytest.approx(expected[: len(places)], abs=1e-5)
        assert max(found) - min(found) > 0.1


def test_values_do_not_depend_on_their_neighbours(trained):
    model, folder, _ = trained
    critic = Critic(model, folder)
    prefixes = [PATHS[0].ids[:n] for n in (3, 11, 1, 7)] + [PATHS[1].ids] * 2
    together = critic.values(prefixes)
    alone = [critic.values([prefix])[0] for prefix in prefixes]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[4] == together[5]
    assert critic.values([]) == []


def test_the_adapter_takes_part(trained):
    model, folder, values = trained
    bare = add_adapter(tiny_policy(seed=2), LoraSettings(r=4, alpha=8), base_name="t", seed=1)
    (found,) = Critic(model, folder).values([PATHS[0].ids[:2]])
    (other,) = Critic(bare, folder).values([PATHS[0].ids[:2]])
    assert found == pytest.approx(values[0][0], abs=1e-5)
    assert abs(other - found) > 1e-3


def test_a_head_that_was_not_trained_values_everything_at_zero(tmp_path):
    model = add_adapter(tiny_policy(), LoraSettings(r=4, alpha=8), base_name="t", seed=1)
    with attached(model, build_heads(OREOConfig(), model)):
        save_heads(heads_of(model), tmp_path)
    assert Critic(model, tmp_path).values([PATHS[0].ids, PATHS[1].ids]) == [0.0, 0.0]


def test_an_adapter_without_a_head_is_refused(tmp_path):
    for folder in (tmp_path, None):
        with pytest.raises(ConfigError, match=r"has no value function .* method\.name=oreo"):
            check_head(folder)


def test_what_has_ended_is_judged_before_its_last_token():
    spans = ((2, 4), (6, 9))
    done = Trajectory("t", "p", "1", (), tuple(range(9)), spans, "answered", "1", 1.0)
    assert state_of(done) == tuple(range(8))
    going = Partial("t", Problem("p", "?", "1"), list(range(12)), [], list(spans))
    assert state_of(going) == tuple(range(12))
    going.outcome = "answered"
    assert state_of(going) == tuple(range(8))
    nothing = Trajectory("t", "p", "1", (), (1, 2, 3), (), "token_limit", None, 0.0)
    assert state_of(nothing) == (1, 2, 3)
