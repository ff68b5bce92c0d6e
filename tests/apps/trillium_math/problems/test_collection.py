"""Problems of a file are taken in order, and what is left out is said."""

import json

from trillium_math.problems.collection import ProblemSource, collect_problems


def write_problems(path, count):
    rows = [
        {"id": f"p{n}", "question": f"Compute {n} + 1.", "answer": str(n + 1)} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_problems_beyond_the_number_asked_for_are_counted_and_said(tmp_path, caplog):
    path = write_problems(tmp_path / "mine.jsonl", 5)
    found = collect_problems(ProblemSource(source=str(path), n_problems=3), seed=0)
    assert [problem.id for problem in found] == ["p0", "p1", "p2"]
    assert caplog.messages == [
        f"{path}: 3 of 5 problems are taken, the first ones; raise n_problems to take more"
    ]


def test_a_file_that_is_taken_whole_needs_no_word(tmp_path, caplog):
    path = write_problems(tmp_path / "mine.jsonl", 3)
    assert len(collect_problems(ProblemSource(source=str(path), n_problems=3), seed=0)) == 3
    assert caplog.messages == []
