"""Users per second of constrained beams: `generate` with a prefix function, and ours, in one run.

    python tests/benchmarks/rec_decode.py [--rounds 3] [--experts 24] [--json FILE]

About two minutes. Same OneRec with random weights (128 wide, 4 + 4 layers, 4 codes per item, 12,101
items), same 16 users, same beams; results are compared before any time counts. Methods take turns,
and processor time is what is compared, so that a busy machine hurts both alike; the best round
counts. Success: the table ends with every required ratio marked "held".
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging as transformers_logging
from trillium_rec.decoding.beam import Beams, search_items
from trillium_rec.decoding.onerec_decoder import OneRecDecoder
from trillium_rec.models.batches import pad
from trillium_rec.models.onerec import OneRec
from trillium_rec.models.onerec_layers import OneRecConfig
from trillium_rec.semantic_ids import SemanticIds
from trillium_rec.splits import Sequences, pack
from trillium_rec.trie import Trie

N_ITEMS, SIZES, N_USERS = 12_101, (256, 256, 256, 256), 16
# Beauty has 4,593 prefixes of two codes: about 18 second codes per first one.
N_SECOND = 18
REQUIRED = {20: 8.0, 50: 12.0}


def make_ids(random: np.random.Generator) -> SemanticIds:
    """Draw distinct codes whose prefixes are shared as those of real items are."""
    seconds = np.stack([random.permutation(256)[:N_SECOND] for _ in range(256)])
    rows: dict[tuple[int, ...], None] = {}
    while len(rows) < N_ITEMS:
        first, third, fourth = random.integers(0, 256, 3).tolist()
        rows[(first, int(random.choice(seconds[first])), third, fourth)] = None
    codes = np.array(list(rows), np.int64)
    items = tuple(str(number) for number in range(N_ITEMS))
    return SemanticIds("benchmark", 0, items, codes, SIZES, np.zeros(N_ITEMS, np.int64))


def make_model(ids: SemanticIds, n_experts: int) -> OneRec:
    """Build the model with weights wide enough that log-probabilities differ."""
    torch.manual_seed(0)
    config = OneRecConfig(
        sizes=list(SIZES), n_items=N_ITEMS, n_experts=n_experts, max_items=20, n_session=1
    )
    model = OneRec(config)
    model.set_catalogue(ids)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.08)
    return model.eval()


def by_generate(
    model: OneRec, ids: SemanticIds, histories: Sequences, width: int
) -> Callable[[], Beams]:
    """Return a method that lets `generate` search, with a dictionary of prefixes."""
    offsets = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    tokens_of_items = (ids.codes + offsets).tolist()
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for row in tokens_of_items:
        for depth in range(len(SIZES)):
            following.setdefault(tuple(row[:depth]), {})[row[depth]] = None
    allowed = {prefix: list(codes) for prefix, codes in following.items()}
    item_of = {tuple(row): item for item, row in enumerate(tokens_of_items)}
    tokens = model.item_tokens(pad(histories, model.config.max_items)).flatten(1)
    mask = (tokens != model.config.pad_token_id).long()

    def search() -> Beams:
        found = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=len(SIZES),
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, done: allowed[tuple(done.tolist()[1:])],
            return_dict_in_generate=True,
            output_scores=True,
        )
        items = [item_of[tuple(row)] for row in found.sequences[:, 1:].tolist()]
        shape = (N_USERS, width)
        return Beams(torch.tensor(items).view(*shape, 1), found.sequences_scores.view(shape))

    return search


def by_trie(
    model: OneRec, ids: SemanticIds, histories: Sequences, width: int
) -> Callable[[], Beams]:
    """Return a method that searches the tensor trie; histories are not excluded, as above."""
    trie, eligible = Trie.build(ids), torch.ones(N_ITEMS, dtype=torch.bool)
    nothing = torch.full((N_USERS, 1), -1)

    def search() -> Beams:
        with torch.inference_mode():
            decoder = OneRecDecoder(model, model.read(histories))
        return search_items(decoder, trie, eligible, nothing, width=width)

    return search


def agreement(first: Beams, second: Beams) -> float:
    """Return the share of places with the same item; stop when the results are not the same.

    Two items whose log-probabilities differ by rounding only may change places.
    """
    same = (first.items == second.items)[..., 0]
    apart = (first.logps - second.logps).abs().max().item()
    if apart > 1e-3 or same.float().mean().item() < 0.99:
        raise SystemExit(f"the results differ: {same.float().mean():.4f} equal, {apart:.2g} apart")
    return same.float().mean().item()


def measure(methods: dict[str, Callable[[], Beams]], n_rounds: int) -> dict[str, float]:
    """Return users per second of processor time, the best of the rounds."""
    best = dict.fromkeys(methods, 0.0)
    for _ in range(n_rounds):
        for name, method in methods.items():
            started = time.process_time()
            method()
            best[name] = max(best[name], N_USERS / (time.process_time() - started))
    return best


def main() -> None:
    """Compare the two at both widths and say whether the ratios hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experts", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    random = np.random.default_rng(0)
    ids = make_ids(random)
    model = make_model(ids, options.experts)
    lengths = random.integers(4, 21, N_USERS).tolist()
    histories = pack([random.integers(0, N_ITEMS, length) for length in lengths])
    rows = []
    print(f"{'beams':>5} {'generate':>9} {'ours':>9} {'ratio':>6}  needed  agreement")
    for width, needed in REQUIRED.items():
        methods = {
            "generate": by_generate(model, ids, histories, width),
            "ours": by_trie(model, ids, histories, width),
        }
        agreed = agreement(methods["generate"](), methods["ours"]())
        rates = measure(methods, options.rounds)
        ratio = rates["ours"] / rates["generate"]
        held = "held" if ratio >= needed else "MISSED"
        print(
            f"{width:>5} {rates['generate']:>7.1f}/s {rates['ours']:>7.1f}/s {ratio:>5.1f}x  "
            f"{needed:.0f}x {held}  {agreed:.4f}",
            flush=True,
        )
        rows.append({"beams": width, **rates, "ratio": ratio, "agreement": agreed})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
