from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_code.fences import fenced_blocks


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no code here", []),
        ("```python\na = 1\n```", ["a = 1"]),
        ("```py\na = 1\n```\nand\n```\nb = 2\n```\n", ["a = 1", "b = 2"]),
        ("~~~python\na = 1\n```\n~~~", ["a = 1\n```"]),
        ("````\n```\na = 1\n```\n````", ["```\na = 1\n```"]),
        ('```python title="x.py"\na = 1\n```', ["a = 1"]),
        ("Here: ```python\na = 1\n```", ["a = 1"]),
        ("1. First\n   ```python\n   a = 1\n   ```\n2. Second", ["a = 1"]),
        ("```python\na = 1```\nThat was it.", ["a = 1"]),
        ("Use ```python a = 1``` for it, or ```b```.", ["a = 1``` for it, or ```b"]),
        ('```\ndef f():\n    """Like\n    ```\n    this."""\n```', None),
    ],
)
def test_blocks_are_found_however_they_are_fenced(text, blocks):
    found = fenced_blocks(text)
    if blocks is None:  # a fence that is indented like code does not end a block
        assert [block.text for block in found] == [text.split("\n", 1)[1].removesuffix("\n```")]
    else:
        assert [block.text for block in found] == blocks
    assert all(block.is_closed for block in found)


def test_a_block_without_an_end_goes_to_the_end_and_is_marked():
    text = dedent(
        """\
        ```python
        a = 1
        ```
        ```python
        b = 2"""
    )
    assert [(block.text, block.is_closed) for block in fenced_blocks(text)] == [
        ("a = 1", True),
        ("b = 2", False),
    ]


@given(st.text(alphabet="`~ \na1", max_size=80))
def test_no_text_breaks_the_search_and_every_block_is_of_the_text(text):
    squeezed = "".join(text.split())
    for block in fenced_blocks(text):
        assert "".join(block.text.split()) in squeezed
