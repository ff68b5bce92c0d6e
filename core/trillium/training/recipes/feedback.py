"""C3PO: from one sentence of feedback to three streams of data, and a policy that took it in.

An author writes requests in scope, near it and out of it; the policy answers them all, and revises
its answers in scope as the feedback says. Only there is it to change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.fields import Message, Text
from trillium.generation.interface import Generator, SamplingConfig
from trillium.objectives.recipe_configs import C3POConfig
from trillium.record_texts import Reply
from trillium.records import PairRow
from trillium.tokenize import tokenize_prompts
from trillium.tokenize_config import TokenizeConfig
from trillium.training.recipes.recipe import Recipe, SameTrees
from trillium.training.rows import tokenize_rows

_C3PO = C3POConfig()
_TOKENIZE = TokenizeConfig()
_ASK = {
    "in_scope": 'Write one request to an assistant to which this feedback applies: "{feedback}"',
    "near_scope": "Write one request to an assistant that resembles those this feedback is about, "
    'but to which it does not apply: "{feedback}"',
    "out_of_scope": "Write one request to an assistant about something that has nothing to do with "
    'this feedback: "{feedback}"',
}
_REVISE = '{response}\n\nWrite this answer again so that it follows this feedback: "{feedback}"'


class FeedbackConfig(BaseModel):
    """Choose how much is written for one sentence of feedback, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_requests: int = Field(default=32, gt=0, description="requests to ask for, in each stream")
    asking: SamplingConfig = Field(
        default=SamplingConfig(temperature=1.0, max_new_tokens=48), description="of requests"
    )
    answering: SamplingConfig = Field(
        default=SamplingConfig(temperature=0.0), description="of answers and revisions"
    )


@dataclass(frozen=True)
class Streams:
    """Hold the three streams of one sentence of feedback.

    In scope a revised answer (chosen) stands against the original one; the others are the
    policy's own answers, to be kept.
    """

    in_scope: tuple[PairRow, ...]
    near_scope: tuple[Reply, ...]
    out_of_scope: tuple[Reply, ...]
    n_unchanged: int = field(default=0)

    def __post_init__(self) -> None:
        """Raise DataError for a stream without an answer: each row takes one of every stream."""
        for name in _ASK:
            if not getattr(self, name):
                raise DataError(
                    f"feedback: the stream {name} has no answer (needs at least one that is not "
                    "blank); ask for more requests, or take a policy that answers them"
                )

    def rows(self) -> list[PairRow]:
        """Return one row per pair, each with an answer of the other streams, which take turns."""
        n_rows = max(map(len, (self.in_scope, self.near_scope, self.out_of_scope)))
        return [
            PairRow(
                prompt=pair.prompt,
                chosen=pair.chosen,
                rejected=pair.rejected,
                further={
                    "near_scope": self.near_scope[place % len(self.near_scope)],
                    "out_of_scope": self.out_of_scope[place % len(self.out_of_scope)],
                },
            )
            for place in range(n_rows)
            for pair in (self.in_scope[place % len(self.in_scope)],)
        ]


def write_streams(
    feedback: str,
    author: Generator,
    policy: Generator,
    tokenizer: PreTrainedTokenizerBase,
    config: FeedbackConfig,
    *,
    seed: int = 0,
) -> Streams:
    """Write the three streams of one sentence of feedback (arXiv 2402.10893, Section 4).

    `author` writes requests and `policy` answers them; any generators with this tokenizer will do,
    also one for both. A request that comes twice is kept where it came first, and an answer that
    its revision did not change makes no pair (`n_unchanged`).
    Raises DataError when a stream stays empty.
    """
    seen: set[str] = set()
    requests = {}
    for place, (name, ask) in enumerate(_ASK.items()):
        prompt = _as_prompt(ask.format(feedback=feedback), tokenizer)
        texts = _generate(
            author,
            [prompt],
            tokenizer,
            config.asking,
            n_samples=config.n_requests,
            seed=seed + place,
        )
        lines = (next((x.strip() for x in text.splitlines() if x.strip()), "") for text in texts)
        requests[name] = [line for line in dict.fromkeys(lines) if line and line not in seen]
        seen |= set(requests[name])
        if not requests[name]:
            raise DataError(
                f"feedback: the author wrote no new request for the stream {name} in "
                f"{config.n_requests} attempts (needs at least one); ask for more, raise the "
                "temperature, or take another author"
            )

    def answer(prompts: Sequence[Text]) -> list[str]:
        return _generate(policy, prompts, tokenizer, config.answering, n_samples=1, seed=seed)

    prompts = {name: [_as_prompt(r, tokenizer) for r in each] for name, each in requests.items()}
    answers = {name: answer(each) for name, each in prompts.items()}
    contexts = [
        _continue(prompt, response, feedback)
        for prompt, response in zip(prompts["in_scope"], answers["in_scope"], strict=True)
    ]
    triples = list(zip(prompts["in_scope"], answer(contexts), answers["in_scope"], strict=True))
    pairs = tuple(
        PairRow(prompt=prompt, chosen=_said(prompt, revised), rejected=_said(prompt, original))
        for prompt, revised, original in triples
        if revised.strip() and original.strip() and revised != original
    )
    if not pairs:
        raise DataError(
            f"feedback: none of {len(triples)} answers changed under the feedback (needs at least "
            "one pair); word the feedback otherwise, or take a policy that follows instructions"
        )
    near, out = (
        tuple(
            Reply(prompt, _said(prompt, response))
            for prompt, response in zip(prompts[name], answers[name], strict=True)
            if response.strip()
        )
        for name in ("near_scope", "out_of_scope")
    )
    return Streams(pairs, near, out, n_unchanged=len(triples) - len(pairs))


def c3po(
    streams: Streams,
    tokenizer: PreTrainedTokenizerBase,
    *,
    objective: C3POConfig = _C3PO,
    tokenize: TokenizeConfig = _TOKENIZE,
) -> Recipe:
    """Return contextualised critiques with constrained preference optimisation (arXiv 2402.10893).

    One offline round against the base, which is also the teacher of what is to stay.
    """
    trees = tokenize_rows(streams.rows(), objective, tokenize, tokenizer).trees
    return Recipe("c3po", 1, SameTrees(trees), objective, reference="base")


def _generate(
    generator: Generator,
    prompts: Sequence[Text],
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingConfig,
    *,
    n_samples: int,
    seed: int,
) -> list[str]:
    groups = generator.generate(
        tokenize_prompts(prompts, tokenizer),
        sampling.model_copy(update={"n_samples": n_samples}),
        seed=seed,
    )
    return [completion.text for group in groups for completion in group]


def _as_prompt(text: str, tokenizer: PreTrainedTokenizerBase) -> Text:
    """Return a turn of the user where the tokenizer knows conversations, else a paragraph."""
    return (Message("user", text),) if tokenizer.chat_template else f"{text}\n\n"


def _said(prompt: Text, response: str) -> Text:
    return response if isinstance(prompt, str) else (Message("assistant", response),)


def _continue(prompt: Text, response: str, feedback: str) -> Text:
    """Return the context in which a response is revised under the feedback."""
    instruction = _REVISE.format(response=response, feedback=feedback)
    if isinstance(prompt, str):
        return f"{prompt}{instruction}\n\n"
    turn = instruction.removeprefix(response).strip()
    return (*prompt, Message("assistant", response), Message("user", turn))
