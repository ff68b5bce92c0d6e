"""Losses of whole steps, built by hand from plain forward passes of one path at a time.

The oracle knows no batch: it runs the model on every path by itself, takes the softmax over the
whole vocabulary, and builds what each objective takes.
"""

import torch
from torch.nn.utils.rnn import pad_sequence
from trillium.objectives import (
    companions,
    embeddings,
    listwise,
    reference_free,
    tokens,
    tree,
    unpaired,
)
from trillium.objectives.batch import (
    ListLogps,
    ListSteps,
    PairLogps,
    PairTokens,
    SideStream,
    SingleLogps,
)
from trillium.objectives.configs import DPOConfig, ORPOConfig
from trillium.objectives.numerics import token_kl
from trillium.objectives.recipe_configs import (
    C3POConfig,
    DegreeConfig,
    DOVEConfig,
    LiPOConfig,
    OREOConfig,
    PoFTConfig,
    PROConfig,
    RationaleConfig,
    SLiCConfig,
    SparsePOConfig,
    SRPOConfig,
    TDPOConfig,
    TreeTPOConfig,
    TripleConfig,
    XPOConfig,
)
from trillium.training.heads import heads_of


class Oracle:
    """What one path is to a policy and its base, token after token."""

    def __init__(self, model, path):
        ids = torch.tensor(path.ids)[None]
        at = torch.tensor(path.scored).nonzero()[:, 0]
        output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        with torch.no_grad(), model.disable_adapter():
            base = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        self.logits, self.base_logits = output.logits[0, at - 1], base.logits[0, at - 1]
        self.hidden = output.hidden_states[-1][0, at - 1]
        self.base_layers = torch.stack([x[0, at - 1] for x in base.hidden_states[1:]], 1)
        target = ids[0, at, None]
        self.logps = self.logits.log_softmax(-1).gather(-1, target)[:, 0]
        self.base = self.base_logits.log_softmax(-1).gather(-1, target)[:, 0]

    def kl(self, temp=1.0):
        return token_kl(self.base_logits / temp, self.logits / temp)

    def reverse_kl(self):
        return token_kl(self.logits, self.base_logits)


class Step:
    """All trees of a step, by path; `rows[k]` are the paths at place k of every tree."""

    def __init__(self, model, trees):
        self.model, self.trees = model, trees
        self.by_tree = [[Oracle(model, t.path(k)) for k in range(t.n_paths)] for t in trees]
        self.all = [path for paths in self.by_tree for path in paths]
        self.group = torch.tensor([i for i, paths in enumerate(self.by_tree) for _ in paths])
        self.rows = list(zip(*self.by_tree, strict=False))

    def sums(self, place):
        return torch.stack([path.logps.sum() for path in self.rows[place]])

    def fixed(self, place):
        return torch.stack([path.base.sum() for path in self.rows[place]])

    def lengths(self, place):
        return torch.tensor([len(path.logps) for path in self.rows[place]])

    def pair(self, of, first=0):
        return PairLogps(of(first), of(first + 1))

    def label(self, name):
        return torch.tensor([x for t in self.trees for x in t.labels[name]], dtype=torch.float32)

    def column(self, name):
        return torch.tensor([t.columns[name] for t in self.trees], dtype=torch.float32)

    def tokens(self, read):
        """Return `read` of every path of the pairs, padded."""
        return PairTokens(*(pad_sequence([read(p) for p in row], True) for row in self.rows[:2]))

    def steps(self, read):
        """Return sums over steps of every path, padded."""
        cut = [
            torch.stack([part.sum(0) for part in read(path).split(list(counts))])
            for paths, each in zip(self.by_tree, self.trees, strict=True)
            for path, counts in zip(paths, each.steps, strict=True)
        ]
        return pad_sequence(cut, True)


def pair_logps(path):
    return path.logps


def of_dpo(step, config):
    from trillium.objectives.pairwise import dpo

    return dpo(step.pair(step.sums), step.pair(step.fixed), beta=config.beta)


def of_slic(step, config):
    return companions.slic(step.pair(step.sums), target=step.sums(2))


def of_triple(step, config):
    policy = PairLogps(step.sums(0), step.sums(1), step.lengths(0), step.lengths(1))
    gold = SingleLogps(step.sums(2), step.lengths(2))
    return companions.tpo_triple(policy, gold=gold, variant=config.variant)


def of_rationale(step, config):
    return companions.rationale_dpo(
        step.pair(step.sums), step.pair(step.fixed), rationale=step.sums(2)
    )


def of_xpo(step, config):
    is_chosen = step.column("reference_is_chosen") > 0.5
    sample = torch.where(is_chosen, step.sums(0), step.sums(1))
    return companions.xpo(
        step.pair(step.sums), step.pair(step.fixed), reference_sample=sample, alpha=config.alpha
    )


def of_srpo(step, config):
    def ratio(place):
        return step.sums(place) - step.fixed(place)

    return companions.srpo(
        step.pair(ratio),
        given_chosen=step.pair(ratio, 2),
        given_rejected=step.pair(ratio, 4),
        p_win=step.column("p_win"),
    )


def of_c3po(step, config):
    near, out = (
        SideStream(
            step.sums(place),
            step.lengths(place),
            torch.stack([path.kl(config.temp).sum() for path in step.rows[place]]),
        )
        for place in (2, 3)
    )
    return companions.c3po(
        step.pair(step.sums),
        step.pair(step.fixed),
        near_scope=near,
        out_of_scope=out,
        **config.model_dump(exclude={"name"}),
    )


def of_dove(step, config):
    policy, fixed = (step.steps(read) for read in (pair_logps, lambda path: path.base))

    def pair(sums, part):
        return PairLogps(sums[0::2, part], sums[1::2, part])

    return companions.dove(
        pair(policy, 1),
        pair(fixed, 1),
        policy_prompt=pair(policy, 0),
        reference_prompt=pair(fixed, 0),
    )


