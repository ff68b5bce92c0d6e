"""Stop strings in text that arrives token by token.

A stop string may begin and end in the middle of tokens, so it is looked for in decoded text. Each
step decodes only the end of the text, and only when its last token can complete a stop string; a
hit is confirmed on the whole.
"""

from collections.abc import Callable, Sequence


class StopFinder:
    """Find the first of several strings in the text of a growing list of tokens."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        """Look for `stops` in what `decode` makes of token ids."""
        self._decode = decode
        self._stops = tuple(stops)
        # A token that shows adds at least one byte; the margin covers a few that do not show.
        self._n_tail = max((len(stop.encode()) for stop in stops), default=0) + 8
        self._completing: dict[int, bool] = {}

    def is_hit(self, ids: Sequence[int]) -> bool:
        """Say whether the text of `ids` contains a stop string that its last token completed."""
        if not self._stops or not self._may_complete(ids[-1]):
            return False
        tail = self._decode(ids[-self._n_tail :])
        if not any(stop in tail for stop in self._stops):
            return False
        return self.find(self._decode(ids)) is not None

    def _may_complete(self, token: int) -> bool:
        """Say whether a stop string can end in this token; the answer is remembered.

        Decoding the end of every row at every step costs a GPU more time than its forward pass.
        """
        known = self._completing.get(token)
        if known is None:
            text = self._decode([token])
            # Part of a character shows only with its neighbours.
            is_partial = not text or "\ufffd" in text
            known = is_partial or any(_may_end(stop, text) for stop in self._stops)
            self._completing[token] = known
        return known

    def find(self, text: str) -> tuple[int, int] | None:
        """Return start and end of the earliest stop string, the longest where several start."""
        found = [(text.find(stop), -len(stop)) for stop in self._stops if stop in text]
        if not found:
            return None
        start, negative_length = min(found)
        return start, start - negative_length

    def cut(self, text: str, *, keep_stop: bool = False) -> str:
        """Return `text` up to its first stop string, with or without that string."""
        found = self.find(text)
        if found is None:
            return text
        return text[: found[1]] if keep_stop else text[: found[0]]


def _may_end(stop: str, text: str) -> bool:
    """Say whether a stop string can end in a token with this text."""
    # Some tokenizers leave out the space before a token that is decoded alone.
    is_hidden = stop.endswith(" ")
    return is_hidden or stop in text or any(text.startswith(stop[at:]) for at in range(len(stop)))
