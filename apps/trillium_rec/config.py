"""The run file of the recommender: one frozen model, every default in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.config import Seed
from trillium.errors import ConfigError

from trillium_rec.alignment.config import AlignConfig, GroupConfig, ImitateConfig, Objective
from trillium_rec.fit_config import FitConfig
from trillium_rec.residual_kmeans import Method
from trillium_rec.reward.config import RewardConfig
from trillium_rec.sessions import SessionConfig
from trillium_rec.sources import DataConfig

Device = Literal["auto", "cpu", "cuda"]


class IdsConfig(BaseModel):
    """Choose how items get their semantic ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = Field(None, description="an .index.json of ready ids; none fits them")
    n_levels: int = Field(3, ge=2, description="codes per item")
    codebook_size: int = Field(256, ge=2, description="codes per level")
    method: Method = Field("auction", description="balanced assignment: auction, or greedy sweep")
    use_content: bool = Field(True, description="use item vectors, or item texts, where known")
    collaborative: bool = Field(True, description="use what training users take together")
    n_dimensions: int = Field(64, gt=0, description="of the content and of the other part")


# Above the models: their defaults are built, and so checked, while this file is read.
def _check_experts(n_experts: int, n_active: int) -> None:
    if 0 < n_experts < n_active:
        raise ValueError(
            f"n_active = {n_active} is above n_experts = {n_experts} (a token goes through that "
            "many of them); lower n_active, or set n_experts to 0 for none"
        )


class LazyModel(BaseModel):
    """Choose the lazy recommender: context over items; the default for machines without GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["lazy"] = "lazy"
    d_model: int = Field(64, gt=0, description="width")
    n_layers: int = Field(2, gt=0, description="layers of the context")
    n_heads: int = Field(2, gt=0, description="attention heads of the context")
    max_items: int = Field(50, gt=0, description="items of a history that are read")
    n_decoder_layers: int = Field(2, gt=0, description="layers over the codes")
    d_ff: int = Field(256, gt=0, description="width of a feed-forward layer, or of an expert")
    n_experts: int = Field(0, ge=0, description="experts per decoder layer; 0 is none")
    n_active: int = Field(2, gt=0, description="experts per token")
    balance_rate: float = Field(0.001, ge=0, description="step of the load-balancing bias")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout")

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model = {self.d_model} is no multiple of n_heads = {self.n_heads} (heads have "
                "equal shares); choose another n_heads"
            )
        _check_experts(self.n_experts, self.n_active)
        return self


class OneRecModel(BaseModel):
    """Choose OneRec's encoder-decoder; the paper has 24 experts, 2 active, 256 items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["onerec"] = "onerec"
    d_model: int = Field(128, gt=0, description="width")
    d_head: int = Field(64, gt=0, description="width of an attention head")
    n_heads: int = Field(6, gt=0, description="attention heads")
    d_ff: int = Field(512, gt=0, description="width of a feed-forward layer, or of an expert")
    n_encoder_layers: int = Field(4, gt=0, description="encoder layers")
    n_decoder_layers: int = Field(4, gt=0, description="decoder layers")
    max_items: int = Field(50, gt=0, description="items of a history that are read")
    n_session: int = Field(5, gt=0, description="items of a session")
    n_experts: int = Field(24, ge=0, description="experts per decoder layer; 0 is none")
    n_active: int = Field(2, gt=0, description="experts per token")
    balance_rate: float = Field(0.001, ge=0, description="step of the load-balancing bias")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout")

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        _check_experts(self.n_experts, self.n_active)
        return self


class EvaluateConfig(BaseModel):
    """Choose how recommenders are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(50, ge=50, description="beams; lists of 50 are judged")
    n_valid_users: int = Field(2000, gt=0, description="users of a validation, at most")
    with_sasrec: bool = Field(True, description="train SASRec too, as the baseline to beat")
    n_panel_users: int = Field(
        1000, gt=0, description="users that an alignment is measured on, at most"
    )
    n_shown_users: int = Field(5, ge=0, description="users whose lists the report shows")


class RecConfig(BaseModel):
    """A run of the recommender."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/rec"), description="run folder")
    seed: Seed = Field(0, description="seed of ids, weights and training")
    device: Device = Field("auto", description="auto | cpu | cuda; auto = the GPU if there is one")
    data: DataConfig = Field(DataConfig(), description="the log")
    sessions: SessionConfig | None = Field(
        None, description="what a session is and which are good: OneRec learns those"
    )
    ids: IdsConfig = Field(IdsConfig(), description="semantic ids")
    model: Annotated[LazyModel | OneRecModel, Field(discriminator="name")] = Field(
        LazyModel(), description="what learns"
    )
    fit: FitConfig = Field(FitConfig(), description="how it learns")
    reward: RewardConfig | None = Field(
        None, description="what users would think of a list; none has no alignment either"
    )
    align: AlignConfig | None = Field(
        None, description="preference alignment with the reward model"
    )
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="how the result is judged")


