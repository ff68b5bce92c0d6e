"""SRPO: one model that answers and revises, trained on pairs, used to revise its own drafts."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.fields import Text
from trillium.generation.interface import Generator, SamplingConfig
from trillium.objectives.recipe_configs import SRPOConfig
from trillium.records import PairRow
from trillium.tokenize import tokenize_prompts
from trillium.tokenize_config import TokenizeConfig
from trillium.training.recipes.recipe import Recipe, SameTrees
from trillium.training.revisions import revision_prompt
from trillium.training.rows import tokenize_rows

_SRPO = SRPOConfig()
_TOKENIZE = TokenizeConfig()


def srpo(
    rows: Sequence[PairRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    objective: SRPOConfig = _SRPO,
    tokenize: TokenizeConfig = _TOKENIZE,
) -> Recipe:
    """Return self-improving robust preference optimisation (arXiv 2406.01660).

    Pairs with the column "p_win", how likely the chosen response is to win (1 when labels are all
    there is). Each becomes six paths: both responses to the prompt, and each as a revision of each.
    One offline round against the base, as in the paper; `improve` is what it is for.
    Raises DataError when a row has no p_win.
    """
    lacking = [row.id for row in rows if "p_win" not in row.columns]
    if lacking:
        raise DataError(
            f'row {lacking[0]}: field "p_win" is missing (objective srpo needs it in every row); '
            "add the probability that chosen wins, or 1"
        )
    trees = tokenize_rows(rows, objective, tokenize, tokenizer).trees
    return Recipe("srpo", 1, SameTrees(trees), objective, reference="base")


def improve(
    prompts: Sequence[Text],
    generator: Generator,
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingConfig,
    *,
    n_revisions: int,
    instruction: str = _SRPO.revision,
    seed: int = 0,
) -> list[list[str]]:
    """Return each prompt's drafts: what the policy writes first, then its revisions in turn.

    A draft is revised under the instruction that the policy was trained with.
    """

    def write(contexts: Sequence[Text], turn: int) -> list[str]:
        groups = generator.generate(
            tokenize_prompts(contexts, tokenizer),
            sampling.model_copy(update={"n_samples": 1}),
            seed=seed * 1_000_003 + turn,
        )
        return [completion.text for (completion,) in groups]

    drafts = [write(prompts, 0)]
    for turn in range(1, n_revisions + 1):
        contexts = [
            revision_prompt(prompt, draft, instruction)
            for prompt, draft in zip(prompts, drafts[-1], strict=True)
        ]
        drafts.append(write(contexts, turn))
    return [list(each) for each in zip(*drafts, strict=True)]
