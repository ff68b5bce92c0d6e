import pytest
from trillium_code.contamination import drop_repeats, find_duplicates, ngrams, shared_part
from trillium_code.tasks import CodeTask


def task(name, statement):
    return CodeTask(f"t/{name}", name, f"def {name}():\n", statement)


def test_words_numbers_and_signs_make_ngrams_without_case():
    assert ngrams("Add 10, then.", 3) == {
        ("add", "10", ","),
        ("10", ",", "then"),
        (",", "then", "."),
    }


def test_the_shared_part_is_of_the_smaller_side():
    a, b = ngrams("one two three four", 2), ngrams("two three four five six seven", 2)
    assert shared_part(a, b) == pytest.approx(2 / 3)
    assert shared_part(a, set()) == 0.0


def test_a_repeated_task_is_found_by_name_or_by_statement():
    evaluation = [
        task("total", "Return the sum of all numbers in the list."),
        task("flip", "Return the text with its characters in reverse order."),
    ]
    train = [
        task("total", "Something else entirely, in other words."),
        task("flipped", "Return the text with its characters in reverse order, please."),
        task("fresh", "Return True if the year is a leap year and False otherwise."),
    ]
    assert find_duplicates(train, evaluation) == {"t/total": "t/total", "t/flipped": "t/flip"}


def test_a_task_of_the_same_header_is_a_repeat_and_one_of_the_same_solution_is_none():
    evaluation = [CodeTask("t/b", "b", "def a():\n    return 1\n\ndef b():\n", "Say b.")]
    same = CodeTask("t/a", "a", evaluation[0].header, "Say a.", solution="def a():\n    return 1\n")
    alike = CodeTask("t/c", "c", "def c():\n", "Say c.", solution=same.solution)
    assert find_duplicates([same, alike], evaluation) == {"t/a": "t/b"}


def test_a_statement_too_short_for_ngrams_is_compared_as_it_is():
    evaluation = [task("inc", "Add one."), task("bare", "")]
    train = [task("up", "add  one."), task("down", "Subtract one."), task("plain", "")]
    assert find_duplicates(train, evaluation) == {"t/up": "t/inc"}


def test_of_tasks_that_repeat_one_another_the_first_is_kept():
    tasks = [
        task("flip", "Return the text with its characters in reverse order."),
        task("flip", "Something else entirely, in other words."),
        task("turned", "Return the text with its characters in reverse order, please."),
        task("short", "Add one."),
        task("brief", "add  one."),
        task("fresh", "Return True if the year is a leap year and False otherwise."),
    ]
    assert [one.id for one in drop_repeats(tasks)] == ["t/flip", "t/short", "t/fresh"]
    assert len(drop_repeats(tasks, limit=1.0)) == 4
