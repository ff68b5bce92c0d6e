"""A program that runs alone finds what plain Python gives one, and ends as it would."""

import pytest
from trillium_sandbox import Request

PROGRAMS = {
    "its own name": (
        "import os\nprint(__file__, os.path.basename(os.path.abspath(__file__)))",
        b"program.py program.py\n",
    ),
    "an output that it closes itself": ("import sys\nprint(1)\nsys.stdout.close()", b"1\n"),
    "errors that it closes itself": ("import sys\nprint(1)\nsys.stderr.close()", b"1\n"),
    "help": ("def f():\n    'Add.'\nhelp(f)", b"Help on function f in module __main__:\n\n"),
    "the copyright": ("print(str(copyright)[:9])", b"Copyright\n"),
}


@pytest.mark.parametrize(("source", "printed"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_finds_what_an_interpreter_has(backend, source, printed):
    (reply,) = backend.run([Request("a", "script", source.encode())])
    assert (reply.status, reply.exit_code) == ("ok", 0)
    assert reply.stdout.startswith(printed)
    assert reply.stderr == b""


def test_an_output_that_cannot_be_flushed_is_an_error_as_of_any_interpreter(backend):
    source = b"import sys\nclass Broken:\n    def flush(self): raise OSError\nsys.stdout = Broken()"
    (reply,) = backend.run([Request("a", "script", source)])
    assert (reply.status, reply.exit_code) == ("error", 120)