def of_orpo(step, config):
    sums = step.steps(pair_logps)
    counts = step.steps(lambda path: torch.ones(len(path.logps), dtype=torch.int64))
    prompt, policy = (
        PairLogps(sums[0::2, at], sums[1::2, at], counts[0::2, at], counts[1::2, at])
        for at in (0, 1)
    )
    return reference_free.orpo(policy, nll=config.nll, policy_prompt=prompt)


def of_poft(step, config):
    policy = SingleLogps(step.sums(0), step.lengths(0))
    return unpaired.poft(policy, aligned_mean_logps=step.column("aligned_mean_logps"))


def of_lipo(step, config):
    policy, fixed = (
        ListLogps(torch.stack([read(path).sum() for path in step.all]), step.group)
        for read in (pair_logps, lambda path: path.base)
    )
    return listwise.lipo(policy, fixed, label=step.label("label"), variant=config.variant)


def of_pro(step, config):
    sums = torch.stack([path.logps.sum() for path in step.all])
    lengths = torch.tensor([len(path.logps) for path in step.all])
    return listwise.pro(ListLogps(sums, step.group, lengths), reward=step.label("reward"))


def of_tree(step, config):
    counts = step.steps(lambda path: torch.ones_like(path.logps))
    hidden = step.steps(lambda path: path.hidden.detach()) / counts.clamp(min=1)[..., None]
    label = step.label("label")
    weights = torch.zeros_like(counts)
    for row, group in enumerate(step.group):
        members = (step.group == group).nonzero()[:, 0]
        best = int(members[label[members].argmax()])
        for place in range(int((counts[row] > 0).sum())):
            other = min(place, int((counts[best] > 0).sum()) - 1)
            similarity = torch.cosine_similarity(hidden[row, place], hidden[best, other], dim=0)
            weights[row, place] = 1 + similarity
    policy, fixed = (
        ListSteps(step.steps(read) / counts.clamp(min=1), step.group)
        for read in (pair_logps, lambda path: path.base)
    )
    return tree.tree_tpo(policy, fixed, label=label, step_weight=weights)


def of_tdpo(step, config):
    return tokens.tdpo(
        step.tokens(pair_logps),
        step.tokens(lambda path: path.base),
        kl=step.tokens(lambda path: path.kl()),
        variant=config.variant,
    )


def of_sparsepo(step, config):
    heads = heads_of(step.model)

    def mask(name):
        def read(path):
            every = torch.ones(1, len(path.logps), dtype=torch.bool)
            if config.masks == "mapo":
                return tokens.mapo_mask(path.base_layers[None], every)[0]
            return heads[name](path.base_layers[None], every)[0]

        return step.tokens(read)

    names = ("mask_u", "mask_d") if config.masks == "independent" else ("mask", "mask")
    mask_u, mask_d = map(mask, names)
    return tokens.sparsepo(
        step.tokens(pair_logps),
        step.tokens(lambda path: path.base),
        kl=step.tokens(lambda path: path.kl()),
        mask_u=mask_u,
        mask_d=mask_d,
        l1_u=config.l1_u,
        l1_d=config.l1_d,
    )


def of_oreo(step, config):
    value = heads_of(step.model)["value"]
    losses = [
        tokens.oreo(
            path.logps[None],
            path.base[None],
            values=value(path.hidden.detach()).T,
            scored=torch.ones(1, len(path.logps), dtype=torch.bool),
            reward=reward[None],
            reverse_kl=path.reverse_kl()[None] if config.alpha else None,
            forward_kl=path.kl()[None] if config.alpha else None,
            divergence=config.divergence,
            alpha=config.alpha,
        )
        for path, reward in zip(step.all, step.label("reward"), strict=True)
    ]
    return torch.cat(losses)


def of_degree(step, config):
    head = heads_of(step.model)["degree_logits"]
    logits = head(torch.stack([path.hidden[-1] for path in step.rows[1]]))
    return embeddings.spo_degree(
        step.pair(step.sums),
        step.pair(step.fixed),
        degree_logits=logits,
        degree_label=step.column("degree_label"),
    )


CASES = [
    (DPOConfig(), of_dpo),
    (SLiCConfig(), of_slic),
    (TripleConfig(), of_triple),
    (TripleConfig(variant="tpo_l"), of_triple),
    (RationaleConfig(), of_rationale),
    (XPOConfig(alpha=0.01), of_xpo),
    (SRPOConfig(), of_srpo),
    (C3POConfig(), of_c3po),
    (C3POConfig(kd_lambda=0.5, temp=2.0), of_c3po),
    (DOVEConfig(), of_dove),
    (PoFTConfig(), of_poft),
    (LiPOConfig(), of_lipo),
    (LiPOConfig(variant="softmax"), of_lipo),
    (PROConfig(), of_pro),
    (TreeTPOConfig(), of_tree),
    (TDPOConfig(), of_tdpo),
    (TDPOConfig(variant="tdpo1"), of_tdpo),
    (SparsePOConfig(l1_u=1e-3, l1_d=2e-3), of_sparsepo),
    (SparsePOConfig(masks="independent", l1_u=1e-3), of_sparsepo),
    (SparsePOConfig(masks="mapo"), of_sparsepo),
    (OREOConfig(alpha=0.5), of_oreo),
    (OREOConfig(alpha=0.0), of_oreo),
    (OREOConfig(alpha=0.5, divergence="forward"), of_oreo),
    (OREOConfig(alpha=0.5, divergence="sampled"), of_oreo),
    (ORPOConfig(nll="sequence"), of_orpo),
    (DegreeConfig(), of_degree),
]
