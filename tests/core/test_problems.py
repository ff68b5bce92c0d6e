"""Problems are told once, with the rows that have them."""

from trillium.problems import Place, Problem, describe_problems


def at(line: int, what: str) -> Problem:
    return Problem(Place("pairs.jsonl:", str(line)), what)


def test_one_mistake_throughout_a_file_is_one_sentence() -> None:
    told = describe_problems([at(line, "is wrong") for line in range(1, 25)], max_shown=100)

    assert told == "pairs.jsonl:1, 2, 3, 4, 5 and 19 more: is wrong"


def test_different_mistakes_keep_their_order_and_lines() -> None:
    problems = [at(2, "one"), at(4, "other"), at(7, "one"), Problem(None, "whole file")]

    assert describe_problems(problems, max_shown=100).splitlines() == [
        "pairs.jsonl:2, 7: one",
        "pairs.jsonl:4: other",
        "whole file",
    ]


def test_very_many_different_mistakes_are_cut_and_counted() -> None:
    told = describe_problems([at(line, f"mistake {line}") for line in range(5)], max_shown=4)

    assert told.splitlines()[-1] == "... and 1 more problem"
    assert len(told.splitlines()) == 5
