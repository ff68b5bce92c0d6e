"""Whether a process that compiles programs ahead of their children would pay, in processor time.

    python tests/benchmarks/sandbox_compile.py [--programs 800]

A few seconds. A child that finds its program compiled saves what compiling costs it; the process
that compiled it instead has that to do, and must read the program and pass it on. All is measured
in a process as small as a zygote, with the real lock-down of level 2 around each child.

A compiler that serves many programs must not be trusted: a source that takes it over (by a bug of
the parser, in a process whose memory layout every candidate can read off its own) would change the
code of the programs after it, and with that their verdicts. So only a compiler for one program
alone is as safe as none. Success: a table, and a last line that says what such a one saves.
"""

import argparse
import gc
import json
import marshal
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

N_ROUNDS = 8
LIMITS = (6, 256 << 20, 1 << 25, 16, 65536)
NEEDED = 0.08
"""What would justify one more process between a program and its child."""

_LEAN = """import sys
package = type(sys)("trillium_sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["trillium_sandbox"] = package
import importlib.util
spec = importlib.util.spec_from_file_location("benchmark", sys.argv[2])
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
benchmark.measure(sys.stdin.buffer.read(), int(sys.argv[3]))
"""


def measure(source: bytes, n_programs: int) -> None:
    """Print the CPU microseconds of a program from source and from code, and of compiling it."""
    from trillium_sandbox import namespaces
    from trillium_sandbox.child import finish, lock_down, new_module, run_script
    from trillium_sandbox.startup import build_jail

    compiled = marshal.dumps(compile(source, "program.py", "exec", dont_inherit=True))
    n_programs //= N_ROUNDS
    shared = min(_compile_in_a_row(source, n_programs) for _ in range(N_ROUNDS))
    null = os.open("/dev/null", os.O_WRONLY)
    jail = build_jail(2, "/", LIMITS[2])
    gc.collect()
    gc.freeze()
    gc.disable()

    def from_source() -> int:
        lock_down(jail, LIMITS, namespaces.CANDIDATE_ID)
        return run_script(source, None)

    def from_code() -> int:
        lock_down(jail, LIMITS, namespaces.CANDIDATE_ID)
        exec(marshal.loads(compiled), new_module("__main__").__dict__)
        return finish(0)

    def compile_alone() -> int:
        os.dup2(null, 3)
        lock_down(jail, LIMITS, namespaces.CANDIDATE_ID)
        os.write(3, marshal.dumps(compile(source, "program.py", "exec", dont_inherit=True)))
        return 0

    bodies = (from_source, from_code, compile_alone)
    rounds = [[_run(body, n_programs) for body in bodies] for _ in range(N_ROUNDS)]
    print(*(min(costs) for costs in zip(*rounds, strict=True)), shared)


def _run(body: Callable[[], int], n_programs: int) -> float:
    """Return what forking a child that runs `body` costs, both processes together."""
    before = _used_us()
    for _ in range(n_programs):
        child = os.fork()
        if child == 0:
            try:
                os._exit(body())
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the program failed")
    return (_used_us() - before) / n_programs


def _compile_in_a_row(source: bytes, n_programs: int) -> float:
    """Return what it costs to take a program from a pipe, compile it and put it into another."""
    read, write = os.pipe()
    before = _used_us()
    for _ in range(n_programs):
        os.write(write, source)
        code = compile(os.read(read, 1 << 16), "program.py", "exec", dont_inherit=True)
        os.write(write, marshal.dumps(code))
        os.read(read, 1 << 16)
    return (_used_us() - before) / n_programs


def _used_us() -> float:
    own, forked = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own.ru_utime + own.ru_stime + forked.ru_utime + forked.ru_stime) * 1e6


def main() -> None:
    """Measure in a lean interpreter; print what each way costs and what would be saved."""
    import trillium_sandbox
    from sandbox_peers import PROGRAM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=800, help="of each kind")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    python = getattr(sys, "_base_executable", sys.executable)
    package = str(Path(trillium_sandbox.__file__).parent)
    command = [python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", _LEAN, package, __file__]
    measured = subprocess.run(
        [*command, str(options.programs)],
        input=PROGRAM.encode(),
        env={"LD_BIND_NOW": "1", "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
    )
    source, code, alone, shared = map(float, measured.stdout.split())
    print(f"a child that compiles its program     {source:7.0f} us")
    print(f"a child that finds it compiled        {code:7.0f} us")
    print(f"a compiler that all programs share    {shared:7.0f} us")
    print(f"a compiler for one program alone      {alone:7.0f} us")
    saved = {"shared": 1 - (code + shared) / source, "alone": 1 - (code + alone) / source}
    print(f"sharing one would save {saved['shared']:.0%}, and let a program change others' code")
    print(f"one for each saves {saved['alone']:.0%} (at least {NEEDED:.0%} would justify it)")
    if options.json:
        rows = {"source_us": source, "code_us": code, "shared_us": shared, "alone_us": alone}
        options.json.write_text(json.dumps(rows | {"saved": saved}, indent=2) + "\n")


if __name__ == "__main__":
    main()
