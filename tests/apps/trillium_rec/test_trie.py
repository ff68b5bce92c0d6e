import dataclasses

import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.trie import NO_NODE, Trie


def paths_below(trie, depth, node):
    """The codes and items below a node, one step after another."""
    if depth == len(trie.levels):
        return {(): int(trie.item_of_leaf[node])}
    children = trie.levels[depth].children(torch.tensor([[node]]))
    found = {}
    for place, child in enumerate(children.nodes[0, 0].tolist()):
        if child != NO_NODE:
            code = place if children.codes is None else int(children.codes[0, 0, place])
            for rest, item in paths_below(trie, depth + 1, child).items():
                found[(code, *rest)] = item
    return found


def test_the_paths_of_the_trie_are_the_ids(make_ids):
    ids = make_ids(60, (5, 4, 3, 6))
    found = paths_below(Trie.build(ids), 0, 0)
    assert found == {tuple(codes): item for item, codes in enumerate(ids.codes.tolist())}


def test_dense_tables_and_ranges_say_the_same(make_ids):
    trie = Trie.build(make_ids(60, (5, 4, 3)))
    level = trie.levels[1]
    bare = dataclasses.replace(level, table=None)
    nodes = torch.arange(len(level.first) - 1)[None]
    dense, ranged = level.children(nodes), bare.children(nodes)
    for node in range(nodes.shape[1]):
        by_range = {
            (int(code), int(child))
            for code, child in zip(ranged.codes[0, node], ranged.nodes[0, node], strict=True)
            if child != NO_NODE
        }
        by_table = {
            (code, int(child))
            for code, child in enumerate(dense.nodes[0, node])
            if child != NO_NODE
        }
        assert by_range == by_table


def test_leaves_are_counted_by_eligible_items(make_ids):
    ids = make_ids(40, (4, 4, 4))
    trie = Trie.build(ids)
    eligible = torch.arange(40) % 3 == 0
    counts = trie.count_leaves(eligible)[0]
    first = np.unique(ids.codes[:, 0])
    expected = [int((eligible.numpy() & (ids.codes[:, 0] == code)).sum()) for code in first]
    assert counts.tolist() == expected


def test_ids_that_collide_are_refused(make_ids):
    ids = make_ids(10, (4, 4))
    codes = ids.codes.copy()
    codes[3] = codes[7]
    with pytest.raises(DataError, match="10 items have 9 different ids"):
        Trie.build(dataclasses.replace(ids, codes=codes))
