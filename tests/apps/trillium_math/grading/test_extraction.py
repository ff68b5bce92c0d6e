import pytest
from trillium_math.grading import extract_answer
from trillium_math.grading.extraction import find_box


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"first \boxed{1}, no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed 5 apples", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"the answer is 6, so \boxed{5}", "5"),
        ("The answer is 5.\n#### 6", "6"),
        ("#### 1,234\nbye", "1,234"),
        ("The answer is 42.", "42"),
        ("The answer is: $\\frac{3}{4}$.", r"\frac{3}{4}"),
        ("**Final Answer:** 12 apples", "12 apples"),
        ("So the answer to the question is 3.5.", "3.5"),
        ("The final answer is (B).", "(B)"),
        ("```python\nprint(3)\n```\n```output\nx\n17\n```\ndone", "17"),
        ("12 pens and 15 apples.", "15"),
        ("it is -7.", "-7"),
        ("10-5", "5"),
        ("about 3/4 of $1,234.50.", "1,234.50"),
        ("So x = \N{MINUS SIGN}7", "\N{MINUS SIGN}7"),
        ("pages 10\N{EN DASH}15", "15"),
        ("about 1.5e3", "1.5e3"),
        (r"it is 1.5 \times 10^{-3}", r"1.5 \times 10^{-3}"),
        ("it is 2^10.", "2^10"),
        ("2 x 10", "10"),
        ("it is .5", ".5"),
        ("version 1.2.3", "3"),
        ("we get 3 1/2", "3 1/2"),
        ("of the year 2020 1/2", "1/2"),
        ("on 1/2/2024", "2024"),
        (r"that is 50\%.", r"50\%"),
        ("The answer is therefore 9.", "9"),
        ("The answer is thus, $\\frac12$.", r"\frac12"),
        ("The answer is approximately 3.14.", "3.14"),
        ("The answer is not 5", "not 5"),
    ],
)
def test_the_answer_is_found(response, answer):
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    ["", "nothing", r"\boxed{5", r"\boxed{5 and #### 7, the answer is 8", r"\boxed{ {1 }"],
)
def test_there_is_no_answer(response):
    assert extract_answer(response) is None


def test_sources_can_be_limited_to_the_box():
    assert extract_answer("#### 5", ("box",)) is None
    assert extract_answer(r"\boxed{4} #### 5", ("hash", "box")) == "5"


@pytest.mark.parametrize(
    ("gold", "response", "is_right"),
    [
        ("7", "So x = \N{MINUS SIGN}7", False),
        ("-7", "So x = \N{MINUS SIGN}7", True),
        ("3", "about 1.5e3", False),
        ("1500", "about 1.5e3", True),
        ("5", "it is .5", False),
        ("1/2", "it is .5", True),
        ("3.5", "we get 3 1/2", True),
        ("3", r"it is 2 \cdot 10^3", False),
        ("2000", r"it is 2 \cdot 10^3", True),
    ],
)
def test_the_last_number_is_graded_as_it_is_written(grader, gold, response, is_right):
    assert grader.grade(gold, response, "response").correct is is_right


def test_braces_are_matched_in_linear_time():
    assert find_box("\\boxed{" * 30_000) is None
    assert find_box("{" * 50_000 + r"\boxed{3}" + "}" * 50_000) == "3"
