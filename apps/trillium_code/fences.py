"""Code blocks of Markdown, as models write them: also indented, unclosed, or closed behind code."""

import re
import textwrap
from dataclasses import dataclass

_FENCE = re.compile(r"(`{3,}|~{3,})")
_LANGUAGE = re.compile(r"(?:python3?|py3?)?\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """Hold the text between two fences; the last block of an answer may have lost its end."""

    text: str
    is_closed: bool = True


def fenced_blocks(text: str) -> list[Block]:
    """Return the code blocks of `text` in order, whatever language they name.

    A block begins at the last fence of a line, with the language behind it, and ends at a line of
    the same fence that is not indented like code (CommonMark 0.31, Section 4.5), or at a line of
    code with the fence at its end. A block on one line is a block too.
    """
    blocks: list[Block] = []
    opened, lines, indent = "", list[str](), 0
    for line in text.split("\n"):
        if opened:
            code = _before_end(line, opened, indent)
            if code is None:
                lines.append(line)
                continue
            blocks.append(_block([*lines, code]))
            opened = ""
            continue
        marks = list(_FENCE.finditer(line))
        if marks and len(marks) % 2 == 0:
            inside = line[marks[0].end() : marks[-1].start()]
            language = _LANGUAGE.match(inside)
            blocks.append(Block(inside[language.end() :] if language else inside))
        elif marks:
            opened, lines = marks[-1].group(), []
            indent = len(line) - len(line.lstrip())
    return [*blocks, _block(lines, is_closed=False)] if opened else blocks


def _before_end(line: str, opened: str, indent: int) -> str | None:
    """Return the code before the closing fence of a line, or None when the block goes on."""
    bare = line.rstrip()
    if not bare.endswith(opened):
        return None
    code = bare.rstrip(opened[0])
    if not code.strip():
        return "" if len(code) <= indent + 3 else None
    return code if len(_FENCE.findall(bare)) % 2 else None


def _block(lines: list[str], *, is_closed: bool = True) -> Block:
    return Block(textwrap.dedent("\n".join(lines)).strip("\n"), is_closed)
