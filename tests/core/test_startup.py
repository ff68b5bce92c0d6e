"""What loads no model answers before anything that computes is imported."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate"}
CHILD = f"""
import sys
from trillium.cli import main
try:
    main()
finally:
    print("imported:", *sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""


def run(command, folder):
    """Return the exit code, what was said, and the line that lists the heavy packages."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *command.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    *said, imported = ended.stderr.splitlines()
    return ended.returncode, "\n".join([*said, ended.stdout]), imported


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train minimal data.path=x train.learning_rte=1", "did you mean train.learning_rate"),
        ("train minimal data.path=nothing.jsonl --dry-run", "there is no such file"),
        ("code run demo rank.scorr=plum", "did you mean rank.scorer"),
        ("code ablate ablation bad=1", "bad = 1: unknown key"),
        ("code tasks invent invent bad=1", "bad = 1: unknown key"),
        ("code rank nothing.json", "cannot be read"),
        ("math run demo warm_up.learning_rte=1", "did you mean warm_up.learning_rate"),
        ("math arms arms bad=1", "bad = 1: unknown key"),
        ("math solve nothing.jsonl bad=1", "bad = 1: unknown key"),
        ("math evaluate nothing nothing", "there is no such file"),
        ("rec run tiny fit.n_epoch=2", "did you mean fit.n_epochs"),
        ("rec ids tiny bad=1", "bad = 1: unknown key"),
        ("rec ablate alignment bad=1", "bad = 1: unknown key"),
        ("rec serve nothing", "is no run of the recommender"),
        ("rec catalogue show nothing", "is no run of the recommender"),
        ("deploy check nothing", "is no folder"),
        ("deploy merge nothing merged", "is no folder"),
        ("deploy export nothing --gguf out.gguf", "is no folder"),
        ("deploy render --registry nothing.yaml", "cannot be read"),
        ("serve nothing", "is no folder"),
        ("diagnose nothing", "there is no such file or folder"),
        ("data judge nothing.jsonl --output o.jsonl --by a-model", "there is no such file"),
        ("merge one two --output out", "there is no such folder"),
        ("tune minimal nothing.yaml", "cannot be read"),
        ("runs browse nothing", "there is no such file or folder"),
    ],
)
def test_a_mistake_is_answered_before_anything_heavy_is_imported(command, sentence, tmp_path):
    code, said, imported = run(command, tmp_path)
    assert (code, imported) == (2, "imported:")
    assert sentence in said


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("code rank matrix.json", "3 programs"),
        ("math problems problems.jsonl n_problems=3", "3 problems"),
        ("rec check tiny", "users: 200"),
        ("runs list .", "no runs"),
        ("assets list", "cache:"),
    ],
)
def test_a_command_that_computes_no_tensors_imports_nothing_heavy(command, sentence, tmp_path):
    (tmp_path / "matrix.json").write_text("[[1, 0], [0, 1], [1, 1]]")
    code, said, imported = run(command, tmp_path)
    assert (code, imported) == (0, "imported:")
    assert sentence in said


def test_what_a_dry_run_imports_cannot_train():
    modules = "trillium_code.preview, trillium_math.preview, trillium.policies.tokenizer"
    heavy = {"transformers.trainer", "peft", "datasets", "bitsandbytes"}
    child = f"import {modules}, sys; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", child], text=True) == "\n"
