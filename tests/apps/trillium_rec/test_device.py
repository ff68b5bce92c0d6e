"""Everything that computes, on a device that is not the processor: pretended ones, then a GPU."""

import copy
import math

import numpy as np
import pytest
import torch
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium_rec.alignment.arms import ARMS
from trillium_rec.alignment.config import AlignConfig
from trillium_rec.alignment.epoch import compare_sessions, train_epoch
from trillium_rec.alignment.measures import Panel, likeliest, measure_policy
from trillium_rec.alignment.pool import Drawing, draw_pool
from trillium_rec.alignment.prompts import UserSamples
from trillium_rec.baselines import ItemToItem, baseline_recommenders
from trillium_rec.config import RecConfig
from trillium_rec.device import choose_device, place_on
from trillium_rec.evaluation import Judge
from trillium_rec.models.batches import SessionBatch, next_item_batches, pad
from trillium_rec.models.sasrec import SasRec, SasRecConfig
from trillium_rec.pipeline import run_rec
from trillium_rec.ranking import Request, ScoreRecommender
from trillium_rec.recommenders import CodeBeams, Fused, Weights, fit_weights
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.fitting import build_reward_model
from trillium_rec.reward.model import RewardBatch
from trillium_rec.splits import Judged, pack
from trillium_rec.trie import Trie

from .pretended_device import DEVICE, Distant, pretend_device

N_ITEMS = 14
N_BEAMS, N_SESSION = 6, 2
HISTORIES = pack([np.array([0, 3, 5]), np.array([7]), np.array([2, 9, 1, 4, 8])])
EVERYTHING = torch.ones(N_ITEMS, dtype=torch.bool)
# One arm per kind of loss and of selection.
LOSSES = ("ntp", "best_of_n", "random_loser", "ipa", "s_dpo", "simpo", "grpo")


@pytest.fixture
def make_model(make_ids, make_lazy, make_onerec):
    """Return the maker of a model by name, with the trie of its codes, both in memory."""
    ids = make_ids(N_ITEMS, (4, 5))

    def make(name, **options):
        if name == "sasrec":
            torch.manual_seed(0)
            return SasRec(SasRecConfig(n_items=N_ITEMS, d_model=8, max_items=8, **options))
        if name == "lazy":
            torch.manual_seed(0)
            return make_lazy(ids, n_content=3, **options)
        return make_onerec(ids, **options)

    return make, Trie.build(ids)


def make_reward(architecture="target_aware", pooling="items"):
    heads = (HeadConfig(column="like"), HeadConfig(column="view"))
    form = {"architecture": architecture, "pooling": pooling, "d_model": 8, "n_places": 2}
    content = np.random.default_rng(0).normal(size=(N_ITEMS, 3)).astype(np.float32)
    return build_reward_model(RewardConfig(heads=heads, **form), N_ITEMS, content, seed=3)


def far(thing):
    """A copy of a model, or of a trie, on the pretended device."""
    if isinstance(thing, Trie):
        return thing.to(DEVICE)
    model = place_on(DEVICE, copy.deepcopy(thing))
    assert all(isinstance(p, Distant) for p in model.parameters())
    if getattr(model, "warm", None) is not None:
        model.warm = model.warm.to(DEVICE)
    return model


def train_step(model, batch):
    """The loss and gradients of one batch, dropout and drawn items from one seed."""
    model.train()
    torch.manual_seed(5)
    losses = model.losses(batch)
    losses.total.backward()
    found = {"total": losses.total, **losses.parts}
    found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach().cpu() for name, value in found.items()}


def assert_same_step(model, batch):
    near = train_step(copy.deepcopy(model), batch)
    with pretend_device():
        distant = train_step(far(model), batch)
    assert near.keys() == distant.keys()
    for name, value in near.items():
        torch.testing.assert_close(distant[name], value, msg=name)


