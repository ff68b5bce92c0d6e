import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trillium_sandbox import RequestError
from trillium_sandbox.cli import app
from typer.testing import CliRunner

# fmt: off
FIELDS = [
    "id", "status", "tests", "stdout", "stderr", "truncated", "exit_code", "wall_s", "cpu_s",
    "peak_memory_bytes", "opcode_count", "limit_hit", "isolation", "integrity",
]
# fmt: on


def run(*arguments, lines=""):
    return CliRunner().invoke(app, ["batch", *arguments], input=lines)


def line(**fields):
    return json.dumps({"id": "a", "mode": "script", "source": "print(1)"} | fields) + "\n"


def test_a_batch_answers_every_line_in_order(tmp_path):
    requests = tmp_path / "requests.jsonl"
    tests = {"mode": "function", "source": "def f(x): return x", "tests": ["assert f(1) == 1"]}
    requests.write_text(line() + "\n" + line(id="b", **tests) + line(id=3, source="1 / 0"))
    result = run(str(requests))
    assert result.exit_code == 0
    replies = [json.loads(text) for text in result.stdout.splitlines()]
    assert [reply["id"] for reply in replies] == ["a", "b", "3"]
    assert [reply["status"] for reply in replies] == ["ok", "pass", "error"]
    assert list(replies[0]) == FIELDS


def test_a_batch_reads_standard_input_and_takes_limits():
    result = run("-", "--wall-s", "0.2", "--workers", "1", lines=line(source="while True: pass"))
    reply = json.loads(result.stdout)
    assert (reply["status"], reply["limit_hit"]) == ("timeout", "wall_s")


def test_every_bad_line_is_named_and_nothing_runs():
    result = run("-", lines=line() + line(mode="x") + "{\n" + line(id=None))
    assert result.stdout == ""
    assert isinstance(result.exception, RequestError)
    problems = str(result.exception).splitlines()
    assert [problem.split(" ")[0] for problem in problems] == [
        "<stdin>:2:",
        "<stdin>:3:",
        "<stdin>:4:",
    ]
    assert problems[0].endswith("; correct the line or drop it")


def test_very_many_bad_lines_are_counted():
    result = run("-", lines="[]\n" * 30)
    assert str(result.exception).splitlines()[-1] == "<stdin>: and 10 more bad lines"


def test_a_line_that_is_no_text_is_named(tmp_path):
    requests = tmp_path / "requests.jsonl"
    requests.write_bytes(b"\xff\n")
    assert str(run(str(requests)).exception) == (
        f"{requests}:1: is no UTF-8 text; correct the line or drop it"
    )


@pytest.mark.parametrize("lines", ["", "\n\n"])
def test_a_batch_without_a_request_is_refused(lines):
    result = run("-", lines=lines)
    assert isinstance(result.exception, RequestError)
    assert str(result.exception).startswith("<stdin>: holds no request (needs a JSON object")


def test_a_missing_file_and_a_bad_limit_are_named():
    assert str(run("/nowhere.jsonl").exception).endswith(
        "(No such file or directory); give a file of JSON lines, or - for stdin"
    )
    assert "limits.wall_s = 0.0" in str(run("-", "--wall-s", "0").exception)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_probe_prints_every_level(arguments):
    result = CliRunner().invoke(app, ["probe", *arguments])
    assert result.exit_code == 0
    if arguments:
        assert [row["level"] for row in json.loads(result.stdout)] == [0, 1, 2, 3, 4, 5]
    else:
        assert "2 namespaces" in result.stdout


COMMANDS = {
    "trillium": [str(Path(sys.executable).with_name("trillium")), "sandbox"],
    "module": [sys.executable, "-m", "trillium_sandbox"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input_ends_with_2_and_a_failure_of_the_sandbox_with_1(command, tmp_path):
    def end(*arguments):
        ended = subprocess.run(
            [*COMMANDS[command], *arguments], capture_output=True, text=True, check=False
        )
        assert ended.stdout == ""
        return ended.returncode, ended.stderr.removeprefix("trillium: ")

    requests = tmp_path / "requests.jsonl"
    requests.write_text(line() + "{}\n")
    assert end("batch", str(requests)) == (
        2,
        f"{requests}:2: id = None (a non-empty text); correct the line or drop it\n",
    )
    requests.write_text(line())
    assert end("batch", str(requests), "--min-level", "9")[0] == 2
    code, said = end("batch", str(requests), "--runtime", "runsc")
    assert (code, "is for the backend docker" in said) == (2, True)
    code, said = end("batch", str(requests), "--backend", "http", "--url", "http://127.0.0.1:9")
    assert (code, said.partition(" (")[0]) == (
        1,
        "http://127.0.0.1:9: no sandbox service answers there",
    )
    code, said = end("serve", "--host", "0.0.0.0", "--port", "0")
    assert (code, "add --no-token knowingly" in said) == (2, True)
    (tmp_path / "token").write_text("\n")
    code, said = end("serve", "--token-file", str(tmp_path / "token"))
    assert (code, "holds no token" in said) == (2, True)
    code, said = end("batch", str(requests), "--cache", str(requests))
    assert (code, "cannot be used as a result cache" in said) == (1, True)


def test_a_batch_on_a_service_with_a_cache_runs_each_program_once(
    start_service, tmp_path, monkeypatch
):
    (tmp_path / "token").write_text("s3cret")
    service = start_service("--token-file", str(tmp_path / "token"))
    clock = line(source="import time; print(time.time_ns())")
    options = ["--backend", "http", "--url", service.url, "--cache", str(tmp_path / "cache")]
    first = run("-", *options, "--token-file", str(tmp_path / "token"), lines=clock + clock)
    monkeypatch.setenv("TRILLIUM_SANDBOX_TOKEN", "s3cret")
    again = run("-", *options, lines=clock)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert again.stdout.splitlines() == first.stdout.splitlines()[:1]


def test_a_batch_is_answered_while_it_runs(tmp_path):
    requests = tmp_path / "requests.jsonl"
    slow = line(source="while True: pass", limits={"wall_s": 60, "cpu_s": 60})
    requests.write_text(line() + slow)
    with subprocess.Popen(
        [*COMMANDS["module"], "batch", str(requests)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    ) as process:
        assert json.loads(process.stdout.readline())["stdout"] == "1\n"
        process.kill()


@pytest.mark.parametrize("has_cache", [False, True])
def test_an_interrupted_batch_promises_only_what_it_keeps(has_cache, tmp_path):
    slow = line(source="while True: pass", limits={"wall_s": 60, "cpu_s": 60})
    (tmp_path / "requests.jsonl").write_text(line() + slow)
    arguments = ["batch", "requests.jsonl", *(["--cache", "results"] if has_cache else [])]
    # A suite in the background of a shell ignores SIGINT, and so would its children.
    program = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['trillium', 'sandbox', *{arguments}]\nfrom trillium.cli import main\nmain()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        text=True,
    ) as process:
        assert json.loads(process.stdout.readline())["stdout"] == "1\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    kept = "; results are kept in results, the same command continues: "
    command = "trillium sandbox batch requests.jsonl --cache results"
    assert process.returncode == 130
    assert said == f"trillium: interrupted{kept + command if has_cache else ''}\n"
