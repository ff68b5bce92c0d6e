"""A Gaussian process over the unit cube, and where it would look next; both are BoTorch's.

Results are larger-is-better and may repeat a point: repeats tell the noise. The search sees means
of the process, never single lucky results.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.errors import BackendError, ConfigError
from trillium.tuning.space import Acquisition

if TYPE_CHECKING:
    from botorch.acquisition.acquisition import AcquisitionFunction
    from botorch.models import SingleTaskGP

_N_STARTS, _N_RAW = 4, 128
_N_FANTASIES = 16
_N_CANDIDATES = 512


@dataclass(frozen=True)
class Surrogate:
    """Hold a fitted process; `centre` and `spread` turn its standardised values into results."""

    model: "SingleTaskGP"
    points: Float[Tensor, "result parameter"]
    centre: float
    spread: float

    def predict(
        self, points: Float[Tensor, "point parameter"]
    ) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        """Return mean and standard deviation of the noise-free result at each point."""
        with torch.no_grad(), _quiet():
            found = self.model.posterior(points)
        mean, deviation = found.mean[:, 0], found.variance[:, 0].clamp(min=0).sqrt()
        return self.centre + self.spread * mean, self.spread * deviation

    @property
    def noise(self) -> float:
        """Return the standard deviation of a single result around its mean."""
        noise: Tensor = self.model.likelihood.noise
        return self.spread * float(noise.detach().mean().sqrt())


def fit_surrogate(
    points: Sequence[Sequence[float]], results: Sequence[float], *, seed: int
) -> Surrogate:
    """Fit an RBF process with a length per parameter and one noise, at the maximum a posteriori.

    The priors scale with the dimension (arXiv 2402.02229), as in BoTorch 0.18. Raises ConfigError
    when BoTorch is not installed, BackendError when the process cannot be fitted.
    """
    check_installed()
    with _quiet():
        from botorch.exceptions.errors import ModelFittingError
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        x = torch.tensor(points, dtype=torch.float64)
        y = torch.tensor(results, dtype=torch.float64)
        centre = float(y.mean())
        spread = float(y.std(unbiased=False)) or 1.0
        model = SingleTaskGP(x, ((y - centre) / spread)[:, None], outcome_transform=None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            except ModelFittingError as error:
                raise BackendError(
                    f"tune: the surrogate cannot be fitted to {len(results)} results ({error}); "
                    "set acquisition=random, or widen the bounds"
                ) from error
        model.eval()
    return Surrogate(model, x, centre, spread)


def propose(surrogate: Surrogate, acquisition: Acquisition, *, seed: int) -> list[float]:
    """Return the point of the unit cube that the acquisition function values most.

    expected_improvement  noisy, in log space (arXiv 2310.20708; Letham et al. 2019 for the noise)
    knowledge_gradient    one shot (arXiv 1910.06403)
    entropy_search        of the maximum's value, lower bound (GIBBON, arXiv 2102.03324)
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        from botorch.acquisition.acquisition import AcquisitionFunction
        from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
        from botorch.acquisition.logei import qLogNoisyExpectedImprovement
        from botorch.acquisition.max_value_entropy_search import qLowerBoundMaxValueEntropy

        function: AcquisitionFunction
        match acquisition:
            case "expected_improvement":
                function = qLogNoisyExpectedImprovement(surrogate.model, surrogate.points)
            case "knowledge_gradient":
                function = qKnowledgeGradient(surrogate.model, num_fantasies=_N_FANTASIES)
            case "entropy_search":
                candidates = spread_points(_N_CANDIDATES, surrogate.points.shape[1], seed=seed)
                function = qLowerBoundMaxValueEntropy(surrogate.model, candidates)
            case "random":
                raise ConfigError("tune: random search proposes without a surrogate")
        return _maximise(function, surrogate.points.shape[1], seed)


def propose_optimum(surrogate: Surrogate, *, seed: int) -> list[float]:
    """Return the point of the unit cube where the mean of the process is highest."""
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        from botorch.acquisition.analytic import PosteriorMean

        return _maximise(PosteriorMean(surrogate.model), surrogate.points.shape[1], seed)


def _maximise(function: "AcquisitionFunction", n_parameters: int, seed: int) -> list[float]:
    from botorch.optim.optimize import optimize_acqf

    bounds = torch.stack([torch.zeros(n_parameters), torch.ones(n_parameters)]).double()
    point, _ = optimize_acqf(
        function,
        bounds,
        q=1,
        num_restarts=_N_STARTS,
        raw_samples=_N_RAW,
        options={"seed": seed, "maxiter": 50},
    )
    return [float(x) for x in point[0].clamp(0, 1)]


def spread_points(n: int, n_parameters: int, *, seed: int) -> Float[Tensor, "point parameter"]:
    """Return points that fill the unit cube evenly: a scrambled Sobol sequence."""
    engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
        n_parameters, scramble=True, seed=seed
    )
    return engine.draw(n, dtype=torch.float64)


def check_installed() -> None:
    """Raise ConfigError when BoTorch cannot be imported."""
    try:
        with _quiet():
            import botorch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"tune: needs BoTorch ({error}); pip install 'trillium[tune]', or set "
            "acquisition=random"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of BoTorch and GPyTorch apart: both still use what torch 2.13 deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
