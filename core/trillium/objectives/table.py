"""The literal table of objectives, and the one call that evaluates any of them.

A row says what the function reads (`needs`), and `evaluate` hands it exactly that: a field that was
not declared never reaches it. The README, `trillium objectives list` and the tests come from here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from trillium.errors import DataError, ShapeError
from trillium.objectives import configs, pairwise, reference_free, unpaired
from trillium.objectives.batch import Needs, PairLogps, SingleLogps
from trillium.objectives.configs import ObjectiveConfig

Logps = PairLogps | SingleLogps
"""The log-probabilities of one model, in the shape an objective declares."""


@dataclass(frozen=True)
class Objective:
    """Describe one objective.

    `needs` is the most that any configuration of it reads; `needs_of` is exact. `trl` says whether
    TRL 1.16 has the same loss (same), another one under this name (differs) or none (absent); the
    function's docstring says how it differs.
    """

    name: str
    function: Callable[..., Float[Tensor, " example"]]
    config: type[BaseModel]
    needs: Needs
    arxiv: str
    trl: Literal["same", "differs", "absent"]
    help: str


_PAIR = Needs("pair", reference=True)
_PAIR_TOKENS = Needs("pair", reference=True, lengths=True)
_FREE_TOKENS = Needs("pair", lengths=True)

_ROWS = (
    Objective(
        name="dpo",
        function=pairwise.dpo,
        config=configs.DPOConfig,
        needs=_PAIR,
        arxiv="2305.18290",
        trl="same",
        help="Prefer chosen over rejected, relative to a frozen reference.",
    ),
    Objective(
        name="ipo",
        function=pairwise.ipo,
        config=configs.IPOConfig,
        needs=_PAIR_TOKENS,
        arxiv="2310.12036",
        trl="same",
        help="Regress the margin to a fixed target, so that it cannot grow for ever.",
    ),
    Objective(
        name="hinge",
        function=pairwise.hinge,
        config=configs.HingeConfig,
        needs=_PAIR,
        arxiv="2309.06657",
        trl="same",
        help="Push each margin to one and then leave the pair alone.",
    ),
    Objective(
        name="rdpo",
        function=pairwise.rdpo,
        config=configs.RDPOConfig,
        needs=_PAIR,
        arxiv="2403.00409",
        trl="same",
        help="DPO made unbiased under a known share of flipped labels.",
    ),
    Objective(
        name="fdpo",
        function=pairwise.fdpo,
        config=configs.FDPOConfig,
        needs=_PAIR,
        arxiv="2309.16240",
        trl="differs",
        help="DPO under forward KL, Jensen-Shannon or alpha divergence.",
    ),
    Objective(
        name="ln_dpo",
        function=pairwise.ln_dpo,
        config=configs.LNDPOConfig,
        needs=_PAIR_TOKENS,
        arxiv="2407.15229",
        trl="same",
        help="DPO on means per token, so that length earns nothing.",
    ),
    Objective(
        name="rpo",
        function=pairwise.rpo,
        config=configs.RPOConfig,
        needs=_PAIR_TOKENS,
        arxiv="2405.16436",
        trl="differs",
        help="DPO plus the likelihood of the chosen response, against over-optimisation.",
    ),
    Objective(
        name="simpo",
        function=reference_free.simpo,
        config=configs.SimPOConfig,
        needs=_FREE_TOKENS,
        arxiv="2405.14734",
        trl="same",
        help="Mean log-probabilities with a target margin; no reference model.",
    ),
    Objective(
        name="orpo",
        function=reference_free.orpo,
        config=configs.ORPOConfig,
        needs=_FREE_TOKENS,
        arxiv="2403.07691",
        trl="differs",
        help="Supervised fine-tuning with an odds-ratio penalty, in one stage.",
    ),
    Objective(
        name="cpo",
        function=reference_free.cpo,
        config=configs.CPOConfig,
        needs=Needs("pair", lengths=True, batch_tokens=True),
        arxiv="2401.08417",
        trl="same",
        help="DPO with a uniform reference plus the likelihood of the chosen response.",
    ),
    Objective(
        name="asft",
        function=reference_free.asft,
        config=configs.ASFTConfig,
        needs=_FREE_TOKENS,
        arxiv="2409.10571",
        trl="absent",
        help="Likelihood of the chosen response, absolute odds against the rejected one.",
    ),
    Objective(
        name="kto",
        function=unpaired.kto,
        config=configs.KTOConfig,
        needs=Needs("single", reference=True, mismatched=True, labels=("label",)),
        arxiv="2402.01306",
        trl="same",
        help="Thumbs up or down on single responses; no pairs needed.",
    ),
)

OBJECTIVES: dict[str, Objective] = {row.name: row for row in _ROWS}
"""Every objective by name, in the order of the README."""

# These fields of a configuration choose inputs; all others are keyword arguments of the function.
_CHOOSES_INPUTS = {"name", "reference_free", "normalize_by_ref"}


def needs_of(config: ObjectiveConfig) -> Needs:
    """Return what this configuration reads: the row's needs, less what its options make unused."""
    needs = OBJECTIVES[config.name].needs
    match config:
        case configs.DPOConfig(reference_free=True) | configs.HingeConfig(normalize_by_ref=False):
            return replace(needs, reference=False)
        case configs.IPOConfig(normalize="none") | configs.RPOConfig(sft="sum_beta"):
            return replace(needs, lengths=False)
    return needs


