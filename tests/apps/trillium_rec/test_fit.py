import numpy as np
import pytest
import torch
from trillium.errors import BackendError, DataError
from trillium_rec.fit import FitConfig, fit
from trillium_rec.models.batches import next_item_batches
from trillium_rec.models.sasrec import SasRec, SasRecConfig
from trillium_rec.splits import pack

CONFIG = FitConfig(n_epochs=6, batch_size=8, eval_every=2, warmup_steps=2, learning_rate=0.01)


def make_sequences():
    # Every item is followed by its successor in a ring of ten.
    random = np.random.default_rng(0)
    return pack([(random.integers(10) + np.arange(6)) % 10 for _ in range(40)])


def make_model():
    torch.manual_seed(0)
    return SasRec(SasRecConfig(n_items=10, d_model=16, n_layers=1, max_items=6, dropout=0.1))


def run(model, folder, *, config=CONFIG, validate=lambda: 0.0, sequences=None):
    chosen = sequences or make_sequences()
    return fit(
        model,
        lambda seed: next_item_batches(
            chosen, batch_size=config.batch_size, max_items=6, seed=seed
        ),
        config,
        folder,
        validate=validate,
        seed=3,
    )


def test_a_ring_is_learned(tmp_path):
    model = make_model()
    rows = run(model, tmp_path, config=CONFIG.model_copy(update={"n_epochs": 30, "patience": 99}))
    assert rows[-1]["loss_item"] < 0.3 < rows[0]["loss_item"]


def test_training_that_was_interrupted_ends_in_the_same_bits(tmp_path):
    class Stop(Exception):
        pass

    values = iter([0.1, 0.2, 0.3])
    whole = make_model()
    run(whole, tmp_path / "whole", validate=lambda: next(values))
    broken = make_model()
    calls = []

    def stop_at_second():
        calls.append(0)
        if len(calls) == 2:
            raise Stop
        return 0.1

    with pytest.raises(Stop):
        run(broken, tmp_path / "broken", validate=stop_at_second)
    values = iter([0.2, 0.3])
    fresh = make_model()
    rows = run(fresh, tmp_path / "broken", validate=lambda: next(values))
    assert [row["epoch"] for row in rows] == list(range(6))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_the_best_validation_wins_and_patience_ends_the_training(tmp_path):
    model = make_model()
    kept = []
    values = iter([0.5, 0.4, 0.3, 0.9])

    def validate():
        kept.append(model.items.weight.detach().clone())
        return next(values)

    config = CONFIG.model_copy(update={"n_epochs": 20, "patience": 2})
    rows = run(model, tmp_path, config=config, validate=validate)
    assert len(rows) == 6
    assert torch.equal(model.items.weight, kept[0])


def test_a_loss_that_is_not_finite_stops_with_a_sentence(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.items.weight[3] = float("nan")
    with pytest.raises(BackendError, match="step 1: the loss is not finite"):
        run(model, tmp_path)


def test_users_with_one_event_each_leave_nothing_to_learn(tmp_path):
    with pytest.raises(DataError, match="train: no user has two training events"):
        run(make_model(), tmp_path, sequences=pack([np.array([user % 10]) for user in range(9)]))
