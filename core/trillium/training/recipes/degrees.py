"""SPO: the policy's own text against the same text with more and more of its key phrases gone."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trillium.generation.interface import Completion, SamplingConfig
from trillium.objectives.recipe_configs import DegreeConfig
from trillium.training.recipes.key_phrases import delete_phrases, key_phrases
from trillium.training.recipes.recipe import Recipe, Sampled
from trillium.training.round_rows import Candidates, Prompt
from trillium.trees import TokenPath, TokenTree

_DEGREE = DegreeConfig()


@dataclass(frozen=True)
class CountKeyPhrases:
    """Score a completion by how many different key phrases it has: what there is to delete."""

    identity: str = "key phrases"

    def score(self, prompt: Prompt, completions: Sequence[Completion]) -> list[float]:
        """Return the counts."""
        return [float(len(key_phrases(completion.text))) for completion in completions]


@dataclass(frozen=True)
class DegreeNegatives:
    """Pair the completion with the most key phrases with degraded forms of itself.

    Degree k lacks its k weightiest phrases, k = 1 to `n_degrees`, as long as one is left. The
    column "degree_label" counts from 0. A degraded form ends as the whole one does.
    """

    tokenizer: PreTrainedTokenizerBase
    n_degrees: int

    @property
    def identity(self) -> str:
        """Name the rule and its degrees."""
        return f"{self.n_degrees} degrees of deleted key phrases"

    def select(self, candidates: Candidates, *, seed: int) -> list[TokenTree]:
        """Return one pair per degree; none for a text of one phrase or less."""
        best = candidates.scores.index(max(candidates.scores))
        whole = candidates.completions[best]
        phrases = key_phrases(whole.text)
        trees = []
        for degree in range(1, min(self.n_degrees, len(phrases)) + 1):
            left = delete_phrases(whole.text, phrases[:degree])
            if key_phrases(left):
                id = f"{candidates.prompt.id}/{best}-degree-{degree}"
                paths = [
                    _path(candidates.prompt, ids) for ids in (whole.ids, self._ids(left, whole))
                ]
                trees.append(
                    TokenTree.from_paths(id, paths, columns={"degree_label": float(degree - 1)})
                )
        return trees

    def _ids(self, text: str, whole: Completion) -> tuple[int, ...]:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        return (*ids, *((end,) if whole.ids[-1] == end else ()))


def spo_degree(
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    n_rounds: int = 1,
    objective: DegreeConfig = _DEGREE,
) -> Recipe:
    """Return preference optimisation over degrees of degradation (arXiv 2409.17791).

    DPO prefers the policy's own text to each degraded form, and a head that learns beside it tells
    how much is gone.
    Reading: the released repository is empty; deletion of RAKE phrases is confirmed, the loss of
    the head and its place (the state before the last token of the degraded form) are ours.
    """
    negatives = DegreeNegatives(tokenizer, objective.n_degrees)
    source = Sampled(tuple(prompts), sampling, CountKeyPhrases(), negatives)
    return Recipe("spo_degree", n_rounds, source, objective)


def _path(prompt: Prompt, ids: tuple[int, ...]) -> TokenPath:
    return TokenPath(prompt.ids + ids, (False,) * len(prompt.ids) + (True,) * len(ids))
