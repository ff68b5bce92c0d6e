import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_code.answers import Reading, defines, read_answer
from trillium_code.programs import normalise

HEADER = 'import math\n\n\ndef inc(n: int) -> int:\n    """Return n plus one."""\n'
CODE = "def inc(n: int) -> int:\n    return n + 1\n"


def value(program, argument=1, name="inc"):
    names = {}
    exec(program, names)
    return names[name](argument)


def read(text, header=HEADER, **options):
    return read_answer(text, "inc", header, **options)


CHATTY = {
    "a block with a language": f"Sure! Here it is:\n\n```python\n{CODE}```\n\nIt adds one.",
    "py as the language": f"```py\n{CODE}```",
    "no language": f"Here:\n```\n{CODE}```\nDone.",
    "windows line ends": f"Sure!\n\n```python\n{CODE}```\nBye.".replace("\n", "\r\n"),
    "an unclosed block": f"Of course.\n\n```python\n{CODE}",
    "cut off in the next function": f"```python\n{CODE}\n\ndef more(n):\n    return (",
    "in a list": "1. Like this:\n   ```python\n   def inc(n):\n       return n + 1\n   ```\n2. Bye",
    "a draft and its correction": (
        f"```python\n{CODE.replace('+ 1', '- 1')}```\nWait, that is wrong.\n\n```python\n{CODE}```"
    ),
    "usage in a block behind it": f"```python\n{CODE}```\nUse it:\n```python\nprint(inc(3))\n```",
    "output in a block behind it": f"```python\n{CODE}```\nOutput:\n```\n4\n```",
    "a shell block before it": f"```bash\npip install numpy\n```\n```python\n{CODE}```",
    "statements that run": f"```python\n{CODE}\nx = int(input())\nprint(inc(x))\nassert 0\n```",
    "a main block": f"```python\n{CODE}\nif __name__ == '__main__':\n    exit(inc(1))\n```",
    "a helper in the block": (
        "```python\nfrom operator import add\n\nSTEP = 1\n\n\ndef more(n):\n    return add(n, STEP)"
        "\n\n\ndef inc(n):\n    return more(n)\n```"
    ),
    "a counter of its module": (
        "```python\nCALLS = 0\n\ndef inc(n):\n    global CALLS\n    CALLS += 1\n"
        "    return n + CALLS\n```"
    ),
    "the import is in the header": "```python\ndef inc(n):\n    return math.floor(n + 1.5)\n```",
    "a future import": f"```python\nfrom __future__ import annotations\n\n{CODE}```",
    "a lambda": "```python\ninc = lambda n: n + 1\n```",
    "an annotated lambda": (
        "```python\nfrom typing import Callable\n\ninc: Callable = lambda n: n + 1\n```"
    ),
    "an annotated lambda without a block": "It is\n\ninc: object = lambda n: n + 1\n\nThat's all.",
    "an import in a block of its own": (
        "```python\nfrom operator import add\n```\nThen:\n```python\n"
        "def inc(n):\n    return add(n, 1)\n```"
    ),
    "a helper and what it needs in blocks before it": (
        "```python\nimport operator\nSTEP = 1\n```\n```python\nprint(input())\n\ndef more(n):\n"
        "    return operator.add(n, STEP)\n```\nThen:\n```python\ndef inc(n):\n"
        "    return more(n)\n```"
    ),
    "a helper in a block behind it": (
        "```python\ndef inc(n):\n    return more(n)\n```\nwith\n"
        "```python\ndef more(n):\n    return n + 1\n\nprint(inc(1))\n```"
    ),
    "a helper and its correction": (
        "```python\ndef more(n):\n    return n - 1\n```\nNo:\n```python\ndef more(n):\n"
        "    return n + 1\n```\n```python\ndef inc(n):\n    return more(n)\n```"
    ),
    "code without a block": f"Here is the function.\n\n{CODE}\nIt adds one, as you asked.",
    "code alone": CODE,
    "indented code": "As follows:\n\n    def inc(n):\n        return n + 1\n\nIt adds one.",
    "a helper without a block": (
        "You need a helper:\n\ndef more(n):\n    return n + 1\n\n"
        "def inc(n):\n    return more(n)\n\nThat's all."
    ),
    "a thought before it": (
        f"<think>\n```python\ndef inc(n):\n    pass\n```\n</think>\n```\n{CODE}```"
    ),
    "broken lines in the block": f"```python\n{CODE}\ninc(1) -> 2\n```",
    "on one line": "Use ```python def inc(n): return n + 1``` and be done.",
    "a fence at the end of code": "```python\ndef inc(n):\n    return n + 1```\nBye.",
    "an attribute of the function": (
        "```python\ndef inc(n):\n    return n + inc.step\n\ninc.step = 1\nprint(inc(1))\n```"
    ),
    "a table filled entry by entry": (
        "```python\nNEXT = {}\nNEXT[0] = 1\nNEXT[1] = 2\n\ndef inc(n):\n    return NEXT[n]\n```"
    ),
    "a table filled by a loop": (
        "```python\nNEXT = []\nfor n in range(9):\n    NEXT.append(n + 1)\nNEXT.append(10)\n\n"
        "def inc(n):\n    return NEXT[n]\n\nfor n in (1, 2):\n    assert inc(n) == 0\n```"
    ),
    "a table filled by a function of its own": (
        "```python\nNEXT = []\ndef fill():\n    for n in range(9):\n        NEXT.append(n + 1)\n"
        "def begin():\n    fill()\nbegin()\n\ndef inc(n):\n    return NEXT[n]\n```"
    ),
    "a global that a function sets": (
        "```python\ndef begin():\n    global NEXT\n    NEXT = list(range(1, 9))\nbegin()\n\n"
        "def inc(n):\n    return NEXT[n]\n```"
    ),
    "a table given to a function of its own": (
        "```python\nNEXT = [0] * 9\ndef fill(table):\n    table[:] = range(1, 10)\nfill(NEXT)\n\n"
        "def inc(n):\n    return NEXT[n]\n```"
    ),
    "a heap": (
        "```python\nimport heapq\nHEAP = []\nfor n in (3, 1):\n    heapq.heappush(HEAP, n)\n\n"
        "def inc(n):\n    return n + HEAP[0]\n```"
    ),
    "a table of lists": (
        "```python\nNEXT = {}\nfor n in range(9):\n    NEXT.setdefault(n, []).append(n + 1)\n\n"
        "def inc(n):\n    return NEXT[n][0]\n```"
    ),
    "calls that fill nothing it reads": (
        "```python\nSTEPS = [1]\n\ndef inc(n):\n    return n + STEPS[0]\n\ndef load():\n"
        "    global COUNT\n    COUNT = int(input())\n\ndef main():\n    STEPS[0] = inc(COUNT)\n\n"
        "load()\nmain()\nexit(STEPS)\ninc(STEPS)\n```"
    ),
    "a table whose name a method counts with": (
        "```python\nNEXT = [1, 2]\n\nclass Steps:\n    def all(self):\n"
        "        for NEXT in [3]:\n            print(NEXT)\n\n    def one(self, n):\n"
        "        return NEXT[n]\n\ndef inc(n):\n    return Steps().one(n)\n```"
    ),
    "an import that may fail": (
        "```python\ntry:\n    from numpy_or_none import add\nexcept ImportError:\n"
        "    from operator import add\n\ndef inc(n):\n    return add(n, 1)\n```"
    ),
    "an assignment that adds": (
        "```python\nSTEPS = [0]\nSTEPS += [1]\n\ndef inc(n):\n    return n + sum(STEPS)\n```"
    ),
    "an argument read from the keyboard": (
        "```python\ndef inc(n):\n    return n + 1\n\ntry:\n    n = int(input())\n"
        "except EOFError:\n    raise\nprint(inc(n))\n```"
    ),
    "a skeleton behind it": f"```python\n{CODE}```\nFrom:\n```python\ndef inc(n):\n    ...\n```",
    "another name for it": "```python\ndef more(n):\n    return n + 1\n\ninc = more\n```",
    "wrapped": (
        "```python\nfrom functools import lru_cache\n\ndef _inc(n):\n    return n + 1\n\n"
        "inc = lru_cache(None)(_inc)\n```"
    ),
    "its value in a block behind it": (
        f"```python\n{CODE}```\nThen:\n```python\nnumbers = [1]\ninc = sum(numbers)\n```"
    ),
}


