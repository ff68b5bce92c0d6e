import pytest
from trillium.strategies.judging import (
    Vote,
    ask_for_scores,
    cohen_kappa,
    combine_orders,
    count_votes,
    read_opinion,
)


def test_the_last_scores_of_an_answer_count():
    assert read_opinion("Format is A: 7 B: 4.\nBoth are fine.\nA: 3 B: 8.5").scores == (3.0, 8.5)
    assert read_opinion("**Response A**: 6/10\n**Response B**: 2/10").scores == (6.0, 2.0)


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("Response A lists 3 points, the other is vague.\nA: 9 B: 4", (9.0, 4.0)),
        ("A gives 2 examples, B none.\nA: 9 B: 4", (9.0, 4.0)),
        ("Response A: 3 points, all right.\nA: 9 B: 4", (9.0, 4.0)),
        ("A 0-point answer, wrong.\nA: 5.5 B: 6", (5.5, 6.0)),
        ("A: 8 out of 10, B: 3 out of 10", (8.0, 3.0)),
        ("Response A: 9/10 and Response B: 4/10.", (9.0, 4.0)),
        ("**A:** 7 **B:** 4", (7.0, 4.0)),
        ("**A: 7**\n\n**B: 4**", (7.0, 4.0)),
        ('{"A": 7, "B": 4}', (7.0, 4.0)),
    ],
)
def test_numbers_in_the_reasons_are_no_scores(answer, scores):
    assert read_opinion(answer).scores == scores


@pytest.mark.parametrize(
    "answer",
    [
        *("", "A is better.", "A: 70 B: 3", "A: seven B: two"),
        *("A: -3 B: 4", "A: 3 points. B: 2 points.", "A has 9, B has 4."),
    ],
)
def test_an_answer_without_scores_in_range_is_unreadable(answer):
    assert read_opinion(answer).scores is None


def test_a_judge_that_favours_a_place_votes_for_nobody():
    first = read_opinion("A: 9 B: 5")
    vote = combine_orders(first, first)
    assert vote == Vote(0.0, is_consistent=False)
    assert count_votes([vote]) == 0


def test_a_vote_is_the_mean_over_both_orders():
    vote = combine_orders(read_opinion("A: 8 B: 4"), read_opinion("A: 3 B: 5"))
    assert vote == Vote(3.0, is_consistent=True)
    assert combine_orders(read_opinion("A: 8 B: 4"), read_opinion("?")).preference is None


def test_a_jury_follows_its_majority_and_not_its_loudest_member():
    votes = [Vote(0.5, True), Vote(0.5, True), Vote(-9.0, True), Vote(None, False)]
    assert count_votes(votes) == 1
    assert count_votes([Vote(1.0, True), Vote(-1.0, True)]) == 0


def test_kappa_of_cohens_table():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = .7, p_e = .5, kappa = .4
    left = [1] * 25 + [-1] * 25
    right = [1] * 20 + [-1] * 5 + [1] * 10 + [-1] * 15
    assert cohen_kappa(left, right) == pytest.approx(0.4, abs=1e-12)
    assert cohen_kappa(left, left) == 1.0
    assert cohen_kappa([1, 1], [1, 1]) == 1.0
    with pytest.raises(ValueError, match="0 ratings and 1"):
        cohen_kappa([], [1])


def test_the_question_holds_both_responses_and_what_others_said():
    question = ask_for_scores("Add 1 and 2.", "3", "4", ["A: 9 B: 0"])
    assert question.index("[Response A]\n3") < question.index("[Response B]\n4")
    assert "[Another judge]\nA: 9 B: 0" in question
    assert "Another judge" not in ask_for_scores("Add 1 and 2.", "3", "4")
