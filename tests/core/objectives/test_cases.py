import json
import re
from pathlib import Path

import pytest
from trillium.errors import DataError
from trillium.objectives.cases import check_case, load_cases

GOLDEN = Path(__file__).parent / "golden"
INPUTS = {
    "policy_chosen_logps": [-1.0],
    "policy_rejected_logps": [-2.0],
    "ref_chosen_logps": [-1.5],
    "ref_rejected_logps": [-1.5],
}
EXPECTED = {"losses": [0.31326168751822286], "loss": 0.31326168751822286}
CASE = {"name": "one", "hparams": {"beta": 1.0}, "inputs": INPUTS, "expected": EXPECTED}


def write(folder: Path, *cases: dict[str, object], **content: object) -> Path:
    path = folder / "dpo.json"
    body = {"method": "dpo", "grads_of": "sum(losses)", "cases": list(cases), **content}
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def test_a_right_case_has_no_mismatch(tmp_path: Path) -> None:
    (case,) = load_cases(write(tmp_path, CASE))
    assert check_case(case).mismatches == ()


def test_a_loss_wrong_in_the_ninth_digit_is_a_mismatch(tmp_path: Path) -> None:
    wrong = {**CASE, "expected": {**EXPECTED, "loss": 0.313261688}}
    (case,) = load_cases(write(tmp_path, wrong))
    (line,) = check_case(case).mismatches
    assert line.startswith("loss: computed 0.31326168751822")
    assert line.endswith("expected 0.313261688")


def test_a_missing_and_a_shorter_value_are_mismatches(tmp_path: Path) -> None:
    wrong = {**CASE, "expected": {"losses": [0.1, 0.2], "extras": {"chosen_margin": [1.0]}}}
    (case,) = load_cases(write(tmp_path, wrong))
    assert [line.split(":")[0] for line in check_case(case).mismatches] == [
        "losses",
        "extras.chosen_margin",
    ]


def test_a_case_without_expectations_computes_what_the_first_one_expects(tmp_path: Path) -> None:
    grads = {"policy_chosen_logps": [-0.2689414213699951]}
    first = {**CASE, "expected": {**EXPECTED, "grads": grads}}
    second = {"name": "two", "hparams": {"beta": 0.5}, "inputs": INPUTS}
    case = load_cases(write(tmp_path, first, second))[1]
    checked = check_case(case)
    assert checked.mismatches == ()
    assert json.loads(checked.to_json()) == {
        "file": "dpo.json",
        "case": "two",
        "losses": [pytest.approx(0.4740769841801067)],
        "loss": pytest.approx(0.4740769841801067),
        "grads": {"policy_chosen_logps": [pytest.approx(-0.1887703343990727)]},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"method": "dopo"}, 'unknown method "dopo"'),
        ({"cases": []}, "not a case file"),
        ({"cases": [{"name": "one"}]}, "'expected'"),
        ({"cases": 3}, "not a case file"),
        ({"grads_of": "mean"}, r'"grads_of" is "mean" \(needs sum\(losses\) or loss\)'),
        ({"cases": [{**CASE, "hparams": None}]}, 'case one: "hparams" is null'),
        ({"cases": [{**CASE, "inputs": [1]}]}, r'case one: "inputs" is \[1\]'),
        ({"cases": [{**CASE, "expected": None}]}, 'case one: "expected" is null'),
        ({"cases": [CASE, {**CASE, "expected": 3}]}, 'case one: "expected" is 3'),
        ({"cases": [{**CASE, "expected": {"grads": [1]}}]}, r'"expected.grads" is \[1\]'),
    ],
)
def test_a_file_that_is_no_case_file_is_refused(
    tmp_path: Path, content: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_cases(write(tmp_path, CASE, **content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_cases(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hparams": {"beta": -1.0}},
            r"case one is no DPOConfig \(beta: Input should be greater than 0\)",
        ),
        ({"inputs": {}}, 'case one has no input "policy_chosen_logps"'),
        ({"inputs": {**INPUTS, "policy_chosen_logps": ["x"]}}, "policy_chosen_logps.*not numbers"),
        ({"expected": {"grads": {"perplexity": [1.0]}}}, "dpo.json: case one cannot be computed"),
        ({"expected": {"perplexity": 3.0}}, 'expects "perplexity", which dpo does not compute'),
    ],
)
def test_a_case_that_cannot_be_computed_says_why(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (case,) = load_cases(write(tmp_path, {**CASE, **change}))
    with pytest.raises(DataError, match=message):
        check_case(case)


@pytest.mark.parametrize(
    ("method", "hparams", "message"),
    [
        ("lipo", {"variant": "lambda", "log_base": "10"}, "lambda has no form with log_base 10"),
        ("curry_dpo", {"gap": "length"}, 'gap is length \\(only "rating" is an input\\)'),
    ],
)
def test_an_option_that_only_files_have_is_checked(
    tmp_path: Path, method: str, hparams: dict[str, object], message: str
) -> None:
    (case,) = load_cases(write(tmp_path, {**CASE, "hparams": hparams}, method=method))
    with pytest.raises(DataError, match=message):
        check_case(case)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("gpo", "score_chosen", [0.5, 0.5]),
        ("lipo", "policy_logps", [-1.0]),
        ("kto", "policy_logps", -1.0),
        ("spo_degree", "degree_logits", [[0.0]]),
        ("orpo", "chosen_lens", [3, 4, 5, 6, 7]),
    ],
)
def test_whatever_torch_says_of_inputs_names_file_and_case(
    tmp_path: Path, name: str, raw: str, value: object
) -> None:
    file = f"{name}.json"
    content = json.loads((GOLDEN / file).read_text(encoding="utf-8"))
    content["cases"][0]["inputs"][raw] = value
    path = tmp_path / file
    path.write_text(json.dumps(content), encoding="utf-8")
    case, named = load_cases(path)[0], re.escape(f"{file}: case {content['cases'][0]['name']}")
    with pytest.raises(DataError, match=f"^{named} cannot be computed"):
        check_case(case)