@pytest.mark.parametrize("text", CHATTY.values(), ids=CHATTY)
def test_the_program_is_found_in_a_chatty_answer(text):
    found = read(text)
    assert (found.is_whole, found.repair) == (True, None)
    assert value(found.program) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        "```python\nprint(inc(1))\n```",
        "```python\ndef increment(n):\n    return n + 1\n```",
        "```python\nclass Solution:\n    def inc(self, n):\n        return n + 1\n```",
        "    def inc(self, n):\n        return n + 1",
        "```python\n" + HEADER + "```",
        "```python\nif True:\n    from inc import inc\n```",
        "Line\rdef inc(n): return n + 1\x0cx\u2028def inc(n): return 2",
        "```python\ndef inc(n):\n    return " + "-" * 600 + "n\n```",
        "```python\ndef inc(n):\n    return f\"{n.replace('\xa0', ' ')}\"\n```",
        "```python\ndef inc(n):\n    return 0x" + "f" * 4000 + "\n```",
        '```python\ndef inc(n):\n    """Add one."""\n    pass\n```',
        "```python\ninc = compute(1)\n```",
        "```python\ninc: int\n```",
        "```python\ninc: int = compute(1)\n```",
    ],
)
def test_an_answer_without_the_function_becomes_a_program_that_fails(text):
    found = read(text)
    assert not found.is_whole
    assert found.program.startswith("# no function inc in this answer:\n")
    with pytest.raises(KeyError):
        value(found.program)
    assert normalise(found.program) == ""  # all of them are executed once


