"""Number cases in JSON: load them, compute them in float64, compare them.

A file holds one method: `method`, `grads_of` ("sum(losses)" or "loss") and `cases`, each with
`hparams`, `inputs` and, in at least the first case, `expected`: `losses`, their mean `loss`,
`grads` by input, `extras` by name. The first case says what every case of the file computes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from trillium.errors import DataError, ShapeError
from trillium.objectives.bindings.inputs import CaseInputs, Outcome
from trillium.objectives.bindings.table import BINDINGS

_GRADS_OF = ("sum(losses)", "loss")
RTOL, ATOL = 1e-9, 1e-12
"""A computed number x agrees with an expected y when |x - y| <= ATOL + RTOL |y|."""


@dataclass(frozen=True)
class Case:
    """Hold one case of a file; `wanted` is the shape of the first case's expected values."""

    file: str
    name: str
    method: str
    hparams: Mapping[str, object]
    inputs: Mapping[str, object]
    wanted: Mapping[str, object]
    expected: Mapping[str, object]
    grads_of: str


@dataclass(frozen=True)
class Checked:
    """Hold what a case computed and every expected value it missed; no expectation, no mismatch."""

    case: Case
    values: Mapping[str, object]
    mismatches: tuple[str, ...]

    def to_json(self) -> str:
        """Return one line: file, case and the computed values under the keys of `expected`."""
        return json.dumps({"file": self.case.file, "case": self.case.name, **self.values})

    def to_text(self) -> str:
        """Return `ok`, the differences, or the values where there is nothing to compare with."""
        where = f"{self.case.file} {self.case.name}"
        if self.mismatches:
            return "\n  ".join([f"DIFFERS  {where}", *self.mismatches])
        if self.case.expected:
            return f"ok       {where}"
        lines = [f"{key} = {json.dumps(value)}" for key, value in self.values.items()]
        return "\n  ".join([f"computed {where}", *lines])


@dataclass(frozen=True)
class Report:
    """Hold what became of every case of some files, and why the others could not be computed."""

    checked: tuple[Checked, ...]
    problems: tuple[str, ...]


def check_files(paths: Sequence[Path]) -> Report:
    """Check every case that can be computed; a case or file that cannot hides no other."""
    checked: list[Checked] = []
    problems: list[str] = []
    for path in paths:
        try:
            cases = load_cases(path)
        except DataError as error:
            problems.append(str(error))
            continue
        for case in cases:
            try:
                checked.append(check_case(case))
            except DataError as error:
                problems.append(str(error))
    return Report(tuple(checked), tuple(problems))


