import json
import os
from pathlib import Path

import pytest
from trillium.errors import ConfigError, DataError
from trillium_math.problems import Problem
from trillium_math.problems.collection import ProblemSource, collect_problems
from trillium_math.problems.problem_files import read_problems, write_problems


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_own_files_come_back_as_they_were(tmp_path):
    problems = collect_problems(ProblemSource(n_problems=7), seed=0)
    write_problems(tmp_path / "own.jsonl", problems)
    assert read_problems(tmp_path / "own.jsonl") == problems


def test_gsm8k_loses_its_calculator_marks(tmp_path):
    answer = "Half is 4/2=<<4/2=2>>2.\nThen 2+1=<<2+1=3>>3.\n#### 3"
    path = write(tmp_path / "gsm.jsonl", {"question": "How many?", "answer": answer})
    assert read_problems(path) == [
        Problem(
            id="gsm/0",
            question="How many?",
            answer="3",
            family="gsm8k",
            reasoning="Half is 4/2=2.\nThen 2+1=3.",
        )
    ]


def test_gsm8k_with_ids_is_read_alike(tmp_path):
    row = {"id": "g1", "question": "How many?", "answer": "She sold 4/2=<<4/2=2>>2.\n#### 2"}
    (problem,) = read_problems(write(tmp_path / "gsm.jsonl", row))
    assert (problem.id, problem.answer, problem.reasoning) == ("g1", "2", "She sold 4/2=2.")


def test_svamp_keeps_every_digit_of_an_answer(tmp_path):
    row = {"Body": "Ann ran.", "Question": "How far?"}
    answers = (1234.5678, 1234567.5, 2e-7, 145.0, 7)
    path = write(tmp_path / "s.jsonl", *({**row, "Answer": answer} for answer in answers))
    texts = ["1234.5678", "1234567.5", "2e-07", "145", "7"]
    assert [problem.answer for problem in read_problems(path)] == texts


def test_svamp_joins_body_and_question_and_keeps_whole_numbers_whole(tmp_path):
    row = {"Body": "Ann has 3 pens", "Question": "How many?", "Answer": 3.0, "Equation": "( 3.0 )"}
    (problem,) = read_problems(write(tmp_path / "s.jsonl", {**row, "Type": "Addition"}))
    assert (problem.question, problem.answer) == ("Ann has 3 pens, How many?", "3")
    assert (problem.family, problem.solution) == ("svamp_addition", "print(( 3.0 ))")


def test_math_takes_the_last_box_and_the_level(tmp_path):
    row = {"problem": "Find x.", "solution": r"So $x=\boxed{\frac{1}{2}}$.", "level": "Level 4"}
    (problem,) = read_problems(write(tmp_path / "m.jsonl", {**row, "type": "Prealgebra"}))
    assert (problem.answer, problem.difficulty) == (r"\frac{1}{2}", 4)
    assert problem.family == "prealgebra"


def test_null_in_an_exported_table_is_a_value_that_is_missing(tmp_path):
    row = {"problem": "p", "solution": r"\boxed{1}", "unique_id": None, "subject": None}
    path = write(tmp_path / "m.jsonl", row, {**row, "type": "Algebra", "level": None})
    found = [(problem.id, problem.family, problem.difficulty) for problem in read_problems(path)]
    assert found == [("m/0", "math", 0), ("m/1", "algebra", 0)]
    row = {"Body": "A.", "Question": "q?", "Answer": 1, "Equation": None, "Type": None}
    (problem,) = read_problems(write(tmp_path / "s.jsonl", row))
    assert (problem.family, problem.solution) == ("svamp", "")


def test_every_bad_line_is_named_in_one_error(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "q", "answer": "no mark"}\n[1]\n{"x": 1}\n\nnot json\n')
    with pytest.raises(DataError) as caught:
        read_problems(path)
    message = str(caught.value)
    assert f'{path}:1: field "answer" has no line "#### ..."' in message
    assert f"{path}:2: is list (needs a JSON object)" in message
    assert f"{path}:3: has no known fields" in message
    assert f"{path}:5: is no JSON (needs a JSON object)" in message


