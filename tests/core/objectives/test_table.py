import inspect
import re
from dataclasses import dataclass, fields, replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from trillium.errors import DataError, ShapeError
from trillium.objectives import configs, recipe_configs
from trillium.objectives.batch import (
    ListLogps,
    ListSteps,
    Needs,
    PairLogps,
    PairTokens,
    SideStream,
    SingleLogps,
)
from trillium.objectives.evaluate import Logps, evaluate
from trillium.objectives.table import CHOOSES_INPUTS, OBJECTIVES, Objective, needs_of

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
TRAINABLE: TypeAdapter[configs.ObjectiveConfig] = TypeAdapter(configs.ObjectiveConfig)
VARIANTS: tuple[configs.ObjectiveConfig, ...] = (
    *(
        TRAINABLE.validate_python({"name": row.name})
        for row in OBJECTIVES.values()
        if row.is_trainable
    ),
    configs.DPOConfig(reference_free=True),
    configs.DPOConfig(smoothing_from="row"),
    configs.HingeConfig(normalize_by_ref=False),
    configs.IPOConfig(normalize="none"),
    configs.RPOConfig(sft="mean"),
    configs.ORPOConfig(nll="batch"),
    configs.ORPOConfig(nll="sequence"),
    recipe_configs.OREOConfig(alpha=0.0),
    recipe_configs.TripleConfig(variant="tpo_l"),
    recipe_configs.SLiCConfig(imitate="chosen"),
)


def keyword_defaults(objective: Objective) -> dict[str, object]:
    parameters = inspect.signature(objective.function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


@every_objective
def test_options_and_defaults_are_those_of_the_function(objective: Objective) -> None:
    tensors = {*inputs_of(objective.needs), "kl", "tokens_per_pair"}
    keywords = {k: v for k, v in keyword_defaults(objective).items() if k not in tensors}
    options = {k: v for k, v in objective.config().model_dump().items() if k not in CHOOSES_INPUTS}
    assert options == keywords


def inputs_of(needs: Needs) -> set[str]:
    return {*needs.labels, *needs.columns, *needs.computed, *needs.further}


@every_objective
def test_every_argument_is_declared(objective: Objective) -> None:
    needs = objective.needs
    arguments = set(inspect.signature(objective.function).parameters)
    declared = inputs_of(needs) | set(objective.config.model_fields) - CHOOSES_INPUTS
    declared |= {"reference"} if needs.reference and not needs.logratios else set()
    declared |= {"kl"} if needs.mismatched else set()
    declared |= {"tokens_per_pair"} if needs.batch_tokens else set()
    first = "direct" if needs.logratios else "policy"
    assert arguments - {first} == declared
    assert first in arguments or not objective.is_trainable


@every_objective
def test_names_agree_and_the_paper_is_cited(objective: Objective) -> None:
    assert objective.config().name == objective.name == objective.function.__name__
    assert OBJECTIVES[objective.name] is objective
    assert objective.arxiv in (inspect.getdoc(objective.function) or "")
    assert re.fullmatch(r"[A-Z].{20,76}\.", objective.help)


@every_objective
def test_every_option_is_described(objective: Objective) -> None:
    for name, option in objective.config.model_fields.items():
        assert name == "name" or option.description


@every_objective
def test_a_difference_from_trl_is_explained(objective: Objective) -> None:
    if objective.trl == "differs":
        assert "Differs from TRL 1.16" in (inspect.getdoc(objective.function) or "")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "dpo", "beta": 0.0}, "greater than 0"),
        ({"name": "dpo", "beta": float("inf")}, "finite"),
        ({"name": "dpo", "label_smoothing": 0.5}, "less than 0.5"),
        ({"name": "rdpo", "epsilon": 0.5}, "less than 0.5"),
        ({"name": "fdpo", "alpha": 1.0}, "less than 1"),
        ({"name": "ipo", "normalize": "words"}, "'none' or 'tokens'"),
        ({"name": "kto", "lambda_d": 1.0}, "Extra inputs are not permitted"),
        ({"name": "ppo"}, "does not match any of the expected tags"),
        ({"name": "modpo", "w": [0.5, 0.4]}, "these sum to 0.9"),
        (
            {"name": "simpo", "loss_type": "hinge", "label_smoothing": 0.1},
            "label_smoothing is 0.1 and loss_type hinge has none; set label_smoothing=0",
        ),
        ({"name": ["dpo"]}, r"Input tag '\['dpo'\]' .* does not match any of the expected tags"),
        ({"name": {"dpo": 1}}, "does not match any of the expected tags"),
        ({"name": None}, "does not match any of the expected tags"),
        ({"name": "modpo", "w": [0.0, 1.0]}, "the first above 0"),
        (
            {"name": "rso"},
            r"rso is a function the trainer cannot feed by itself \(it needs samples, `rewards`, "
            r"`uniforms`\); choose one of dpo, ipo, .*oreo, spo_degree$",
        ),
    ],
)
def test_a_wrong_option_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TRAINABLE.validate_python(wrong)
    assert re.search(message, caught.value.errors()[0]["msg"])


