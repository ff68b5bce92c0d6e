"""The command as a user meets it: quick help, exit codes, sentences instead of stacks."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel
from trillium.cli import app, exit_code
from trillium.errors import BackendError, ConfigError, DataError, ShapeError
from trillium.runs import Run
from typer.testing import CliRunner


class Settings(BaseModel):
    beta: float = 0.1
    steps: int = 5


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def make_run(folder: Path, *, beta: float, accuracy: float) -> Path:
    with Run.open(folder, Settings(beta=beta), seed=1) as run:
        stage = run.stage("train", {"beta": str(beta)})
        (stage.work / "adapter").write_text(str(beta))
        stage.finish(["adapter"], {"accuracy": accuracy, "pairs": 12})
        run.stage("evaluate", {})
    return folder


def test_help_loads_no_heavy_package_and_names_every_command() -> None:
    script = (
        "import sys; sys.argv = ['trillium', '--help']\n"
        "from trillium.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'numpy', 'pyarrow', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    reply = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert reply.stdout.splitlines()[-1] == "[]"
    for command in ("doctor", "assets", "runs", "objectives", "code", "sandbox", "train"):
        assert f" {command} " in reply.stdout, command


def test_a_warning_of_the_hub_is_printed_once() -> None:
    script = (
        "import sys; sys.argv = ['trillium', '--help']\n"
        "from trillium.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "from huggingface_hub.utils import logging\n"
        "logging.get_logger('huggingface_hub.utils._http').warning('Retrying in 1s')"
    )
    reply = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert reply.stderr.splitlines() == ["Retrying in 1s"]


def test_the_module_runs_without_the_script() -> None:
    command = [sys.executable, "-m", "trillium.cli", "assets", "list"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "smollm2-135m-instruct" in found.stdout


def test_exceptions_become_exit_codes() -> None:
    assert [exit_code(kind("x")) for kind in (ConfigError, DataError, ShapeError)] == [2, 2, 2]
    assert exit_code(BackendError("x")) == 1
    assert exit_code(ValueError("a bug")) is None
    assert exit_code(RuntimeError("a bug")) is None


@pytest.mark.parametrize("kind", [ConfigError, DataError, ShapeError, BackendError])
def test_our_exceptions_survive_a_process_boundary(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("pairs.jsonl:17: no")))
    assert type(copy) is kind
    assert str(copy) == "pairs.jsonl:17: no"


def test_a_mistake_is_one_sentence_and_exit_code_2() -> None:
    code, out, err = call("assets", "get", "humanevl")
    assert (code, out) == (2, "")
    assert err == "trillium: humanevl: is no asset; did you mean humaneval?\n"


def test_an_unknown_command_is_bad_input() -> None:
    code, _, err = call("asets")
    assert code == 2
    assert "assets" in err


def test_the_doctor_speaks_json() -> None:
    code, out, _ = call("doctor", "--json")
    findings = json.loads(out)
    assert {"name", "state", "found", "advice"} == set(findings[0])
    assert code == (1 if any(finding["state"] == "missing" for finding in findings) else 0)


def test_assets_are_listed_with_licence() -> None:
    code, out, _ = call("assets", "list")
    assert code == 0
    assert "smollm2-135m-instruct" in out
    assert "licence Apache-2.0" in out


def test_runs_are_listed_shown_and_compared(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", beta=0.1, accuracy=0.5)
    two = make_run(tmp_path / "two", beta=0.2, accuracy=0.75)
    code, out, _ = call("runs", "list", str(tmp_path))
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [str(one), str(two)]
    assert out.splitlines()[0].endswith("train; unfinished: evaluate")

    _, out, _ = call("runs", "show", str(one))
    assert "accuracy 0.5  pairs 12" in out
    assert "evaluate     unfinished" in out
    (one / "adapter").unlink()
    assert "MISSING" in call("runs", "show", str(one))[1]

    _, out, _ = call("runs", "compare", str(one), str(two))
    rows = {line.split("  ")[0]: line.split()[-2:] for line in out.splitlines()[1:]}
    assert rows["beta"] == ["0.1", "0.2"]
    assert rows["train: accuracy"] == ["0.5", "0.75"]
    assert "steps" not in rows
    assert "train: pairs" not in rows


def test_runs_that_are_none_are_bad_input(tmp_path: Path) -> None:
    code, _, err = call("runs", "show", str(tmp_path))
    assert (code, err) == (
        2,
        f"trillium: {tmp_path}: is not a run folder (it has no run.json); name one, see trillium "
        "runs list\n",
    )
    code, _, err = call("runs", "compare", str(tmp_path))
    assert (code, err.split(";")[0]) == (
        2,
        "trillium: runs compare: needs at least two run folders",
    )


def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Run.open(tmp_path / name, Settings(), seed=1):
            pass
    (tmp_path / "a" / "run.json").write_text("{")
    code, out, _ = call("runs", "list", str(tmp_path))
    first, second = out.splitlines()
    assert code == 0
    assert first.startswith(f"{tmp_path}/a/run.json: is damaged (Invalid JSON")
    assert second.startswith(f"{tmp_path}/b  seed 1")


def test_a_damaged_environment_does_not_hide_the_stages(tmp_path: Path) -> None:
    with Run.open(tmp_path, Settings(), seed=1):
        pass
    (tmp_path / "environment.json").write_text("[]")
    code, out, _ = call("runs", "show", str(tmp_path))
    assert (code, out.splitlines()[-1]) == (0, "  environment.json is damaged")


def test_a_message_that_no_terminal_can_encode_is_escaped(tmp_path: Path) -> None:
    code, _, err = call("runs", "show", f"{tmp_path}/\udcff")
    assert code == 2
    assert "\\udcff: is not a run folder" in err


# A suite in the background of a shell ignores SIGINT, and so would its children.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from trillium.cli import app, main
@app.command()
def endless() -> None:
    print("started", flush=True)
    while True:
        print("x" * 100)
        time.sleep(0.001)
@app.command()
def resumable() -> None:
    import tempfile
    from pathlib import Path
    from pydantic import BaseModel
    from trillium.runs import Run
    class Settings(BaseModel): pass
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder), Settings(), seed=1):
        endless()
@app.command()
def broken() -> None:
    raise KeyError("a bug")
sys.argv = ["trillium", sys.argv[1]]
main()
"""


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "resumable",
            "interrupted; finished work is kept, the same command continues: trillium resumable",
        ),
        ("endless", "interrupted"),
    ],
)
def test_ctrl_c_says_how_to_continue_where_a_run_keeps_finished_work(
    command: str, sentence: str
) -> None:
    with _start(command) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, f"trillium: {sentence}\n")


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    with _start("endless") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait()
    assert (process.returncode, err) == (1, "")


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with _start("broken") as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert "Traceback" in err
    assert "KeyError: 'a bug'" in err


def _start(command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [(">&-", 0, ""), ("> /dev/full", 1, "standard output cannot be written: the disk is full")],
)
def test_an_output_that_cannot_be_written_is_no_traceback(
    redirection: str, code: int, said: str
) -> None:
    command = f"{sys.executable} -m trillium.cli objectives list {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
