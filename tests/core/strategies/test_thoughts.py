"""Thoughts: responses are judged alone, lengths held back, and the mask of a run is exact."""

import json
import re

import pytest
import torch
from trillium.cli import app
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.records import PairRow
from trillium.rowfiles import load_rows
from trillium.strategies.thoughts import Thought, control_length, split_thought
from trillium.tokenize import TokenizeConfig, tokenize_pairs
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a\nb</think>\n\nc", Thought("a\nb", "c")),
        (" a</think> c d \n", Thought("a", "c d")),
        ("<think></think>c", Thought("", "c")),
        ("<think>a</think>  ", None),
        ("<think>a", None),
        ("a", None),
        ("<think>a</think>b</think>c", None),
    ],
)
def test_a_sample_is_one_thought_and_a_response_or_nothing(text, expected):
    assert split_thought(text) == expected


def test_length_is_taken_from_quality_after_both_are_normed():
    # qualities 2, 4, 6: norms -1.2247, 0, 1.2247; words 10, 10, 40: -0.7071, -0.7071, 1.4142
    scores = control_length([2, 4, 6], [10, 10, 40], 1.0)
    assert scores == pytest.approx([-0.51764, 0.70711, -0.18947], abs=1e-5)
    assert control_length([2, 4, 6], [10, 10, 40], 0.0) == pytest.approx(
        [-1.22474, 0, 1.22474], abs=1e-5
    )
    assert control_length([5, 5], [3, 3], 1.0) == [0.0, 0.0]


def rule(question, seed):
    """Think at length; the judge likes long responses and must not see a thought."""
    if question.startswith("Score the response"):
        assert "secret" not in question
        response = re.search(r"\[Response\]\n(.*)\n\n", question)[1]
        return f"{min(10, len(response.split()))}"
    n_words = 1 + seed % 5
    return f"<think>secret {seed % 5}</think>\n\n{' '.join(['word'] * n_words)}"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def make_pairs(tmp_path, serving, *options):
    prompts = write(tmp_path / "prompts.jsonl", [{"id": "x", "prompt": "Greet."}])
    output = tmp_path / "pairs.jsonl"
    with serving(rule) as server:
        who = ("--by", server.who, "--judge", server.who)
        done = run("data", "thoughts", prompts, "--output", output, *who, "--samples", 16, *options)
    assert done.exit_code == 0, done.output
    return output, done.output


def test_the_whole_of_the_best_response_is_chosen(tmp_path, serving):
    output, said = make_pairs(tmp_path, serving)
    assert "1 prompts: 1 pairs" in said
    assert "of 16 samples 0 without thought and response, 0 without a readable score" in said
    (row,) = load_rows(output, PairRow)
    assert row.prompt[0].text.startswith("Think before you respond")
    assert row.prompt[0].text.endswith("Greet.")
    assert row.chosen[0].text == "<think>secret 4</think>\n\nword word word word word"
    assert row.rejected[0].text == "<think>secret 0</think>\n\nword"
    assert row.labels["quality"] == (5.0, 1.0)
    assert row.labels["words"] == (5.0, 1.0)
    assert row.labels["thought_words"] == (2.0, 2.0)


def test_much_length_control_prefers_the_short_and_native_prompts_stay(tmp_path, serving):
    output, _ = make_pairs(tmp_path, serving, "--length-control", 3, "--native")
    (row,) = load_rows(output, PairRow)
    assert row.prompt[0].text == "Greet."
    assert row.chosen[0].text.endswith("</think>\n\nword")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_policy(seed=3).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def sum_logps(text, scored):
    """Add up the log-probabilities of what stands behind `text` up to the end of `scored`."""
    tokenizer, policy = tiny_tokenizer(), tiny_policy(seed=3)
    context = tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor([tokenizer.encode(text + scored, add_special_tokens=False)])
    with torch.no_grad():
        logps = policy(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(logps.gather(1, ids[0, 1:, None])[len(context) - 1 :, 0].sum())


@pytest.mark.parametrize("turns", ["final_answer", "all"])
def test_a_run_scores_the_response_alone_or_with_its_thought(tmp_path, serving, model, turns):
    pairs, _ = make_pairs(tmp_path, serving, "--native")
    (row,) = load_rows(pairs, PairRow)
    output = tmp_path / "run"
    settings = [
        *(f"data.path={pairs}", f"policy.base={model}", "policy.dtype=float32"),
        *(f"output={output}", "train.max_steps=1", f"data.tokenize.scored_turns={turns}"),
    ]
    done = run("train", "minimal", *settings)
    assert done.exit_code == 0, done.output
    first = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    asked = "<|im_start|>user\nGreet.<|im_end|>\n<|im_start|>assistant\n"
    for side, reply in (("chosen", row.chosen[0].text), ("rejected", row.rejected[0].text)):
        thought, response = reply.split("</think>\n\n")
        thought += "</think>\n\n"
        masked, scored = (asked + thought, response) if turns == "final_answer" else (asked, reply)
        assert first[f"logps/{side}"] == pytest.approx(
            sum_logps(masked, f"{scored}<|im_end|>"), rel=1e-5
        )


def test_masked_thoughts_are_context_of_the_tree(tmp_path, serving):
    pairs, _ = make_pairs(tmp_path, serving, "--native")
    rows, tokenizer = load_rows(pairs, PairRow), tiny_tokenizer()
    for turns, expected in (
        ("final_answer", "word word word word word<|im_end|>"),
        ("all", "<think>secret 4</think>\n\nword word word word word<|im_end|>"),
    ):
        config = TokenizeConfig.model_validate({"scored_turns": turns})
        (tree,) = tokenize_pairs(rows, tokenizer, config).trees
        path = tree.path(0)
        scored = [i for i, is_scored in zip(path.ids, path.scored, strict=True) if is_scored]
        assert tokenizer.decode(scored) == expected


def test_a_model_that_does_not_think_makes_no_pair(tmp_path, model):
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "Greet."}])
    command = ("data", "thoughts", prompts, "--output", tmp_path / "out.jsonl", "--by", model)
    done = run(*command, "--judge", model, "--max-new-tokens", 4)
    assert done.exit_code == 1
    assert "no pair was found" in done.output


@pytest.mark.parametrize(
    ("record", "says"),
    [({}, 'field "prompt" is missing'), ({"prompt": 3}, 'field "prompt" is 3')],
)
def test_wrong_prompts_are_one_sentence(tmp_path, record, says):
    prompts = write(tmp_path / "prompts.jsonl", [record])
    done = run(
        *("data", "thoughts", prompts, "--output", tmp_path / "out.jsonl"),
        *("--by", "http://127.0.0.1:1/v1#m", "--judge", "http://127.0.0.1:1/v1#m"),
    )
    assert done.exit_code == 2
    assert says in done.output
