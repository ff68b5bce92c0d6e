"""`evaluate`: the one call that computes the losses of any objective a trainer can feed.

It hands a function exactly what `needs_of` declares: a field that was not declared never reaches
it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from trillium.errors import DataError, ShapeError
from trillium.objectives.batch import (
    ListLogps,
    ListSteps,
    Needs,
    PairLogps,
    PairTokens,
    Shape,
    SingleLogps,
)
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import CHOOSES_INPUTS, OBJECTIVES, needs_of

Given = TypeVar("Given")
Logps = PairLogps | SingleLogps | ListLogps | ListSteps | PairTokens | Tensor
"""The log-probabilities of one model, in the shape the trainer passes."""

_TYPES: dict[Shape, type] = {
    "pair": PairLogps,
    "single": SingleLogps,
    "list": ListLogps,
    "steps": ListSteps,
    "pair_token": PairTokens,
    "token": Tensor,
}


def evaluate(
    config: ObjectiveConfig,
    policy: Logps,
    reference: Logps | None = None,
    *,
    labels: Mapping[str, Tensor] | None = None,
    columns: Mapping[str, Tensor] | None = None,
    kl: Float[Tensor, ""] | None = None,
    tokens_per_pair: float | None = None,
    computed: Mapping[str, object] | None = None,
) -> Float[Tensor, " example"]:
    """Return one loss per example, handing the objective what `needs_of(config)` says and no more.

    `kl` is KTO's reference point over the optimizer batch, `tokens_per_pair` the mean count of
    chosen tokens over it (None: over this batch), and `computed` holds the arguments of that name.
    Raises DataError for a missing label, column or argument, ShapeError for another shape or
    number.
    """
    needs, name = needs_of(config), config.name
    if needs.reference:
        _check_fit(name, policy, reference)
    arguments: dict[str, object] = config.model_dump(exclude=set(CHOOSES_INPUTS))
    arguments |= {label: _declared(name, "label", label, labels) for label in needs.labels}
    arguments |= {column: _declared(name, "column", column, columns) for column in needs.columns}
    arguments |= {key: _declared(name, "argument", key, computed) for key in needs.computed}
    if needs.mismatched:
        arguments["kl"] = _declared(name, "reference point", "kl", {} if kl is None else {"kl": kl})
    if needs.batch_tokens:
        arguments["tokens_per_pair"] = tokens_per_pair
    models: list[Logps | None] = [_narrow(name, policy, needs)]
    if needs.logratios:
        assert isinstance(policy, PairLogps)
        assert isinstance(reference, PairLogps)
        models = [_narrow(name, policy.against(reference), needs)]
    elif OBJECTIVES[name].needs.reference:
        is_read = reference is not None and needs.reference
        models.append(_narrow(name, reference, needs) if is_read else None)
    losses = OBJECTIVES[name].function(*models, **arguments)
    assert isinstance(losses, Tensor)  # every trainable objective returns losses
    return losses


def _narrow(name: str, logps: Logps | None, needs: Needs) -> Logps:
    """Drop the counts of tokens unless they were declared; raise ShapeError for another shape."""
    if not isinstance(logps, _TYPES[needs.shape]):
        raise ShapeError(
            f"{name}: got {type(logps).__name__} (needs shape {needs.shape}); "
            "use an objective that fits the data, or convert the rows"
        )
    match logps:
        case PairLogps() if not needs.lengths:
            return replace(logps, n_chosen=None, n_rejected=None)
        case SingleLogps() | ListLogps() if not needs.lengths:
            return replace(logps, lengths=None)
    assert logps is not None
    return logps


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
    match logps:
        case PairLogps() | PairTokens():
            return len(logps.chosen)
        case Tensor():
            return len(logps)
    return len(logps.logps)


def _declared(name: str, kind: str, key: str, given: Mapping[str, Given] | None) -> Given:
    """Return a declared input, or raise DataError that names what is there instead."""
    if not given or key not in given:
        present = ", ".join(sorted(given)) if given else "none"
        raise DataError(
            f'{name}: {kind} "{key}" is missing (the batch has: {present}); add it to every row'
        )
    return given[key]
