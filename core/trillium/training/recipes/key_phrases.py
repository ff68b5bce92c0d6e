"""Key phrases of a text by RAKE: runs of words between stop words and punctuation, by weight."""

import re
from collections import Counter
from collections.abc import Sequence

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
_WORD = re.compile(r"[^\W\d_]+")


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
        text = re.sub(rf"(?<![^\W\d_]){words}(?![^\W\d_])[^\S\n]?", "", text)
    return text.strip()


def _candidates(text: str) -> list[list[str]]:
    """Return the runs of words that no stop word and nothing but blanks interrupts."""
    runs: list[list[str]] = []
    end = -1
    for found in _WORD.finditer(text):
        is_next = end >= 0 and text[end : found.start()].isspace() and len(runs[-1]) < _MAX_WORDS
        end = -1
        if found.group().lower() in _STOP_WORDS:
            continue
        if is_next:
            runs[-1].append(found.group())
        else:
            runs.append([found.group()])
        end = found.end()
    return runs