BAD = [
    (b'{"question": "q?", "answer": "so\\n#### "}', "the reference answer is empty"),
    (b'{"id": "a", "question": "q?", "answer": ""}', "the reference answer is empty"),
    (b'{"id": "a", "question": " ", "answer": "1"}', "the question is empty"),
    (b'{"problem": "p", "solution": "so \\\\boxed{}"}', "the reference answer is empty"),
    (b'{"problem": "p", "solution": "so", "answer": 204}', 'field "answer" is int (needs text)'),
    (b'{"problem": "p", "solution": "so 204"}', r"the solution has no balanced \boxed answer"),
    ('{"question": "café?", "answer": "#### 1"}'.encode("latin-1"), "is no UTF-8"),
    (b'{"Body": "A.", "Question": "q?", "Answer": NaN}', 'field "Answer" is nan'),
    (b'{"Body": "A.", "Question": "q?", "Answer": Infinity}', 'field "Answer" is inf'),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_line_without_a_usable_reference_is_refused(tmp_path, line, reason):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"question": "1?", "answer": "#### 1"}\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        read_problems(path)
    assert f"{path}:2: {reason}" in str(caught.value)


def test_an_id_that_two_lines_share_is_named_with_both(tmp_path):
    rows = [{"id": id, "question": f"{id}?", "answer": "1"} for id in ("a", "b", "a", "c", "a")]
    path = write(tmp_path / "own.jsonl", *rows)
    with pytest.raises(DataError, match=r"own\.jsonl:3, 5: id 'a' is that of line 1 .*change one"):
        read_problems(path)


def test_sources_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        collect_problems(ProblemSource(source=str(tmp_path / "none.jsonl")), seed=0)
    with pytest.raises(ConfigError, match=r"is no source \(own, gym:NAME, or a .jsonl file\)"):
        collect_problems(ProblemSource(source="gsm8k"), seed=0)
    with pytest.raises(ConfigError, match=r"gave only \d+ different questions"):
        collect_problems(
            ProblemSource(n_problems=5000, families=("counting",), difficulties=(1,)), seed=0
        )


def test_the_splits_share_no_template_and_no_question():
    sides = [
        collect_problems(ProblemSource(n_problems=300, split=split), seed=seed)
        for split, seed in (("train", 0), ("held_out", 0))
    ]
    names, questions = (
        [{getattr(problem, field) for problem in side} for side in sides]
        for field in ("template", "question")
    )
    assert names[0].isdisjoint(names[1])
    assert questions[0].isdisjoint(questions[1])


def test_reasoning_gym_is_split_by_template_and_by_seeds_far_apart():
    pytest.importorskip("reasoning_gym", reason="the extra math-extras is not installed")
    drawn = {
        (split, seed): collect_problems(
            ProblemSource(source="gym:gsm_symbolic", n_problems=30, split=split), seed=seed
        )
        for split, seed in (("train", 0), ("train", 1), ("held_out", 0))
    }
    templates = {key: {p.template for p in problems} for key, problems in drawn.items()}
    assert templates["train", 0].isdisjoint(templates["held_out", 0])
    assert not any(p.answer.startswith("-") for problems in drawn.values() for p in problems)
    first, second = drawn["train", 0], drawn["train", 1]
    assert not {p.question for p in first} & {p.question for p in second}
    with pytest.raises(ConfigError, match="reasoning-gym has no such data set"):
        collect_problems(ProblemSource(source="gym:nothing"), seed=0)


def test_the_public_files_are_read_whole():
    folder = Path(os.environ.get("TRILLIUM_DATA", "../shared/data"))
    paths = [folder / "gsm8k" / "test.jsonl", folder / "math_word" / "svamp.jsonl"]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"{folder} has no gsm8k and math_word; set TRILLIUM_DATA to their folder")
    gsm8k, svamp = map(read_problems, paths)
    assert (len(gsm8k), gsm8k[0].answer) == (1319, "18")
    assert (len(svamp), svamp[0].answer) == (1000, "145")


def test_a_source_of_practice_has_no_template_that_was_shown():
    drawn = {
        part: {
            (problem.family, problem.template)
            for problem in collect_problems(ProblemSource(n_problems=200, split=part), seed=0)
        }
        for part in ("shown", "practice", "held_out")
    }
    assert not drawn["shown"] & drawn["practice"]
    assert not (drawn["shown"] | drawn["practice"]) & drawn["held_out"]


def test_a_file_has_no_part_for_practice(tmp_path):
    path = write(tmp_path / "g.jsonl", {"question": "How many?", "answer": "#### 3"})
    with pytest.raises(ConfigError, match=r"no such part.*set split=train"):
        collect_problems(ProblemSource(source=str(path), split="practice"), seed=0)
