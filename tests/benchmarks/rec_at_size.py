"""OneRec's encoder-decoder at the paper's codebooks and experts: does it learn, and how fast.

    python tests/benchmarks/rec_at_size.py [--seconds 60] [--device cuda] [--json FILE]

Three levels of 8,192 codes by faiss over 20,000 simulated items; a decoder with 24 experts, 2 of
which work for a token (arXiv 2502.18965, Sections 3 and 4); 512 wide, 4 + 4 layers. The log is
simulated: its losses say that training works at this size, and nothing about people. `--ids FILE`
reads ids that `--save-ids FILE` wrote, for machines without faiss. Time: `--seconds`, and about a
minute besides. Success: the loss on held-out sessions falls, and no expert starves.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from trillium_rec.config import IdsConfig
from trillium_rec.decoding.beam import search_sessions
from trillium_rec.device import choose_device, place_on
from trillium_rec.id_fitting import fit_ids
from trillium_rec.id_quality import describe_ids
from trillium_rec.models.batches import SessionBatch, pad, session_batches
from trillium_rec.models.experts import MixtureOfExperts, expert_loads
from trillium_rec.models.onerec import OneRec
from trillium_rec.models.onerec_layers import OneRecConfig
from trillium_rec.recommenders import open_decoder, whole_histories
from trillium_rec.semantic_ids import SemanticIds, read_index
from trillium_rec.session_examples import SessionExamples, session_examples
from trillium_rec.sessions import QualityRule, SessionConfig
from trillium_rec.simulator import SimulatorConfig, simulate
from trillium_rec.sources import PositiveRule, keep_positive
from trillium_rec.splits import leave_one_out
from trillium_rec.trie import Trie

N_HELD_OUT, N_SESSION, N_BEAMS, N_DECODED = 512, 5, 128, 128
RULE = QualityRule(column="view", event_at_least=1, at_least=3)


def read_options() -> argparse.Namespace:
    """Return the options; those of size exist to try the script on a small machine."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of training")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--ids", type=Path, help="an index of ids fitted before")
    parser.add_argument("--save-ids", type=Path, help="where the fitted ids go; then stop")
    parser.add_argument("--users", type=int, default=6000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--codes", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    return parser.parse_args()


def make_world(options: argparse.Namespace) -> tuple[SemanticIds, SessionExamples, dict]:
    """Return ids, sessions with what came before them, and how good the ids are."""
    size = SimulatorConfig(n_users=options.users, n_items=options.items, n_days=12)
    log = simulate(size).dataset
    positive = keep_positive(log, (PositiveRule(column="view", at_least=1),))
    train, catalogue = leave_one_out(positive).train, positive.catalogue
    if options.ids is not None:
        ids = read_index(options.ids, catalogue.ids)
    else:
        fitted = IdsConfig(n_levels=3, codebook_size=options.codes)
        ids = fit_ids(fitted, catalogue.ids, catalogue.vectors, train, seed=0).ids
    if options.save_ids is not None:
        marks = zip(ids.items, ids.codes.tolist(), strict=True)
        rows = {item: [f"<{'abc'[n]}_{c}>" for n, c in enumerate(codes)] for item, codes in marks}
        options.save_ids.write_text(json.dumps(rows))
    quality = describe_ids(ids.codes, ids.sizes, train)
    sessions = SessionConfig(by="request", rules=(RULE,))
    examples = session_examples(log, positive, sessions, n_session=N_SESSION)
    levels = [(level.usage, level.smallest, level.largest) for level in quality.levels]
    return ids, examples, {"levels": levels, "collisions": quality.n_collisions}


def make_model(ids: SemanticIds, width: int, device: torch.device) -> OneRec:
    """Build the model with random weights."""
    torch.manual_seed(0)
    config = OneRecConfig(
        sizes=list(ids.sizes), n_items=ids.n_items, d_model=width, d_head=64, d_ff=4 * width,
        n_heads=max(1, width // 64), n_encoder_layers=4, n_decoder_layers=4, max_items=64,
        n_session=N_SESSION, n_experts=24, n_active=2,
    )  # fmt: skip
    model = OneRec(config)
    model.set_catalogue(ids)
    return place_on(device, model)


@torch.no_grad()
def held_out_loss(model: OneRec, held_out: list[SessionBatch]) -> float:
    """Return -log P of held-out sessions, a mean over items, in nats."""
    model.eval()
    total, n_items = 0.0, 0
    for batch in held_out:
        total += float(model.losses(batch).total) * batch.n_targets
        n_items += batch.n_targets
    return total / n_items


def train(model: OneRec, examples: SessionExamples, options: argparse.Namespace) -> list[dict]:
    """Train until the time is over; returns a row every 25 steps."""
    rows: list[dict] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01, fused=True)
    started = last = time.monotonic()
    step = n_sessions = epoch = 0
    losses: list[torch.Tensor] = []
    while time.monotonic() - started < options.seconds:
        batches = session_batches(
            examples.histories,
            examples.sessions,
            batch_size=options.batch,
            max_items=64,
            seed=epoch,
        )
        epoch += 1
        for batch in batches:
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = 3e-4 * min(1.0, (step + 1) / 50)
            loss = model.losses(batch).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, n_sessions = step + 1, n_sessions + len(batch.session)
            losses.append(loss.detach())
            if step % 25 == 0 or time.monotonic() - started >= options.seconds:
                mean, now = float(torch.stack(losses).mean()), time.monotonic()
                loads = expert_loads(model)
                rows.append(
                    {
                        "step": step, "epoch": epoch, "loss": mean,
                        "sessions_per_s": n_sessions / (now - last),
                        "least_share": min(map(min, loads)), "most_share": max(map(max, loads)),
                    }
                )  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
                for module in model.modules():
                    if isinstance(module, MixtureOfExperts):
                        module.forget_load()
                last, n_sessions, losses = time.monotonic(), 0, []
            if time.monotonic() - started >= options.seconds:
                break
    return rows


def decode(model: OneRec, ids: SemanticIds, examples: SessionExamples) -> dict[str, float]:
    """Draw the likeliest sessions of some users by beams, and count users per second."""
    model.eval()
    trie = Trie.build(ids).to(model.device)
    everything = torch.ones(ids.n_items, dtype=torch.bool)
    seconds, n_whole = [], 0
    for begin in range(0, N_DECODED, 32):
        histories = examples.histories.take(np.arange(begin, begin + 32))
        started = time.monotonic()
        found = search_sessions(
            open_decoder(model, histories), trie, everything, whole_histories(histories),
            n_items=N_SESSION, width=N_BEAMS,
        )  # fmt: skip
        items = found.items.cpu()
        seconds.append(time.monotonic() - started)
        n_whole += int((items >= 0).all())
    return {"users_per_s": 32 / min(seconds), "beams": N_BEAMS, "whole_batches": n_whole}


def main() -> None:
    """Fit or read ids, train, decode, and say what was found."""
    options = read_options()
    device = choose_device(options.device)
    started = time.monotonic()
    ids, examples, quality = make_world(options)
    print(
        f"{ids.n_items} items, {examples.histories.n_sequences} sessions, ids {quality}", flush=True
    )
    print(f"{time.monotonic() - started:.1f} s for the log and its ids", flush=True)
    if options.save_ids is not None:
        return
    rows = np.random.default_rng(0).permutation(examples.histories.n_sequences)
    parts = [
        SessionExamples(examples.histories.take(part), examples.sessions.take(part))
        for part in (rows[:N_HELD_OUT], rows[N_HELD_OUT:])
    ]
    held_out = [SessionBatch(pad(p.histories, 64), pad(p.sessions, N_SESSION)) for p in parts[:1]]
    model = make_model(ids, options.width, device)
    n_parameters = sum(p.numel() for p in model.parameters())
    figures: dict = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "parameters": n_parameters, "sizes": list(ids.sizes), "items": ids.n_items,
        "sessions": len(rows), "ids": quality, "held_out_before": held_out_loss(model, held_out),
    }  # fmt: skip
    print(json.dumps(figures), flush=True)
    figures["training"] = train(model, parts[1], options)
    figures["held_out_after"] = held_out_loss(model, held_out)
    figures["decoding"] = decode(model, ids, examples)
    if device.type == "cuda":
        figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    for key in ("held_out_before", "held_out_after", "decoding"):
        print(f"{key}: {figures[key]}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
