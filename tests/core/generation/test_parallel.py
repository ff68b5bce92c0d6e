import threading

import pytest
from trillium.generation.parallel import map_ahead


def test_answers_come_in_order_and_few_are_under_way():
    taken, most = [], 0
    gates = [threading.Event() for _ in range(6)]

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    def wait(number):
        assert gates[number].wait(10)
        return number * 10

    answers = map_ahead(wait, items(), n_ahead=2)
    found = []
    for number in range(6):
        for gate in gates[: number + 2][::-1]:
            gate.set()
        found.append(next(answers))
        most = max(most, len(taken) - len(found))
    assert found == [0, 10, 20, 30, 40, 50]
    assert most <= 2
    assert list(answers) == []


def test_what_fails_is_raised_in_its_turn():
    answers = map_ahead(lambda number: 6 // number, [2, 0, 3], n_ahead=3)
    assert next(answers) == 3
    with pytest.raises(ZeroDivisionError):
        next(answers)