@pytest.mark.parametrize("name", ["lazy", "sasrec", "onerec"])
@pytest.mark.parametrize("options", [{}, {"n_negatives": 4}])
def test_a_training_step_touches_nothing_in_memory(make_model, name, options):
    make, _ = make_model
    model = make(name, **({} if name == "onerec" else options))
    model.warm = torch.arange(N_ITEMS - 1)
    sequences = pack([np.random.default_rng(row).integers(0, 13, 5) for row in range(6)])
    (batch,) = next_item_batches(sequences, batch_size=6, max_items=5, seed=0)
    assert_same_step(model, batch)


def test_a_step_on_sessions_with_experts_touches_nothing_in_memory(make_model):
    make, _ = make_model
    sessions = pack([np.array([1, 2]), np.array([3]), np.array([4, 5])])
    assert_same_step(make("onerec"), SessionBatch(pad(HISTORIES, 6), pad(sessions, 3)))
    assert_same_step(
        make("lazy", n_experts=4),
        next_item_batches(HISTORIES, batch_size=3, max_items=5, seed=0)[0],
    )


@pytest.mark.parametrize("architecture", ["target_aware", "pooled"])
@pytest.mark.parametrize("pooling", ["items", "sum"])
def test_a_step_of_the_reward_model_touches_nothing_in_memory(architecture, pooling):
    labels = torch.tensor([[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2, [[1.0, 1.0]] * 2])
    batch = RewardBatch(pad(HISTORIES, 6), torch.tensor([[6, 8], [9, -1], [11, 12]]), labels)
    assert_same_step(make_reward(architecture, pooling), batch)


def recommenders(make, trie, place):
    counts = ItemToItem(HISTORIES, n_items=N_ITEMS)
    lazy, onerec, sasrec = (place(make(name)) for name in ("lazy", "onerec", "sasrec"))
    trie = place(trie)
    with torch.inference_mode():
        vectors = lazy.item_vectors()
    return lazy, [
        *baseline_recommenders(HISTORIES, n_items=N_ITEMS, device=lazy.device),
        ScoreRecommender("sasrec", sasrec.eval(), batch_size=2),
        ScoreRecommender("dense", lazy),
        CodeBeams("lazy", lazy, trie, width=6, batch_size=2),
        CodeBeams("lazy, diverse", lazy, trie, width=6, n_groups=2),
        CodeBeams("onerec", onerec, trie, width=6, batch_size=2),
        Fused("fused", lazy, trie, counts, Weights(0.5, 0.5), width=6, vectors=vectors),
    ]


def test_every_recommender_lists_the_same_from_another_device(make_model):
    make, trie = make_model
    request = Request(HISTORIES, torch.arange(N_ITEMS) != 13)
    near = [each.recommend(request, 6) for each in recommenders(make, trie, lambda x: x)[1]]
    with pretend_device():
        distant = [each.recommend(request, 6) for each in recommenders(make, trie, far)[1]]
    for first, second in zip(near, distant, strict=True):
        assert not isinstance(second.items, Distant), "lists are in memory"
        assert torch.equal(first.items, second.items)
        torch.testing.assert_close(first.scores, second.scores)


def test_the_weights_of_the_fusion_are_fitted_on_another_device(make_model):
    make, trie = make_model
    judged = Judged(np.arange(3), HISTORIES, np.array([6, 8, 12]))
    judge = Judge(judged, ("a", "b", "c"), np.ones(N_ITEMS, np.int64), np.ones(N_ITEMS, np.bool_))
    counts, model = ItemToItem(HISTORIES, n_items=N_ITEMS), make("lazy")
    near = fit_weights(model, trie, counts, judge, width=6, batch_size=2)
    with pretend_device():
        assert fit_weights(far(model), far(trie), counts, judge, width=6, batch_size=2) == near


def align_once(model, trie, reward, config):
    """Draw sessions, train an epoch, and measure: what an arm does."""
    train = pack([np.random.default_rng(row).choice(N_ITEMS, 5, replace=False) for row in range(8)])
    samples = UserSamples(train, 6)
    prompts, rows = samples.prompts(0), np.arange(8)
    drawing = Drawing(config.n_beams, config.n_groups, config.n_session)
    pool = draw_pool(model, trie, EVERYTHING, prompts, reward, drawing)
    assert not isinstance(pool.rewards, Distant), "pools are in memory"
    compared = None
    if config.objective is not None:
        generator = torch.Generator().manual_seed(0)
        compared = compare_sessions(model, pool, rows, prompts, config, generator)
    means = train_epoch(model, samples, compared, config, 0)
    panel = Panel(
        tuple("abcdefgh"), prompts, train, reward, reward, None, np.arange(N_ITEMS),
        np.ones(N_ITEMS, np.bool_), np.eye(N_ITEMS, dtype=np.float32),
    )  # fmt: skip
    lists = CodeBeams("codes", model, trie, 10).recommend(Request(prompts, EVERYTHING), 10)
    measured = measure_policy(panel, model, likeliest(pool), lists.items.numpy())
    return {**means, **{f"mean {name}": measured.mean(name) for name in measured.values}}


@pytest.mark.parametrize(
    ("name", "arm"),
    [("onerec", "ipa_safe"), *(("lazy", arm) for arm in LOSSES)],
)
def test_an_arm_of_alignment_touches_nothing_in_memory(make_model, name, arm):
    make, trie = make_model
    base = AlignConfig(n_beams=N_BEAMS, n_session=N_SESSION, batch_size=4)
    changes = {"n_groups": 2} if arm == "ipa_safe" else {}
    config = ARMS[arm].configure(base).model_copy(update=changes)
    model, reward = make(name), make_reward().train(False)
    near = align_once(copy.deepcopy(model), trie, reward, config)
    with pretend_device():
        distant = align_once(far(model), far(trie), far(reward), config)
    # A pair whose margin is nearly nothing may count as right on one side only.
    assert distant.pop("accuracy", 0) == pytest.approx(near.pop("accuracy", 0), abs=0.25)
    assert distant == pytest.approx(near, rel=1e-3, abs=1e-6)


def test_the_pretended_device_refuses_what_a_gpu_refuses(make_model):
    make, trie = make_model
    with pretend_device():
        model = far(make("lazy"))
        with pytest.raises(RuntimeError, match="tensors in memory beside the device's"):
            model.context(torch.zeros(1, 2, 16))
        with pytest.raises(RuntimeError, match="tensors in memory beside the device's"):
            CodeBeams("codes", model, trie, 6).recommend(Request(HISTORIES, EVERYTHING), 6)
        with pytest.raises(RuntimeError, match="numpy"):
            model.own.weight.detach().numpy()


def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    path = find_run_file("tiny", package="trillium_rec")
    config = load_config(RecConfig, path, [f"output={tmp_path / 'run'}", "device=cuda"])
    with pytest.raises(ConfigError, match="device=cuda needs a GPU and none is visible; set"):
        run_rec(config)
    assert not (tmp_path / "run").exists()
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_a_run_on_a_gpu_ends_alike_twice_and_near_that_of_the_processor(tmp_path):
    path = find_run_file("tiny", package="trillium_rec")
    found = {}
    for name, device in (("cpu", "cpu"), ("gpu", "cuda"), ("again", "cuda")):
        overrides = [f"output={tmp_path / name}", f"device={device}", "fit.n_epochs=2"]
        found[name] = run_rec(load_config(RecConfig, path, overrides)).evaluations
    for first, second in zip(found["gpu"], found["again"], strict=True):
        assert np.array_equal(first.lists, second.lists), first.name
    for near, distant in zip(found["cpu"], found["gpu"], strict=True):
        # Dropout draws other numbers there, so models differ; baselines have none.
        is_trained = near.name not in ("popularity", "item-to-item")
        recall = (each.metrics["recall@50"].mean for each in (near, distant))
        assert math.isclose(*recall, abs_tol=0.15 if is_trained else 0.0), near.name
        assert distant.validity == 1.0
