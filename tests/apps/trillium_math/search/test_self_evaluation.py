"""The judgement is read off the policy's own distribution."""

import pytest
import torch
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_math.agent.config import AgentConfig
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.partial import Partial
from trillium_math.agent.trajectory import Turn
from trillium_math.problems import Problem
from trillium_math.search.self_evaluation import SelfEvaluation

PROBLEM = Problem("p", "3 * 4?", "12")


def partial(*texts):
    turns = [Turn("user", "3 * 4?"), *(Turn("assistant", text) for text in texts)]
    return Partial("p#0", PROBLEM, [1, 2], turns)


@pytest.fixture(scope="module")
def policy():
    policy = add_adapter(tiny_policy(), LoraSettings(r=4), base_name="tiny", seed=0)
    with torch.no_grad():
        for name, weights in policy.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return policy


@pytest.fixture(scope="module")
def dialogue():
    return Dialogue(tiny_tokenizer(), AgentConfig(instruction="{question}"))


def test_the_question_shows_what_was_written_and_the_answer_only_where_asked(policy, dialogue):
    shown = SelfEvaluation(policy, None, dialogue, shows_answer=True).describe(partial("I add."))
    hidden = SelfEvaluation(policy, None, dialogue, shows_answer=False).describe(partial("I add."))
    assert "Right answer: 12\n" in shown
    assert "12" not in hidden
    for text in (shown, hidden):
        assert "Problem: 3 * 4?" in text
        assert "unfinished:\nI add." in text
        # Problem and proposal once each: the prompt's own turn is not part of the proposal.
        assert text.count("3 * 4?") == 1


@pytest.mark.parametrize("adapter", [None, "default"])
def test_the_judgement_is_the_share_of_b_among_both_letters(policy, dialogue, adapter):
    judge = SelfEvaluation(policy, adapter, dialogue, shows_answer=True)
    partials = [partial("I add."), partial("I add.", r"\boxed{12}"), partial("No.")]
    found = judge.assess(partials)
    tokenizer = tiny_tokenizer()
    a, b = tokenizer("AB", add_special_tokens=False).input_ids
    for one, chance in zip(partials, found, strict=True):
        text = f"<|im_start|>user\n{judge.describe(one)}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
        with torch.no_grad():
            if adapter is None:
                with policy.disable_adapter():
                    logits = policy(input_ids=ids).logits[0, -1]
            else:
                logits = policy(input_ids=ids).logits[0, -1]
        expected = torch.softmax(logits[[a, b]].double(), 0)[1].item()
        assert chance == pytest.approx(expected, abs=1e-4)
    assert len({round(chance, 4) for chance in found}) == 3
