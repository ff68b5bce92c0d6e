"""Key phrases of a text by RAKE: runs of words between stop words and punctuation, by weight."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial

_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about above after again against all also am an and any are as at be because been before
        being below between both but by can could did do does doing down during each few for from
        further had has have having he her here hers him his how i if in into is it its itself
        just  me more most my no nor not now of off on once only or other our ours out over own
        same she  should so some such than that the their theirs them then there these they this
        those through  to too under until up very was we were what when where which while who whom
        why will with  would you your yours
        """,
    )
)
_MAX_WORDS = 3
_LETTER = r"[^\W\d_]"
# To `re` a vowel sign, or an accent of its own, is no part of a word. The planes between have none.
_PLANES = (*range(0x20000), *range(0xE0000, 0xF0000))
_MARKS = "".join(c for c in map(chr, _PLANES) if unicodedata.category(c).startswith("M"))
_PART = rf"{_LETTER}(?:{_LETTER}|[{_MARKS}])*"
_WORD = re.compile(rf"{_PART}(?:['\u2019]{_PART})*")


def key_phrases(text: str) -> tuple[str, ...]:
    """Return the different key phrases of a text, weightiest first, as they stand in it.

        weight of a word    degree / frequency; degree counts the words of every phrase it is in
        weight of a phrase  the sum over its words

    Rapid automatic keyword extraction as SPO uses it (arXiv 2409.17791); phrases of more than three
    words are cut. Equal weights keep the order of the text.
    """
    phrases = _candidates(text)
    frequency: Counter[str] = Counter()
    degree: Counter[str] = Counter()
    for phrase in phrases:
        for word in phrase:
            frequency[word.lower()] += 1
            degree[word.lower()] += len(phrase)
    weights = {
        " ".join(phrase): sum(degree[w.lower()] / frequency[w.lower()] for w in phrase)
        for phrase in phrases
    }
    return tuple(sorted(weights, key=lambda phrase: -weights[phrase]))


def delete_phrases(text: str, phrases: Sequence[str]) -> str:
    """Return the text without some phrases, wherever they stand as whole words."""
    for phrase in phrases:
        words = r"\s+".join(map(re.escape, phrase.split()))
        whole = rf"(?<!{_LETTER})({words})(?!{_LETTER})[^\S\n]?"
        text = re.sub(whole, partial(_delete, _inner_places(text)), text)
    return text.strip()


def _inner_places(text: str) -> set[int]:
    """Return the places between two characters of one word."""
    return {place for word in _WORD.finditer(text) for place in range(word.start() + 1, word.end())}


def _delete(inner: set[int], found: re.Match[str]) -> str:
    """Return nothing in place of what was found, unless it begins or ends within a word."""
    return found.group() if inner & {found.start(1), found.end(1)} else ""


def _candidates(text: str) -> list[list[str]]:
    """Return the runs of words that no stop word and nothing but blanks interrupts."""
    runs: list[list[str]] = []
    end = -1
    for found in _WORD.finditer(text):
        is_next = end >= 0 and text[end : found.start()].isspace() and len(runs[-1]) < _MAX_WORDS
        end = -1
        if _is_stop_word(found.group()):
            continue
        if is_next:
            runs[-1].append(found.group())
        else:
            runs.append([found.group()])
        end = found.end()
    return runs


def _is_stop_word(word: str) -> bool:
    """Say whether a word, or what is contracted in it, is a stop word: it's, you'll, isn't."""
    stem, _, rest = word.lower().replace("\u2019", "'").partition("'")
    return stem in _STOP_WORDS or (rest == "t" and stem.removesuffix("n") in _STOP_WORDS)
