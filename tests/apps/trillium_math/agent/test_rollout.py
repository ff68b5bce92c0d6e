import pytest
from trillium_math.agent.trajectory import mask_of

CODE = "Compute.\n```python\n{}\n```"


def last_user(text):
    return text.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


def test_a_policy_calls_the_tool_and_answers(work, say, tokenizer):
    def script(text):
        seen = last_user(text)
        return say(r"So \boxed{12}." if "output" in seen else CODE.format("print(3 * 4)"))

    (one,) = work(script, "3 * 4?")
    assert (one.outcome, one.answer, one.reward) == ("answered", "12", 1.0)
    assert [(turn.role, turn.status) for turn in one.turns] == [
        ("user", ""),
        ("assistant", ""),
        ("user", "ok"),
        ("assistant", ""),
    ]
    assert one.turns[2].content == "```output\n12\n```"
    assert tokenizer.decode(one.token_ids) == (
        "<|im_start|>user\n3 * 4?<|im_end|>\n<|im_start|>assistant\nCompute.\n```python\n"
        "print(3 * 4)\n```<|im_end|>\n<|im_start|>user\n```output\n12\n```<|im_end|>\n"
        "<|im_start|>assistant\nSo \\boxed{12}.<|im_end|>"
    )


def test_the_mask_holds_exactly_what_the_policy_sampled(work, say, tokenizer):
    said = [CODE.format("x = 3"), CODE.format("print(x * 4)"), r"\boxed{12}"]
    turns = iter(map(say, said))
    (one,) = work(lambda text: next(turns), "?")
    written = [tokenizer.decode(one.token_ids[start:end]) for start, end in one.spans]
    assert written == [text + "<|im_end|>" for text in said]
    assert sum(one.scored) == sum(len(say(text)) for text in said)
    assert not one.scored[0]


def test_other_tool_tokens_do_not_move_the_scored_positions(work, say):
    def play(printed):
        turns = iter([say(CODE.format(f"print('{printed}')")), say(r"\boxed{12}")])
        (one,) = work(lambda text: next(turns), "?")
        return one

    one, other = play("aaa"), play("bbb")
    assert one.token_ids != other.token_ids
    assert one.scored == other.scored
    perturbed = [token if is_scored else 7 for token, is_scored in
                 zip(one.token_ids, one.scored, strict=True)]  # fmt: skip
    assert mask_of(one.spans, len(perturbed)) == one.path.scored == one.tree.path(0).scored


def test_sampled_ids_are_kept_where_tokenising_again_would_merge_them(work, tokenizer):
    apart = tokenizer("1").input_ids + tokenizer("2").input_ids
    (merged,) = tokenizer("12").input_ids
    spelled = [*tokenizer(r"\boxed{").input_ids, *apart, *tokenizer("}").input_ids, 2]
    (one,) = work(lambda text: spelled, "?")
    start, end = one.spans[0]
    assert list(one.token_ids[start:end]) == spelled
    assert merged not in one.token_ids[start:end]
    assert one.tree.path(0).ids == one.token_ids
    assert one.tree.labels == {"reward": (1.0,)}


def test_waiting_trajectories_share_requests_and_calls_share_runs(work, say, policy, tool):
    def script(text):
        if "output" not in last_user(text):
            return say(CODE.format("print(5 + 7)"))
        return say(r"\boxed{12}")

    before = tool.n_runs
    found = work(script, "a", "b", "c", n_samples=4)
    assert len(found) == 12
    assert all(one.is_right for one in found)
    assert [one.problem_id for one in found] == ["p0"] * 4 + ["p1"] * 4 + ["p2"] * 4
    assert len({one.id for one in found}) == 12
    assert [len(prompts) for prompts in policy.prompts] == [12, 12]
    # A prefix that several trajectories share is sent once, with the number of its samples.
    assert policy.n_samples == [4, 4]
    assert tool.n_runs - before == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("I do not know.", "no_answer"),
        ("", "no_answer"),
        ("on and on " * 40, "turn_too_long"),
        ("```python\nwhile True: pass" + "  # on" * 40, "turn_too_long"),
        (CODE.format("print(1)"), "turn_limit"),
    ],
)
def test_a_policy_that_never_answers_is_an_outcome(work, say, reply, outcome):
    (one,) = work(lambda text: say(reply), "?", max_turns=3)
    assert (one.outcome, one.answer, one.reward) == (outcome, None, 0.0)
    assert len(one.spans) == (3 if outcome == "turn_limit" else 1)
    assert one.path.n_scored > 0


def test_a_trajectory_never_exceeds_its_tokens(work, say):
    (one,) = work(lambda text: say(CODE.format("print('x' * 150)")), "?", max_tokens=600)
    assert one.outcome == "token_limit"
    assert 250 < len(one.token_ids) <= 600
    assert one.scored[-1]
    (none,) = work(lambda text: say("x"), "?" * 600, max_tokens=600)
    assert (none.outcome, none.spans, none.sum_logp) == ("token_limit", (), None)


def test_an_answer_counts_only_where_the_run_looks_for_it(work, say):
    (one,) = work(lambda text: say("#### 12"), "?")
    assert (one.outcome, one.reward) == ("no_answer", 0.0)
    (other,) = work(lambda text: say("#### 12"), "?", answer_sources=("box", "hash"))
    assert (other.outcome, other.reward) == ("answered", 1.0)
    (third,) = work(lambda text: say(r"\boxed{13}"), "?")
    assert (third.outcome, third.reward) == ("answered", 0.0)


def test_a_turn_without_its_end_gets_one_that_is_not_scored(work, tokenizer):
    bare = tokenizer(CODE.format("print(9)") + "\n").input_ids
    turns = iter([bare, tokenizer(r"\boxed{9}").input_ids])
    (one,) = work(lambda text: next(turns), "?")
    start, end = one.spans[0]
    assert list(one.token_ids[start:end]) == bare
    assert one.token_ids[end] == 2
    assert not one.scored[end]
