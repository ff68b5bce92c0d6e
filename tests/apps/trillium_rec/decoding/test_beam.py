"""Beams against exhaustive search: every item, or every session, scored one by one."""

import itertools

import numpy as np
import pytest
import torch
from trillium.errors import ConfigError
from trillium_rec.decoding.beam import search_items, search_sessions
from trillium_rec.models.onerec import OneRec
from trillium_rec.recommenders import open_decoder, whole_histories
from trillium_rec.splits import pack
from trillium_rec.trie import Trie

HISTORIES = pack([np.array(h) for h in ([3, 5, 9], [0], [7, 2, 2, 4, 8, 1])])
EVERYTHING = torch.ones(40, dtype=torch.bool)


@pytest.fixture
def ids(make_ids):
    return make_ids(40, (4, 5, 6))


@pytest.fixture(params=["lazy", "lazy with experts", "onerec"])
def model(request, ids, make_lazy, make_onerec):
    if request.param == "onerec":
        return make_onerec(ids)
    return make_lazy(ids, n_experts=3 if "experts" in request.param else 0, n_content=4)


def session_logp(model, history, session):
    """The log-probability of a session by the model's training path, item by item."""
    with torch.inference_mode():
        if isinstance(model, OneRec):
            reading = model.read(pack([np.array(history)]))
            return float(model.session_logps(reading, torch.tensor([[session]])))
        total = 0.0
        for place, item in enumerate(session):
            so_far = pack([np.array([*history, *session[:place]])])
            total += float(model.item_logps(model.read(so_far), torch.tensor([[item]])))
        return total


def search(model, ids, *, eligible=EVERYTHING, **options):
    return search_items(
        open_decoder(model, HISTORIES),
        Trie.build(ids),
        eligible,
        whole_histories(HISTORIES),
        **options,
    )


def test_wide_beams_find_what_scoring_every_item_finds(model, ids):
    eligible = torch.arange(40) % 5 != 1
    beams = search(model, ids, eligible=eligible, width=40)
    for user in range(3):
        seen = set(HISTORIES.of(user).tolist())
        allowed = [item for item in range(40) if eligible[item] and item not in seen]
        scores = {item: session_logp(model, HISTORIES.of(user), [item]) for item in allowed}
        expected = sorted(allowed, key=scores.__getitem__, reverse=True)
        assert beams.items[user, : len(allowed), 0].tolist() == expected
        assert beams.logps[user, : len(allowed)].tolist() == pytest.approx(
            [scores[item] for item in expected], abs=1e-4
        )
        assert (beams.items[user, len(allowed) :, 0] == -1).all()


def test_narrow_beams_are_those_of_a_plain_loop(model, ids):
    beams = search(model, ids, width=3)
    for user in range(3):
        expected = plain_beam(model, ids, HISTORIES.of(user).tolist(), width=3)
        assert beams.items[user, :, 0].tolist() == [item for item, _ in expected]
        assert beams.logps[user].tolist() == pytest.approx([logp for _, logp in expected], abs=1e-4)


def plain_beam(model, ids, history, *, width):
    """Beam search as one writes it down: a list of prefixes, and no dead ends."""
    allowed = {tuple(c): i for i, c in enumerate(ids.codes.tolist()) if i not in history}
    front = [((), 0.0)]
    for depth in range(ids.n_levels):
        grown = []
        for prefix, logp in front:
            level = level_logps(model, history, prefix)
            for code, more in enumerate(level):
                longer = (*prefix, code)
                if any(codes[: depth + 1] == longer for codes in allowed):
                    grown.append((longer, logp + more))
        front = sorted(grown, key=lambda entry: -entry[1])[:width]
    return [(allowed[prefix], logp) for prefix, logp in front]


def level_logps(model, history, prefix):
    """The log-probabilities of the next code after a prefix, through a fresh decoder."""
    decoder = open_decoder(model, pack([np.array(history)]))
    with torch.inference_mode():
        logits = decoder.first()
        for code in prefix:
            logits = decoder.advance(torch.tensor([[0]]), torch.tensor([[code]]))
    return logits[0, 0].log_softmax(dim=-1).tolist()