@dataclass(frozen=True)
class Parts:
    """Hold the parts of a run's configuration that alignment cannot do without."""

    sessions: SessionConfig
    reward: RewardConfig
    align: AlignConfig


def needed_parts(config: RecConfig) -> Parts:
    """Return sessions, reward and align; raises ConfigError that names what is missing."""
    missing = [name for name in ("sessions", "reward", "align") if getattr(config, name) is None]
    if missing:
        raise ConfigError(
            f"{missing[0]} is missing (alignment needs sessions, reward and align); add it, as "
            "the preset demo has it, or leave align out"
        )
    assert config.sessions is not None
    assert config.reward is not None
    assert config.align is not None
    return Parts(config.sessions, config.reward, config.align)


def check_align(config: RecConfig, align: AlignConfig, *, where: str = "align") -> None:
    """Raise ConfigError that names every setting of an alignment that no run can honour.

    `where` says whose settings they are: the run's, or an arm's of the experiment.
    """
    problems = [*_unfit_parts(config, align), *_unfit_objective(align)]
    problems += _unfit_drawing(align, config.ids.codebook_size)
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))


def check_session(align: AlignConfig, n_items: int) -> None:
    """Raise ConfigError when a session would have more items than there are."""
    if align.n_session > n_items:
        raise ConfigError(
            f"align.n_session = {align.n_session} is above the {n_items} items of the log (a "
            "session shows an item once); lower it"
        )


def _unfit_parts(config: RecConfig, align: AlignConfig) -> Iterator[str]:
    if config.ids.path is not None:
        yield (
            f"ids.path = {config.ids.path} gives no item vectors (the diversity of sessions is "
            "measured with those that fitted ids have); leave ids.path out, or leave align out"
        )
    if isinstance(config.model, OneRecModel) and align.n_session > config.model.n_session:
        yield (
            f"n_session = {align.n_session} is above model.n_session = {config.model.n_session} "
            "(the model writes no longer sessions); lower it, or raise model.n_session"
        )


def _unfit_objective(align: AlignConfig) -> Iterator[str]:
    objective = align.objective
    if objective is None and not align.imitates_log:
        yield (
            "objective = null and imitates_log = false leave nothing to learn (one of both is "
            "needed); set objective.name=dpo, or imitates_log=true"
        )
    if objective is None or isinstance(objective, ImitateConfig | GroupConfig):
        return
    from trillium.objectives.table import needs_of

    needs = needs_of(objective)
    labels = needs.labels if needs.shape == "pair" else ()
    unmet = [*labels, *needs.columns, *needs.paths, *needs.computed]
    if needs.shape not in ("pair", "list"):
        unmet = [f"the shape {needs.shape}"]
    if unmet:
        yield (
            f"objective {objective.name} needs {', '.join(unmet)} (drawn sessions are pairs or "
            "lists of which only the winner is known); set objective.name=dpo"
        )


def _unfit_drawing(align: AlignConfig, n_codes: int) -> Iterator[str]:
    if align.objective is None:
        return
    n_beams, selection = align.n_beams, align.selection
    if n_beams % align.n_groups:
        yield (
            f"{n_beams} beams in {align.n_groups} groups (a group needs an equal share); choose "
            "n_beams as a multiple of n_groups"
        )
    if align.n_groups > n_codes:
        yield (
            f"n_groups = {align.n_groups} is above ids.codebook_size = {n_codes} (every group has "
            "a first code of its own); lower it"
        )
    n_below = n_beams - 1 - round((1 - selection.winner) * (n_beams - 1))
    if n_below < selection.n_losers:
        yield (
            f"{n_below} of {n_beams} sessions are below the winner (selection.n_losers = "
            f"{selection.n_losers} are compared with it); raise n_beams or selection.winner, or "
            "lower selection.n_losers"
        )
    if selection.n_losers > 1 and _compares_a_pair(align.objective):
        yield (
            f"selection.n_losers = {selection.n_losers} is above 1 (objective "
            f"{align.objective.name} compares the winner with one session at most); set it to 1, "
            "or take an objective of lists, as objective={name: lipo, variant: softmax}"
        )


def _compares_a_pair(objective: Objective) -> bool:
    if isinstance(objective, ImitateConfig | GroupConfig):
        return isinstance(objective, ImitateConfig)
    from trillium.objectives.table import needs_of

    return needs_of(objective).shape == "pair"
