import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from trillium.objectives.bindings.table import BINDINGS
from trillium.objectives.cases import Case, check_case, compute_case, load_cases

OURS = Path(__file__).parent / "golden"
THEIRS = Path(os.environ.get("TRILLIUM_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))


def covered(folder: Path) -> list[Case]:
    files = [path for path in sorted(folder.glob("*.json")) if path.stem in BINDINGS]
    return [case for path in files for case in load_cases(path)]


def identify(case: Case) -> str:
    return f"{case.method}-{case.name}"


@pytest.mark.golden
@pytest.mark.parametrize("case", covered(OURS), ids=identify)
def test_every_number_agrees_with_400_digit_arithmetic(case: Case) -> None:
    assert case.expected, "a case of this folder always has expected values"
    assert check_case(case).mismatches == ()


@pytest.mark.golden
@pytest.mark.skipif(not THEIRS.is_dir(), reason=f"no folder {THEIRS} (set TRILLIUM_GOLDEN)")
@pytest.mark.parametrize("case", covered(THEIRS), ids=identify)
def test_every_number_agrees_with_the_external_cases(case: Case) -> None:
    checked = check_case(case)
    assert checked.mismatches == ()
    assert set(checked.values) == set(case.wanted)


def numbers(value: object) -> list[float]:
    """Return every number of nested lists and mappings, in order of keys."""
    if isinstance(value, Mapping):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(str(value))]


@pytest.mark.golden
@pytest.mark.parametrize("case", covered(OURS) + covered(THEIRS), ids=identify)
def test_float32_is_finite_and_close(case: Case) -> None:
    exact = numbers(compute_case(case))
    single = numbers(compute_case(case, torch.float32))
    assert all(map(math.isfinite, single))
    if case.name.endswith("float64_only"):
        return  # the values themselves exceed float32, where exponents are clamped
    noise = 1e-5 * min(1.0, max(map(abs, exact), default=1.0))
    assert single == pytest.approx(exact, rel=1e-3, abs=max(noise, 1e-35))


@pytest.mark.golden
def test_every_method_has_a_case_file() -> None:
    assert {path.stem for path in OURS.glob("*.json")} == set(BINDINGS)


@pytest.mark.golden
@pytest.mark.skipif(not THEIRS.is_dir(), reason=f"no folder {THEIRS} (set TRILLIUM_GOLDEN)")
def test_every_external_file_is_covered() -> None:
    assert {path.stem for path in THEIRS.glob("*.json")} <= set(BINDINGS)