def test_sessions_are_the_best_of_all_and_never_repeat(make_ids, make_lazy, make_onerec):
    ids = make_ids(7, (3, 3))
    histories = pack([np.array([0]), np.array([6, 1])])
    for model in (make_lazy(ids), make_onerec(ids)):
        beams = search_sessions(
            open_decoder(model, histories),
            Trie.build(ids),
            torch.tensor([True] * 5 + [False, True]),
            whole_histories(histories),
            n_items=2,
            width=40,
        )
        for user, history in enumerate([[0], [6, 1]]):
            allowed = [item for item in (0, 1, 2, 3, 4, 6) if item not in history]
            every = list(itertools.permutations(allowed, 2))
            scores = [session_logp(model, history, list(session)) for session in every]
            order = np.argsort(-np.array(scores))
            n_found = len(every)
            found = [tuple(session) for session in beams.items[user, :n_found].tolist()]
            assert found == [every[place] for place in order]
            assert beams.logps[user, :n_found].tolist() == pytest.approx(
                [scores[place] for place in order], abs=1e-4
            )


def test_the_lazy_model_scores_sessions_as_it_decodes_them(make_ids, make_lazy):
    # Ten items of history and three of the session, of which the model reads eight.
    ids = make_ids(20, (3, 3, 3))
    model, histories = make_lazy(ids), pack([np.arange(10), np.array([4])])
    beams = search_sessions(
        open_decoder(model, histories),
        Trie.build(ids),
        torch.ones(20, dtype=torch.bool),
        whole_histories(histories),
        n_items=3,
        width=6,
    )
    logps = model.session_logps(histories, beams.items)
    assert torch.allclose(logps, beams.logps, atol=1e-4)
    shorter = beams.items.clone()
    shorter[:, :, 2] = -1
    assert torch.allclose(
        model.session_logps(histories, shorter),
        model.session_logps(histories, beams.items[:, :, :2]),
        atol=1e-4,
    )


def test_a_session_longer_than_the_model_was_made_for_is_refused(make_ids, make_onerec):
    ids = make_ids(20, (3, 3, 3))
    with pytest.raises(ConfigError, match=r"item 4 is asked for, and model\.n_session is 3"):
        search_sessions(
            open_decoder(make_onerec(ids), HISTORIES),
            Trie.build(ids),
            torch.ones(20, dtype=torch.bool),
            whole_histories(HISTORIES),
            n_items=4,
            width=2,
        )


def test_a_prefix_whose_items_are_all_taken_costs_no_beam(make_ids, make_lazy):
    ids = make_ids(12, (12, 2))
    histories = pack([np.arange(10)])
    beams = search_items(
        open_decoder(make_lazy(ids), histories),
        Trie.build(ids),
        torch.ones(12, dtype=torch.bool),
        whole_histories(histories),
        width=2,
    )
    assert sorted(beams.items[0, :, 0].tolist()) == [10, 11]


def test_diverse_beams_give_the_likeliest_first_codes_an_equal_share(model, ids):
    beams = search(model, ids, width=6, n_groups=3)
    plain = search(model, ids, width=40)
    for user in range(3):
        firsts = ids.codes[beams.items[user, :, 0].numpy(), 0]
        assert np.unique(firsts, return_counts=True)[1].tolist() == [2, 2, 2]
        logps = dict(zip(plain.items[user, :, 0].tolist(), plain.logps[user].tolist(), strict=True))
        for item, logp in zip(beams.items[user, :, 0].tolist(), beams.logps[user], strict=True):
            assert float(logp) == pytest.approx(logps[item], abs=1e-4)


def test_groups_that_do_not_divide_the_beams_are_refused(model, ids):
    with pytest.raises(ConfigError, match="5 beams in 2 groups"):
        search(model, ids, width=5, n_groups=2)


def test_users_do_not_influence_one_another(model, ids):
    together = search(model, ids, width=8)
    alone = search_items(
        open_decoder(model, HISTORIES.take(np.array([2]))),
        Trie.build(ids),
        EVERYTHING,
        whole_histories(HISTORIES.take(np.array([2]))),
        width=8,
    )
    assert together.items[2].tolist() == alone.items[0].tolist()


@pytest.mark.parametrize("n_groups", [5, 8])
def test_more_groups_than_first_codes_are_refused(model, ids, n_groups):
    sentence = f"{n_groups} groups and 4 first codes"
    with pytest.raises(ConfigError, match=sentence):
        search(model, ids, width=2 * n_groups, n_groups=n_groups)
