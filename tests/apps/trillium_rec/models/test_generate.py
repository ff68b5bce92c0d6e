"""`generate` with a prefix function, and the beams of this package, on the same model."""

import numpy as np
import pytest
import torch
from trillium_rec.decoding.beam import search_items
from trillium_rec.models.batches import pad
from trillium_rec.recommenders import open_decoder
from trillium_rec.splits import pack
from trillium_rec.trie import Trie


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_and_the_beams_agree(make_ids, make_onerec, use_cache):
    ids = make_ids(40, (4, 5, 6))
    model = make_onerec(ids)
    histories = pack([np.array([3, 5, 9]), np.array([0]), np.array([7, 2])])
    tokens = model.item_tokens(pad(histories, 6)).flatten(1)
    offsets = np.array([0, 4, 9])
    following: dict[tuple[int, ...], list[int]] = {}
    for codes in (ids.codes + offsets).tolist():
        for depth in range(3):
            following.setdefault(tuple(codes[:depth]), []).append(codes[depth])
    sequences = model.generate(
        input_ids=tokens,
        attention_mask=(tokens != model.config.pad_token_id).long(),
        num_beams=5,
        num_return_sequences=5,
        max_new_tokens=3,
        do_sample=False,
        use_cache=use_cache,
        prefix_allowed_tokens_fn=lambda _, done: following[tuple(done.tolist()[1:])],
        return_dict_in_generate=True,
        output_scores=True,
        length_penalty=0.0,
    )
    beams = search_items(
        open_decoder(model, histories),
        Trie.build(ids),
        torch.ones(40, dtype=torch.bool),
        torch.full((3, 1), -1),
        width=5,
    )
    item_of = {tuple(codes): item for item, codes in enumerate((ids.codes + offsets).tolist())}
    found = [item_of[tuple(row)] for row in sequences.sequences[:, 1:].tolist()]
    assert np.array(found).reshape(3, 5).tolist() == beams.items[:, :, 0].tolist()
    assert sequences.sequences_scores.view(3, 5).tolist() == [
        pytest.approx(row, abs=1e-4) for row in beams.logps.tolist()
    ]