def load_cases(path: Path) -> list[Case]:
    """Return the cases of one file, or raise DataError that names what the file lacks."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        method, grads_of = str(content["method"]), str(content["grads_of"])
        wanted = content["cases"][0]["expected"]
        cases = [
            (str(case["name"]), case["hparams"], case["inputs"], case.get("expected", {}))
            for case in content["cases"]
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"{path}: not a case file ({type(error).__name__}: {error}); it needs method, grads_of "
            "and cases with name, hparams and inputs, the first one with expected"
        ) from error
    if method not in BINDINGS:
        raise DataError(f'{path}: unknown method "{method}"; known are {", ".join(BINDINGS)}')
    if grads_of not in _GRADS_OF:
        raise DataError(
            f'{path}: "grads_of" is "{grads_of}" (needs {" or ".join(_GRADS_OF)}); correct it'
        )
    for name, *parts in cases:
        _check_parts(f"{path}: case {name}", *parts)
    return [
        Case(
            file=path.name,
            name=name,
            method=method,
            hparams=hparams,
            inputs=inputs,
            wanted=wanted,
            expected=expected,
            grads_of=grads_of,
        )
        for name, hparams, inputs, expected in cases
    ]


def check_case(case: Case) -> Checked:
    """Compute one case and compare it with its expected values, where it has any."""
    values = compute_case(case)
    return Checked(case, values, tuple(_differences(values, case.expected, "")))


def compute_case(case: Case, dtype: torch.dtype = torch.float64) -> dict[str, object]:
    """Return what the first case of the file expects, computed for this case."""
    where = f"{case.file}: case {case.name}"
    try:
        return _compute(case, CaseInputs(where, case.inputs, dtype))
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        if said.startswith(where):
            raise
        if isinstance(error, DataError | ShapeError):
            raise DataError(f"{where}: {said}") from error
        # The functions take tensors that fit together; torch names neither file nor case.
        raise DataError(
            f"{where} cannot be computed ({said}); make the inputs of the case fit together"
        ) from error


def _check_parts(where: str, hparams: object, inputs: object, expected: object) -> None:
    """Raise DataError where a case has something else in place of keys with values."""
    parts = {"hparams": hparams, "inputs": inputs, "expected": expected}
    if isinstance(expected, Mapping):
        parts["expected.grads"] = expected.get("grads", {})
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise DataError(
                f'{where}: "{name}" is {json.dumps(part)} (needs keys with values); correct it'
            )


def _compute(case: Case, inputs: CaseInputs) -> dict[str, object]:
    outcome = BINDINGS[case.method](case.hparams, inputs)
    values: dict[str, object] = {}
    for key, shape in case.wanted.items():
        if key == "losses":
            values[key] = _plain(_given(outcome.losses, case, key))
        elif key == "loss":
            values[key] = _plain(_loss(outcome, case))
        elif key == "grads":
            values[key] = _gradients(outcome, case, inputs, list(cast(Mapping[str, object], shape)))
        elif key == "extras":
            values[key] = {name: _plain(value) for name, value in outcome.extras.items()}
        else:
            values[key] = _plain(_given(outcome.extras.get(key), case, key))
    return values


def _loss(outcome: Outcome, case: Case) -> Tensor:
    if outcome.loss is not None:
        return outcome.loss
    return _given(outcome.losses, case, "losses").mean()


def _gradients(
    outcome: Outcome, case: Case, inputs: CaseInputs, names: Sequence[str]
) -> dict[str, object]:
    """Return the gradient of the loss, or of the sum of losses, with respect to each input."""
    total = _loss(outcome, case)
    if case.grads_of == "sum(losses)":
        total = _given(outcome.losses, case, "losses").sum()
    leaves = {name: inputs.real(name) for name in names if name in case.inputs}
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return {name: _plain(value) for name, value in zip(leaves, gradients, strict=True)}


def _given(value: Tensor | None, case: Case, key: str) -> Tensor:
    if value is None:
        raise DataError(
            f'{case.file}: case {case.name} expects "{key}", which {case.method} does not compute; '
            "remove it from the first case"
        )
    return value


def _plain(value: Tensor) -> object:
    return cast(object, value.detach().tolist())


def _differences(computed: object, expected: object, where: str) -> list[str]:
    """Return one line per number that is missing or not equal to the expected one."""
    if isinstance(expected, Mapping):
        computed = computed if isinstance(computed, Mapping) else {}
        return [
            line
            for key, value in expected.items()
            for line in _differences(computed.get(key), value, f"{where}.{key}".lstrip("."))
        ]
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(computed, Sequence) or len(computed) != len(expected):
            return [f"{where}: computed {computed}, expected {expected}"]
        return [
            line
            for index, value in enumerate(expected)
            for line in _differences(computed[index], value, f"{where}[{index}]")
        ]
    if not _agree(computed, expected):
        return [f"{where}: computed {computed}, expected {expected}"]
    return []


def _agree(computed: object, expected: object) -> bool:
    if isinstance(expected, int | float) and isinstance(computed, int | float):
        if computed == expected:
            return True
        return abs(computed - expected) <= ATOL + RTOL * abs(expected)
    return computed == expected
