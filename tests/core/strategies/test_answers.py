"""Answers kept in a file: a kill changes none of them, and nothing is asked twice."""

import os

import pytest
from trillium.files import read_rows
from trillium.generation.interface import SamplingConfig
from trillium.strategies.answers import Participant, open_answers

SAMPLING = SamplingConfig(temperature=0.8, max_new_tokens=4, n_samples=2)
QUESTIONS = [f"question {number}" for number in range(30)]


class BySeed:
    """Answer by the seed and the place in a batch, as samplers do."""

    def __init__(self):
        self.asked = []

    def answer(self, questions, sampling, *, seed):
        self.asked += questions
        return [f"{question}, {seed}, {place}" for place, question in enumerate(questions)]


def draw(path, questions=QUESTIONS, sampling=SAMPLING):
    """Return the answers, and how often was asked for them."""
    asker = BySeed()
    with open_answers(path, seed=0) as answers:
        return answers.draw(Participant("by seed", asker), questions, sampling), len(asker.asked)


@pytest.mark.parametrize("n_writes", [1, 2, 3])
def test_a_command_that_is_killed_after_a_write_has_the_same_answers(
    tmp_path, monkeypatch, n_writes
):
    whole, n_asked = draw(tmp_path / "whole.jsonl")
    sync, written = os.fsync, []

    def kill(descriptor):
        sync(descriptor)
        written.append(descriptor)
        if len(written) == n_writes:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kill)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path / "killed.jsonl")
    again, n_asked_again = draw(tmp_path / "killed.jsonl")
    assert again == whole
    assert n_asked_again == n_asked - 16 * n_writes
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_more_samples_are_asked_for_in_addition_and_equal_questions_once(tmp_path):
    path = tmp_path / "answers.jsonl"
    few, n_asked = draw(path, ["one", "one", "two"])
    assert few[0] == few[1]
    assert n_asked == 4
    more, n_asked = draw(path, ["one", "two"], SAMPLING.model_copy(update={"n_samples": 3}))
    assert n_asked == 2
    assert [answers[:2] for answers in more] == few[1:]
    assert len(list(read_rows(path))) == 6
