"""The inputs of one case as tensors and a configuration, and what a binding computes from them.

The keys are those of the case format (`policy_chosen_logps`, `chosen_lens`, ...).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from trillium.errors import DataError
from trillium.objectives.batch import PairLogps
from trillium.objectives.config_fields import FrozenConfig

Config = TypeVar("Config", bound=FrozenConfig)


@dataclass(frozen=True)
class Outcome:
    """Hold what one case computed; `loss` is None when it is the mean of the losses."""

    losses: Tensor | None = None
    loss: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseInputs:
    """Give the inputs of one case as tensors; asking twice for a real one gives the same leaf."""

    where: str
    raw: Mapping[str, object]
    dtype: torch.dtype = torch.float64
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """Say whether the case has this input."""
        return name in self.raw

    def real(self, name: str) -> Float[Tensor, "*shape"]:
        """Return an input that collects a gradient."""
        if name not in self.leaves:
            self.leaves[name] = self._tensor(name, self.dtype).requires_grad_()
        return self.leaves[name]

    def whole(self, name: str) -> Int[Tensor, "*shape"]:
        """Return an input of counts, token ids or flags as int64."""
        return self._tensor(name, torch.int64)

    def _tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        if name not in self.raw:
            raise DataError(f'{self.where} has no input "{name}"; add it to "inputs"')
        try:
            return torch.tensor(self.raw[name], dtype=dtype)
        except (TypeError, ValueError) as error:
            raise DataError(
                f'{self.where}: input "{name}" is not numbers of one shape ({error}); correct it'
            ) from error


Binding = Callable[[Mapping[str, object], CaseInputs], Outcome]
"""A function from the `hparams` and `inputs` of a case to what it computes."""


def configure(config: type[Config], hparams: Mapping[str, object], inputs: CaseInputs) -> Config:
    """Return the configuration a case describes, or raise DataError that names what is wrong."""
    try:
        return config.model_validate(dict(hparams))
    except ValidationError as error:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        raise DataError(
            f'{inputs.where} is no {config.__name__} ({wrong}); correct "hparams"'
        ) from error


def pair_logps(model: str, inputs: CaseInputs, *, lengths: bool = False) -> PairLogps:
    """Return the log-probabilities of one model (policy, ref, ...) for the pairs of a case."""
    chosen = inputs.real(f"{model}_chosen_logps")
    rejected = inputs.real(f"{model}_rejected_logps")
    if not lengths:
        return PairLogps(chosen, rejected)
    n_chosen = inputs.whole("chosen_lens")
    # A file may leave out the rejected counts when its method reads only those of the chosen side.
    n_rejected = inputs.whole("rejected_lens") if "rejected_lens" in inputs else n_chosen
    return PairLogps(chosen, rejected, n_chosen, n_rejected)
