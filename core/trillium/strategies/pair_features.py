"""What a pair looks like to a router: similarity of its responses and lengths, in three bins each.

The features of arXiv 2410.19133 that need no model: ROUGE-L, cosine of word counts, overlap of
named things, difference of lengths, lengths of the prompt and of both responses. Similarities are
cut at 1/3 and 2/3, lengths at those ranks within the file, as the released code does.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trillium.records import PairRow
from trillium.strategies.asking import as_text

SIMILARITIES = ("rouge_l", "cosine_words", "same_entities")
LENGTHS = ("length_difference", "prompt_length", "shorter_length", "longer_length")
N_BINS = 3
BIN_NAMES = tuple(
    f"{name}/{size}" for name in (*SIMILARITIES, *LENGTHS) for size in ("low", "middle", "high")
)

_WORD = re.compile(r"\w+")
# Names, numbers: a capital inside a sentence, or digits.
_ENTITY = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z]\w+|\b\d[\d.,]*\b", re.M)
# The longest common subsequence costs the product of the lengths.
_MAX_WORDS = 400


def measure_pair(row: PairRow) -> list[float]:
    """Return similarities in [0, 1], then lengths in words, in the order of the names above."""
    prompt, one, other = (as_text(text) for text in (row.prompt, row.chosen, row.rejected))
    left, right = (_WORD.findall(text.lower()) for text in (one, other))
    entities = [set(_ENTITY.findall(text)) for text in (one, other)]
    return [
        rouge_l(left, right),
        _cosine(Counter(left), Counter(right)),
        _overlap(*entities),
        float(abs(len(left) - len(right))),
        float(len(_WORD.findall(prompt))),
        float(min(len(left), len(right))),
        float(max(len(left), len(right))),
    ]


def bin_features(measures: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one column per name of BIN_NAMES, 1 where a pair is in the bin and 0 elsewhere.

    `measures` has a row per pair; lengths are ranked within `among`, the pairs of the whole file.
    """
    n_similar = len(SIMILARITIES)
    places = measures.copy()
    for column in range(n_similar, measures.shape[1]):
        ordered = np.sort(among[:, column])
        low = np.searchsorted(ordered, measures[:, column], side="left")
        high = np.searchsorted(ordered, measures[:, column], side="right")
        # Equal lengths have one rank, the middle of theirs.
        places[:, column] = (low + high) / (2 * len(ordered))
    bins = np.clip((places * N_BINS).astype(int), 0, N_BINS - 1)
    found: NDArray[np.float64] = np.eye(N_BINS)[bins].reshape(len(measures), -1)
    return found


def rouge_l(left: Sequence[str], right: Sequence[str]) -> float:
    """Return the F measure of the longest common subsequence (Lin 2004); 1 for two empty texts."""
    left, right = left[:_MAX_WORDS], right[:_MAX_WORDS]
    if not left or not right:
        return float(not left and not right)
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for place, other in enumerate(right, start=1):
            kept = row[place]
            row[place] = diagonal + 1 if word == other else max(row[place], row[place - 1])
            diagonal = kept
    return 2 * row[-1] / (len(left) + len(right))


def _cosine(left: Counter[str], right: Counter[str]) -> float:
    norms = [math.sqrt(sum(n * n for n in counts.values())) for counts in (left, right)]
    if not all(norms):
        return float(left == right)
    return sum(n * right[word] for word, n in left.items()) / (norms[0] * norms[1])


def _overlap(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right) if left | right else 1.0
