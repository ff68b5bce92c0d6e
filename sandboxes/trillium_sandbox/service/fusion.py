"""SandboxFusion's `/run_code`, so that its clients work unchanged: its body in, its shape out.

Source: bytedance/SandboxFusion, sandbox/server/sandbox_api.py. Python only; files are written
before the program starts, none is sent back. Differs from it: output over the limit or memory over
the limit is a failure that says so, never a time limit.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, Field

from trillium_sandbox.errors import RequestError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Reply, Request

OUTPUT_BYTES = 1 << 20
"""Its clients expect whole outputs; longer ones are cut here, and said to be."""

_WITH_FILES = """def _write(files):
    import base64, os
    for path, coded in files.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(coded))
_write({files!r})
del _write
exec(compile({code!r}, "program.py", "exec", dont_inherit=True))
"""


class RunCode(BaseModel):
    """What SandboxFusion's clients send."""

    code: str
    language: str
    compile_timeout: float = 10
    run_timeout: float = Field(10, gt=0)
    memory_limit_MB: int = -1
    stdin: str | None = None
    files: dict[str, str | None] = {}
    fetch_files: list[str] = []


class CommandResult(BaseModel):
    """How one command ended."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeAnswer(BaseModel):
    """What SandboxFusion's clients read."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str
    compile_result: CommandResult | None = None
    run_result: CommandResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = {}


def read(body: RunCode, limits: Limits) -> Request:
    """Return the request that `body` means. Raises RequestError for what is not offered."""
    if body.language != "python":
        raise RequestError(f"language = {body.language!r} (this sandbox runs python)")
    if body.fetch_files:
        raise RequestError(f"fetch_files = {body.fetch_files} (no file is sent back); print it")
    limits = replace(
        limits, wall_s=body.run_timeout, cpu_s=body.run_timeout, output_bytes=OUTPUT_BYTES
    )
    if body.memory_limit_MB > 0:
        limits = replace(limits, memory_bytes=body.memory_limit_MB << 20)
    files = {name: coded for name, coded in body.files.items() if coded is not None}
    for name, coded in files.items():
        _check_file(name, coded)
    source = _WITH_FILES.format(files=files, code=body.code) if files else body.code
    try:
        return Request(
            "run_code", "script", source.encode(), stdin=(body.stdin or "").encode(), limits=limits
        )
    except UnicodeEncodeError as error:
        raise RequestError("code or stdin holds half a surrogate pair") from error


def refuse(sentence: str) -> RunCodeAnswer:
    """Return the answer that makes its clients raise an error with this sentence."""
    return RunCodeAnswer(status="SandboxError", message=sentence)


def answer(reply: Reply) -> RunCodeAnswer:
    """Return a reply in SandboxFusion's shape."""
    stderr = reply.stderr.decode("utf-8", "replace")
    if reply.sandbox_failure:
        return refuse(stderr)
    if reply.status == "timeout":
        result = CommandResult(status="TimeLimitExceeded")
    else:
        # A program over a limit may have ended with 0 all the same: that is no success.
        code = reply.exit_code
        result = CommandResult(
            status="Finished", return_code=1 if code == 0 and reply.status != "ok" else code
        )
    result.execution_time = reply.wall_s
    result.stdout = reply.stdout.decode("utf-8", "replace")
    result.stderr = stderr
    message = "" if reply.limit_hit is None else f"the program reached its limit {reply.limit_hit}"
    status: Literal["Success", "Failed"] = "Success" if reply.status == "ok" else "Failed"
    return RunCodeAnswer(status=status, message=message, run_result=result)


def _check_file(name: str, coded: str) -> None:
    path = posixpath.normpath(name)
    if not name or path.startswith(("/", "..")) or "\0" in name:
        raise RequestError(f"files: {name!r} is outside the work folder (a relative path)")
    try:
        base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"files: the content of {name!r} is not base64: {error}") from error
