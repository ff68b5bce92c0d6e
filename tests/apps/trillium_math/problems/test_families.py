import ast
import re

import pytest
from trillium_math.grading import Grader
from trillium_math.problems import DIFFICULTIES, FAMILIES, draw_problems
from trillium_sandbox import Request, open_backend

TEMPLATES = [template for family in FAMILIES.values() for template in family.templates]
PROBLEMS = [
    template.make(seed, 0, difficulty)
    for template in TEMPLATES
    for difficulty in DIFFICULTIES
    for seed in range(2)
]
SUM = re.compile(
    r"(?<![\w/.)\]])((?:\(?-?\d+\)?\s*[-+*/^]\s*)+\(?-?\d+\)?) = (-?\d+(?:/\d+)?)(?![\w/])"
)


@pytest.fixture(scope="module")
def grader():
    with Grader() as opened:
        yield opened


def test_every_solution_prints_the_answer_in_the_sandbox(grader):
    requests = [Request(problem.id, "script", problem.solution.encode()) for problem in PROBLEMS]
    with open_backend("embedded", min_level=1) as backend:
        for problem, reply in zip(PROBLEMS, backend.run(requests), strict=True):
            assert reply.status == "ok", (problem, reply)
            printed = reply.stdout.decode().strip()
            assert grader.is_same(problem.answer, printed), (problem, printed)


def test_every_reasoning_computes_rightly_and_ends_in_the_answer():
    n_checked = 0
    for problem in PROBLEMS:
        last = problem.reasoning.splitlines()[-1]
        answer = re.escape(problem.answer)
        assert re.search(rf"(?<![\d-]){answer}(?!\d)", last), problem
        for left, right in SUM.findall(problem.reasoning):
            code = left.replace("^", "**")
            assert all(isinstance(node, _ALLOWED) for node in ast.walk(ast.parse(code))), code
            assert eval(code) == pytest.approx(eval(right)), (left, right, problem)
            n_checked += 1
    assert n_checked > 2 * len(PROBLEMS)


_ALLOWED = (
    ast.Module, ast.Expr, ast.BinOp, ast.UnaryOp, ast.USub, ast.Constant, ast.operator,
)  # fmt: skip


def test_there_are_eight_families_each_with_templates_on_both_sides():
    assert len(FAMILIES) == 8
    for family in FAMILIES.values():
        splits = [template.split for template in family.templates]
        assert splits.count("train") >= 4
        assert splits.count("held_out") >= 1
        assert sum(template.is_in("shown") for template in family.templates) >= 4
        assert sum(template.is_in("practice") for template in family.templates) >= 2
        names = [template.name for template in family.templates]
        assert len(set(names)) == len(names)


def test_shown_and_practice_are_the_two_parts_of_train():
    for template in TEMPLATES:
        parts = [part for part in ("shown", "practice", "held_out") if template.is_in(part)]
        assert len(parts) == 1
        assert template.is_in("train") == (parts != ["held_out"])
        assert template.is_in("not_shown") == (parts != ["shown"])


def test_difficulty_makes_numbers_larger():
    for family in FAMILIES.values():
        sizes = [
            sum(
                max(map(int, re.findall(r"\d+", template.make(0, index, level).question)))
                for template in family.templates
                for index in range(20)
            )
            for level in (1, 5)
        ]
        assert sizes[0] < sizes[1], family.name


def test_drawing_is_reproducible_distinct_and_balanced():
    templates = [template for template in TEMPLATES if template.split == "train"]
    drawn = draw_problems(templates, n_problems=400, seed=3, difficulties=(1, 2))
    again = draw_problems(templates, n_problems=400, seed=3, difficulties=(1, 2))
    assert drawn == again
    assert len({problem.question for problem in drawn}) == 400
    assert len({problem.id for problem in drawn}) == 400
    assert {problem.family for problem in drawn} == set(FAMILIES)


def test_nobody_is_asked_to_choose_more_than_there_are():
    (template,) = (one for one in TEMPLATES if one.name == "two_groups")
    for index in range(400):
        question = template.make(3, index, max(DIFFICULTIES)).question
        k, a, j, b = map(int, re.findall(r"\d+", question))
        assert (k <= a, j <= b) == (True, True), question


def test_neighbouring_seeds_share_next_to_nothing():
    templates = [template for template in TEMPLATES if template.family == "word_problems"]
    one, other = (
        {
            problem.question
            for problem in draw_problems(templates, n_problems=200, seed=seed, difficulties=(4,))
        }
        for seed in (0, 1)
    )
    assert len(one & other) <= 1