def test_what_runs_on_import_and_what_nothing_reads_is_left_out():
    text = (
        "```python\nLIMIT = 3\nresult = inc(LIMIT)\n\ndef inc(n):\n    return n + 1\nprint(1)\n```"
    )
    assert read(text).program == "import math\n\ndef inc(n):\n    return n + 1\n"


def test_of_other_blocks_only_what_the_function_lacks_is_added():
    text = (
        "```python\nimport numpy_or_none\nfrom math import floor\n\ndef inc(n):\n    return 0\n"
        "```\n"
        "```python\ndef inc(n):\n    return floor(math.floor(n)) + 1\n```\n"
        "```python\nmath = None\nn = 3\nassert inc(n) == 4\n```"
    )
    assert read(text).program == (
        "import math\nfrom math import floor\n\ndef inc(n):\n    return floor(math.floor(n)) + 1\n"
    )


def test_a_name_that_is_only_declared_in_another_block_is_given_by_the_one_that_sets_it():
    text = (
        "```python\nSTEP: int = 2\n```\n```python\ndef inc(n):\n    return n + STEP\n```\n"
        "```python\nSTEP: int\n```"
    )
    assert value(read(text).program) == 3


def test_a_header_keeps_what_it_takes_with_a_star():
    header = HEADER.replace("import math", "from math import *")
    assert (
        value(read("```python\ndef inc(n):\n    return floor(n + 1.5)\n```", header).program) == 2
    )


def test_of_the_header_only_what_the_answer_lacks_is_added():
    header = HEADER.replace("\n\n\n", "\n\n\ndef half(n):\n    return n / 2\n\n\n")
    own = "def half(n):\n    return n // 2\n\n\ndef inc(n):\n    return half(2 * n) + 1\n"
    program = read(f"```python\n{own}```", header).program
    assert program.count("def half") == program.count("import math") == 1
    assert "n // 2" in program


RENAMED = {
    "the only function": "```python\ndef increment(n):\n    return n + 1\n```",
    "the one that nobody calls": (
        "```python\ndef more(n):\n    return n + 1\n\ndef solve(n):\n    return more(n)\n\n"
        "def main():\n    print(solve(1))\n\ndef test_solve():\n    assert solve(1) == 2\n```"
    ),
    "one that calls itself": (
        "```python\ndef up(n, by=1):\n    return n + by if by < 2 else up(n, by - 1)\n```"
    ),
    "without a block": "Here:\n\ndef increment(n):\n    return n + 1\n\nThat's it.",
}


@pytest.mark.parametrize("text", RENAMED.values(), ids=RENAMED)
def test_a_function_of_another_name_is_renamed_only_when_asked(text):
    assert not read(text).is_whole
    found = read(text, repairs_signature=True)
    assert (found.is_whole, found.repair, value(found.program)) == (True, "renamed", 2)


@pytest.mark.parametrize(
    "text",
    [
        "def one(n):\n    return n + 1\n\ndef two(n):\n    return n + 2",
        "def add(a, b):\n    return a + b",
        "def up(n):\n    return inc(n)",
        "def up(up):\n    return up + 1",
        "def main(n):\n    return n + 1",
        "    def other(self):\n        return 2",
        "class Adder:\n    def inc(self, n):\n        return n + 1",
    ],
)
def test_what_is_ambiguous_is_not_repaired(text):
    assert not read(f"```python\n{text}\n```", repairs_signature=True).is_whole


def test_a_method_of_solution_becomes_a_function_only_when_asked():
    text = (
        "```python\nclass Solution:\n    def step(self):\n        return 1\n\n"
        "    def inc(self, n: int) -> int:\n        return n + self.step()\n```"
    )
    assert not read(text).is_whole
    found = read(text, repairs_signature=True)
    assert (found.is_whole, found.repair, value(found.program)) == (True, "unwrapped", 2)


def test_a_program_as_asked_for_is_never_repaired():
    for text in CHATTY.values():
        assert read(text, repairs_signature=True) == read(text)


PIECES = st.sampled_from(
    [
        *("```python\n", "```\n", "~~~", "def inc(n):\n", "    return n\n", "class Solution:\n"),
        *("    def inc(self, n):\n", "def f(n):\n", "import os\n", "x = (\n", '"""', "'", "\\\n"),
        *("\t", "\x00", "\r", "\x0c", "async ", "@", "lambda: ", "inc = ", "Sure!\n", "if 1:\n"),
    ]
)


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=25).map("".join)), st.booleans())
def test_no_text_breaks_the_reading(text, repairs):
    found = read(text, repairs_signature=repairs)
    assert isinstance(found, Reading)
    assert found.is_whole == defines(found.program, "inc")
    assert read(text, repairs_signature=repairs) == found
