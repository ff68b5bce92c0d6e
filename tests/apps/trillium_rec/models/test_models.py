import numpy as np
import pytest
import torch
from trillium_rec.models.batches import next_item_batch
from trillium_rec.models.lazy import LazyRecommender
from trillium_rec.models.onerec import OneRec
from trillium_rec.models.sasrec import SasRec, SasRecConfig
from trillium_rec.splits import pack

SEQUENCES = pack([np.array(s) for s in ([3, 1, 4], [1, 5, 9, 2, 6], [5, 3])])


@pytest.fixture
def ids(make_ids):
    return make_ids(12, (4, 4, 4))


def test_saved_models_are_loaded_with_their_catalogue(ids, make_lazy, make_onerec, tmp_path):
    sasrec = SasRec(SasRecConfig(n_items=12, d_model=8, max_items=6)).eval()
    lazy, onerec = make_lazy(ids, n_content=3), make_onerec(ids)
    for model in (sasrec, lazy, onerec):
        folder = tmp_path / model.config.model_type
        model.save_pretrained(folder)
        found = type(model).from_pretrained(folder).eval()
        for key in ("sizes", "n_items", "d_model", "ids_version", "vocab_size"):
            assert getattr(found.config, key, None) == getattr(model.config, key, None), key
        for name, value in model.state_dict().items():
            assert torch.equal(found.state_dict()[name], value), name


def test_the_context_of_a_place_does_not_see_later_items(ids, make_lazy):
    model = make_lazy(ids)
    vectors = model.item_vectors()
    items = torch.tensor([[3, 1, 4, 1]])
    whole = model.context(vectors[items])
    assert torch.allclose(whole[:, :2], model.context(vectors[items[:, :2]]), atol=1e-5)


def test_the_losses_are_those_of_single_predictions(ids, make_lazy):
    model = make_lazy(ids)
    batch = next_item_batch(SEQUENCES, 8)
    losses = model.losses(batch)
    code, item = [], []
    for user in range(3):
        sequence = SEQUENCES.of(user)
        for place in range(1, len(sequence)):
            history = pack([sequence[:place]])
            target = torch.tensor([[sequence[place]]])
            code.append(-float(model.item_logps(model.read(history), target)))
            item.append(-float(model.score_items(history)[0, sequence[place]]))
    assert losses.parts["codes"] == pytest.approx(np.mean(code), rel=1e-4)
    assert losses.parts["item"] == pytest.approx(np.mean(item), rel=1e-4)


def test_code_probabilities_of_a_full_catalogue_sum_to_one(make_ids, make_lazy, make_onerec):
    ids = make_ids(18, (3, 2, 3))
    history = pack([np.array([2, 11])])
    model = make_lazy(ids, n_experts=3)
    lazy = model.item_logps(model.read(history), torch.arange(18)[None])
    assert float(lazy.exp().sum()) == pytest.approx(1, abs=1e-4)
    onerec = make_onerec(ids)
    with torch.inference_mode():
        logps = onerec.session_logps(onerec.read(history), torch.arange(18)[None, :, None])
    assert float(logps.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_a_new_item_is_known_by_its_codes_and_content_alone(ids, make_lazy):
    model = make_lazy(ids, n_content=3)
    import dataclasses

    more = dataclasses.replace(
        ids,
        items=(*ids.items, "new"),
        codes=np.concatenate([ids.codes, ids.codes[[0]]]),
        states=np.zeros(13, np.int64),
    )
    content = torch.cat([model.content, model.content[:1]])
    old = model.item_vectors()
    model.set_catalogue(more, content)
    new = model.item_vectors()
    assert torch.allclose(new[:12], old)
    assert torch.allclose(new[12], old[0] - model.own.weight[0], atol=1e-6)


def test_padding_does_not_change_what_onerec_thinks(ids, make_onerec):
    model = make_onerec(ids)
    sessions = torch.tensor([[[7, 2, -1]], [[8, -1, -1]]])
    with torch.inference_mode():
        together = model.session_logps(
            model.read(pack([np.array([1]), np.array([3, 5, 9])])), sessions
        )
        alone = model.session_logps(model.read(pack([np.array([1])])), torch.tensor([[[7, 2]]]))
    assert float(together[0, 0]) == pytest.approx(float(alone[0, 0]), abs=1e-4)


def test_onerec_loss_is_the_mean_over_items_of_the_sum_over_codes(ids, make_onerec):
    model = make_onerec(ids)
    history = torch.tensor([[1, -1, -1], [3, 5, 9]])
    session = torch.tensor([[7, 2, 4], [8, -1, -1]])
    with torch.inference_mode():
        reading = model.read(pack([np.array([1]), np.array([3, 5, 9])]))
        logps = model.session_logps(reading, session[:, None])
        loss = model.session_losses(history, session)
    assert float(loss) == pytest.approx(-float(logps.sum()) / 4, rel=1e-5)


def test_users_without_history_get_finite_answers(ids, make_lazy, make_onerec):
    nobody = pack([np.zeros(0, np.int64)])
    lazy = make_lazy(ids)
    scores = lazy.score_items(nobody)
    assert scores.isfinite().all()
    state = lazy.read(nobody).states
    with torch.no_grad():
        lazy.own.weight[0] += 1.0
    assert torch.equal(lazy.read(nobody).states, state), "an empty history is not one of item 0"
    model = make_onerec(ids)
    with torch.inference_mode():
        assert model.session_logps(model.read(nobody), torch.tensor([[[3]]])).isfinite().all()


def test_every_parameter_of_every_model_learns(ids, make_lazy, make_onerec):
    batch = next_item_batch(SEQUENCES, 8)
    sasrec = SasRec(SasRecConfig(n_items=12, d_model=8, max_items=8, dropout=0.0))
    for model in (sasrec, make_lazy(ids, n_content=3), make_onerec(ids, n_experts=2)):
        torch.manual_seed(0)
        model.train()
        model.losses(batch).total.backward()
        still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert still == [], model.config.model_type


def test_classes_say_their_type():
    assert {LazyRecommender.config_class.model_type, OneRec.config_class.model_type} == {
        "trillium_lazy",
        "trillium_onerec",
    }


def test_users_are_read_alike_alone_and_among_others_of_any_length(make_ids, make_onerec):
    ids = make_ids(30, (4, 4, 4))
    model = make_onerec(ids)
    random = np.random.default_rng(0)
    histories = [random.integers(0, 30, size) for size in (0, 6, 1, 3, 2, 9, 5, 1, 4, 6, 2)]
    with torch.inference_mode():
        together = model.read(pack(histories))
        for user, history in enumerate(histories):
            alone = model.read(pack([history]))
            n_tokens = alone.encoded.shape[1]
            is_read = together.mask[user, 0, 0]
            assert is_read[:n_tokens].tolist() == alone.mask[0, 0, 0].tolist()
            assert not is_read[n_tokens:].any()
            found = together.encoded[user, :n_tokens][is_read[:n_tokens]]
            expected = alone.encoded[0][is_read[:n_tokens]]
            assert torch.allclose(found, expected, atol=1e-5)