class Poison(torch.Tensor):
    """A tensor that must not be used in any operation."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if getattr(func, "__name__", "") in {"__get__", "dim", "size", "__len__"}:
            return super().__torch_function__(func, types, args, kwargs)
        raise AssertionError(f"an undeclared field was read by {func}")


def poison(like: Tensor) -> Tensor:
    return like.clone().as_subclass(Poison)


GROUP = torch.tensor([0, 0, 0, 1, 1])


def models(needs: Needs) -> tuple[Logps, Logps]:
    """Return policy and reference in which everything that is not declared is poisoned."""
    sums, counts = torch.tensor([-3.0, -7.5]), torch.tensor([4, 9])
    lengths = counts if needs.lengths else poison(counts)
    reference = sums - 1 if needs.reference else poison(sums)
    match needs.shape:
        case "single":
            return SingleLogps(sums, lengths), SingleLogps(reference, lengths)
        case "list":
            logps, counts = torch.tensor([-3.0, -5.0, -4.0, -2.0, -7.0]), torch.arange(1, 6)
            lengths = counts if needs.lengths else poison(counts)
            fixed = logps.flip(0) if needs.reference else poison(logps)
            return ListLogps(logps, GROUP, lengths), ListLogps(fixed, GROUP, lengths)
        case "steps":
            steps = torch.tensor([[-1.0, -2.0], [-2.0, -1.5], [-3.0, 0.0], [-1.0, 0.0], [-4.0, 1]])
            return ListSteps(steps, GROUP), ListSteps(steps - 0.5, GROUP)
        case "pair_token":
            chosen, rejected = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), torch.full((2, 3), -1.0)
            return PairTokens(chosen, rejected), PairTokens(chosen - 0.5, rejected + 0.25)
        case "token":
            tokens = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])
            return tokens, tokens - 0.5
    return (
        PairLogps(sums, sums - 2, lengths, lengths),
        PairLogps(reference, reference, lengths, lengths),
    )


def computed_of(config: configs.ObjectiveConfig) -> dict[str, object]:
    """Return every argument that the trainer would compute, and one more that nothing reads."""
    ratios, sums = (torch.tensor(each) for each in ([0.5, -0.25], [-2.0, -6.0]))
    counts = torch.tensor([3, 5])
    pair = PairLogps(sums, sums - 1, counts, counts)
    stream = SideStream(sums, counts, poison(sums))
    mask = PairTokens(torch.ones(2, 2), torch.ones(2, 3))
    is_mask = {"mask_u": mask, "mask_d": mask}
    every: dict[str, object] = {
        **dict.fromkeys(("target", "rationale", "reference_sample"), sums),
        **dict.fromkeys(("policy_prompt", "reference_prompt"), pair),
        **dict.fromkeys(("given_chosen", "given_rejected"), PairLogps(ratios, ratios - 1)),
        **dict.fromkeys(("near_scope", "out_of_scope"), stream),
        **dict.fromkeys(("tokens_per_gold", "tokens_per_near", "tokens_per_out"), 4.0),
        "gold": SingleLogps(sums, poison(counts)),
        "kl": PairTokens(torch.full((2, 2), 0.5), torch.full((2, 3), 0.25)),
        **is_mask,
        "values": torch.full((2, 2), 0.5),
        "reverse_kl": torch.full((2, 2), 0.125),
        "scored": torch.tensor([[True, True], [True, False]]),
        "degree_logits": torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]),
        "step_weight": torch.tensor([[1.0, 1.5], [2.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]),
    }
    return {**every, "undeclared": poison(sums)}


def labels_of(needs: Needs) -> dict[str, Tensor]:
    n = 5 if needs.shape in ("list", "steps") else 2
    return {name: torch.linspace(1, 0, n) for name in needs.labels}


def columns_of(needs: Needs) -> dict[str, Tensor]:
    found = {name: torch.tensor([0.25, 0.75]) for name in needs.columns}
    return found | ({"degree_label": torch.tensor([0.0, 2.0])} if "degree_label" in found else {})


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_what_is_not_declared_is_never_read(config: configs.ObjectiveConfig) -> None:
    needs = needs_of(config)
    policy, reference = models(needs)
    other = poison(torch.tensor([0.0, 1.0]))
    labels = {"undeclared": other, **labels_of(needs)}
    columns = {"margin": other, **columns_of(needs)}
    kl = torch.tensor(0.5) if needs.mismatched else poison(torch.tensor(0.5))
    computed = computed_of(config)
    losses = evaluate(
        config, policy, reference, labels=labels, columns=columns, kl=kl, computed=computed
    )
    assert losses.shape == (2,)
    assert losses.isfinite().all()


@pytest.mark.parametrize("config", VARIANTS, ids=str)
def test_whatever_is_declared_is_read(config: configs.ObjectiveConfig) -> None:
    """Poison each declared input in turn; the objective must touch it."""
    needs = needs_of(config)
    policy, reference = models(needs)
    given: dict[str, Logps] = {"policy": policy, "reference": reference}
    labels, computed = labels_of(needs), computed_of(config)
    columns, kl = columns_of(needs), torch.tensor(0.5)
    for model in ("policy", "reference") if needs.reference else ("policy",):
        for poisoned in poisoned_fields(given[model], lengths=needs.lengths and model == "policy"):
            if (config.name, poisoned.field) in {("cpo", "n_rejected"), ("srpo", "rejected")}:
                continue  # cpo's likelihood reads the chosen side, srpo fails at the chosen one
            changed = {**given, model: poisoned.logps}
            with pytest.raises(AssertionError, match="was read"):
                evaluate(
                    config,
                    changed["policy"],
                    changed["reference"],
                    labels=labels,
                    columns=columns,
                    kl=kl,
                    computed=computed,
                )
    for name in (*needs.labels, *needs.columns):
        changed_labels, changed_columns = (
            {key: poison(value) if key == name else value for key, value in each.items()}
            for each in (labels, columns)
        )
        with pytest.raises(AssertionError, match="was read"):
            evaluate(
                config,
                policy,
                reference,
                labels=changed_labels,
                columns=changed_columns,
                kl=kl,
                computed=computed,
            )
    for name in needs.computed:
        value = computed[name]
        if not isinstance(value, Tensor) or name == "scored":
            continue
        with pytest.raises(AssertionError, match="was read"):
            evaluate(
                config,
                policy,
                reference,
                labels=labels,
                columns=columns,
                kl=kl,
                computed={**computed, name: poison(value)},
            )


@dataclass(frozen=True)
class Poisoned:
    """A record of log-probabilities with one poisoned field."""

    field: str
    logps: Logps


def poisoned_fields(logps: Logps, *, lengths: bool) -> list[Poisoned]:
    if isinstance(logps, Tensor):
        return [Poisoned("logps", poison(logps))]
    counts = {"n_chosen", "n_rejected", "lengths"}
    names = [each.name for each in fields(logps) if lengths or each.name not in counts]
    names = [name for name in names if name != "group"]
    return [
        Poisoned(name, replace(logps, **{name: poison(getattr(logps, name))})) for name in names
    ]


def test_undeclared_counts_are_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Logps] = []

    def spy(*models: Logps, beta: float, label_smoothing: float) -> Tensor:
        received.extend(models)
        return torch.zeros(2)

    monkeypatch.setitem(OBJECTIVES, "dpo", replace(OBJECTIVES["dpo"], function=spy))
    evaluate(configs.DPOConfig(), *models(Needs("pair", reference=True, lengths=True)))
    assert [(each.n_chosen, each.n_rejected) for each in received] == [(None, None)] * 2


def test_options_drop_needs_and_never_add_any() -> None:
    assert not needs_of(configs.DPOConfig(reference_free=True)).reference
    assert not needs_of(configs.HingeConfig(normalize_by_ref=False)).reference
    assert not needs_of(configs.IPOConfig(normalize="none")).lengths
    assert not needs_of(configs.RPOConfig()).lengths
    assert needs_of(configs.RPOConfig(sft="mean")).lengths
    assert not needs_of(configs.ORPOConfig(nll="batch")).prompts
    assert needs_of(configs.ORPOConfig(nll="sequence")).prompts
    assert "reverse_kl" not in needs_of(recipe_configs.OREOConfig(alpha=0.0)).computed


PAIRS = PairLogps(torch.tensor([-3.0]), torch.tensor([-4.0]))
SINGLE = SingleLogps(torch.tensor([-3.0]))


def test_a_missing_reference_is_refused_with_a_remedy() -> None:
    with pytest.raises(ShapeError, match=r"dpo: the reference .* missing .*; choose a reference"):
        evaluate(configs.DPOConfig(), PAIRS)


def test_another_number_of_examples_is_refused() -> None:
    three = PairLogps(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ShapeError, match="dpo: policy has 1 examples, reference has 3"):
        evaluate(configs.DPOConfig(), PAIRS, three)


def test_single_responses_for_a_pairwise_objective_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"simpo: got SingleLogps \(needs shape pair\)"):
        evaluate(configs.SimPOConfig(), SINGLE)


def test_a_missing_label_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match=r'kto: label "label" is missing \(the batch has: reward\)'):
        evaluate(
            configs.KTOConfig(),
            SINGLE,
            SINGLE,
            labels={"reward": torch.tensor([1.0])},
            kl=torch.tensor(0.0),
        )
