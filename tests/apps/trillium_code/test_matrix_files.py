import json

import numpy as np
import pytest
from trillium.errors import DataError
from trillium_code.matrix_files import rank_file, read_matrix
from trillium_code.pairs import RankConfig

ROWS = [[1, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_json_csv_and_npy_hold_the_same_matrix(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([[bool(x) for x in row] for row in ROWS]))
    (tmp_path / "m.csv").write_text("1,pass,0\n1,fail,0\n0,False,0\n")
    np.save(tmp_path / "m.npy", np.array(ROWS))
    for name in ("m.json", "m.csv", "m.npy"):
        assert read_matrix(tmp_path / name).tolist() == [[bool(x) for x in row] for row in ROWS]


def test_every_missing_or_unreadable_cell_is_named(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("1,0,1\n1,,0\n1,yes\n")
    with pytest.raises(DataError) as error:
        read_matrix(path)
    assert str(error.value).splitlines() == [
        f"{path}: row 2, column 2: is missing (expected 0 or 1); fill it in",
        f"{path}: row 3, column 2: is 'yes' (expected 0 or 1); fill it in",
        f"{path}: row 3, column 3: is missing (expected 0 or 1); fill it in",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.txt", "1", "unknown kind of matrix"),
        ("m.json", "{}", "must hold a list of lists"),
        ("m.json", "[", "cannot be read"),
        ("m.csv", "", "holds no cell"),
        ("m.json", "[" * 100_000, "cannot be read"),
        ("m.csv", "1" * 200_000, "cannot be read"),
        ("m.npy", "", "cannot be read"),
    ],
)
def test_files_that_hold_no_matrix_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_matrix(tmp_path / name)


def test_a_missing_or_binary_matrix_is_told_in_plain_words(tmp_path):
    with pytest.raises(DataError, match=r"m\.csv: cannot be read \(No such file"):
        read_matrix(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"m\.csv: is no UTF-8 text"):
        read_matrix(tmp_path / "m.csv")


def test_ranking_a_file_shows_scores_removed_tests_and_the_pair(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(ROWS))
    text = rank_file(path, config=RankConfig(scorer="pass_count"))
    assert "3 programs, 3 tests" in text
    assert "removed: 1 tests" in text
    assert "pair: chosen 1, rejected 3, gap 2" in text


def test_a_matrix_of_failures_has_nothing_to_rank(tmp_path):
    path = tmp_path / "m.json"
    path.write_text("[[0], [0]]")
    text = rank_file(path, config=RankConfig())
    assert "no test is left" in text


BOTH_PASS_ALL = [[1, 1, 1], [1, 1, 1]]
NONE_PASSES_ALL = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
WORST_PASSES_THE_TEST = [[0, 0, 1], [0, 1, 0], [1, 0, 1]]
HALF = "no program passes 50% of the tests"


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        (BOTH_PASS_ALL, {}, "all programs score the same"),
        (BOTH_PASS_ALL, {"scorer": "dstc"}, "all programs score the same"),
        (NONE_PASSES_ALL, {"scorer": "plum"}, "all programs score the same"),
        (NONE_PASSES_ALL, {"min_chosen_pass_frac": 0.75}, "no program passes 75% of the tests"),
        (
            ROWS,
            {"min_agreement": 2},
            f"{HALF} and is one of 2 that pass the same ones (min_agreement)",
        ),
        (
            [[0, 1, 1], [1, 0, 0]],
            {"scorer": "single_test"},
            f"{HALF}, scores above the worst and passes a test that the worst fails",
        ),
        (
            ROWS,
            {"scorer": "dstc", "joint": {"min_gap": 3}},
            f"{HALF}, and 3 more than the worst (joint.min_gap)",
        ),
        (
            WORST_PASSES_THE_TEST,
            {"scorer": "dstc", "joint": {"rejected_test": "same_as_chosen"}},
            "the worst passes the test of the best (joint.rejected_test = same_as_chosen)",
        ),
    ],
)
def test_a_matrix_without_a_pair_says_why(tmp_path, rows, options, reason):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(rows))
    text = rank_file(path, config=RankConfig.model_validate(options))
    assert text.endswith(f"\nno pair: {reason}")


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ("codedpo", "pair: chosen 1, rejected 3"),
        ("pass_count", "pair: chosen 1, rejected 3, gap 2"),
        ("codet", "pair: chosen 1, rejected 3, gap 2"),
        ("plum", "pair: chosen 1, rejected 2, gap 1"),
        ("single_test", "pair: chosen 1, rejected 3, gap 1"),
        ("dstc", "pair: chosen 1 with test 1, rejected 3 with test 1, gap 2"),
        ("random", "pair: chosen"),
    ],
)
def test_every_scorer_ranks_a_saved_matrix(tmp_path, scorer, expected):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(ROWS))
    assert expected in rank_file(path, config=RankConfig(scorer=scorer))