def evaluate(
    config: ObjectiveConfig,
    policy: Logps,
    reference: Logps | None = None,
    *,
    labels: Mapping[str, Tensor] | None = None,
    columns: Mapping[str, Tensor] | None = None,
    kl: Float[Tensor, ""] | None = None,
    tokens_per_pair: float | None = None,
) -> Float[Tensor, " example"]:
    """Return one loss per example, handing the objective what `needs_of(config)` says and no more.

    `kl` is KTO's reference point over the optimizer batch, `tokens_per_pair` the mean count of
    chosen tokens over it (None: over this batch).
    Raises DataError for a missing label or column, ShapeError for another shape or number.
    """
    needs, name = needs_of(config), config.name
    if needs.reference:
        _check_fit(name, policy, reference)
    arguments: dict[str, object] = config.model_dump(exclude=_CHOOSES_INPUTS)
    arguments |= {label: _declared(name, "label", label, labels) for label in needs.labels}
    arguments |= {column: _declared(name, "column", column, columns) for column in needs.columns}
    if needs.mismatched:
        arguments["kl"] = _declared(name, "reference point", "kl", {} if kl is None else {"kl": kl})
    if needs.batch_tokens:
        arguments["tokens_per_pair"] = tokens_per_pair
    function = OBJECTIVES[name].function
    if not OBJECTIVES[name].needs.reference:
        return function(_narrow(name, policy, needs), **arguments)
    declared = _narrow(name, reference, needs) if reference and needs.reference else None
    return function(_narrow(name, policy, needs), declared, **arguments)


def _narrow(name: str, logps: Logps, needs: Needs) -> Logps:
    """Drop the counts of tokens unless they were declared; raise ShapeError for another shape."""
    match logps, needs.shape:
        case PairLogps(), "pair":
            return logps if needs.lengths else replace(logps, n_chosen=None, n_rejected=None)
        case SingleLogps(), "single":
            return logps if needs.lengths else replace(logps, lengths=None)
    raise ShapeError(
        f"{name}: got {type(logps).__name__} (needs shape {needs.shape}); "
        "use an objective that fits the data, or convert the rows"
    )


def _check_fit(name: str, policy: Logps, reference: Logps | None) -> None:
    """Raise ShapeError when the reference is absent or of another number of examples."""
    if reference is None:
        raise ShapeError(
            f"{name}: the reference log-probabilities are missing (this objective compares with a "
            "reference); choose a reference, or an objective that needs none"
        )
    n_policy, n_reference = _n_examples(policy), _n_examples(reference)
    if n_policy != n_reference:
        raise ShapeError(
            f"{name}: policy has {n_policy} examples, reference has {n_reference}; "
            "both must come from the same batch"
        )


def _n_examples(logps: Logps) -> int:
    return len(logps.chosen) if isinstance(logps, PairLogps) else len(logps.logps)


def _declared(name: str, kind: str, key: str, given: Mapping[str, Tensor] | None) -> Tensor:
    """Return a declared tensor, or raise DataError that names what is there instead."""
    if not given or key not in given:
        present = ", ".join(sorted(given)) if given else "none"
        raise DataError(
            f'{name}: {kind} "{key}" is missing (the batch has: {present}); add it to every row'
        )
    return given[key]
