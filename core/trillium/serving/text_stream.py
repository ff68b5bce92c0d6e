"""Text from tokens one by one: whole characters only, and never the start of a stop string."""

from collections.abc import Callable, Sequence

from trillium.generation.stops import StopFinder

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turn sampled tokens into pieces of text; all pieces together are the text of the whole.

    A token may hold part of a character, so a few tokens are decoded again until it is complete. A
    piece that might begin a stop string waits until the next tokens tell. `ids` are the tokens so
    far, behind those of the `context`.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str],
        *,
        keep_stop: bool = False,
        context: Sequence[int] = (),
    ) -> None:
        """End at the first of `stops`, which `keep_stop` leaves at the end of the text.

        `context` is what the text goes on from: some tokenizers leave out the space before the
        first token that they decode. It is not used where it ends inside a character.
        """
        self._decode = decode
        self._stops = tuple(stops)
        self._finder = StopFinder(decode, stops)
        self._keep_stop = keep_stop
        self.ids = [] if decode(context).endswith(_INCOMPLETE) else list(context)
        # Tokens whose text is context, and whose text has left.
        self._start, self._read = 0, len(self.ids)
        self._held = ""
        self.is_stopped = False

    def push(self, token: int) -> str:
        """Add a token and return the text that is certain by now, often none."""
        self.ids.append(token)
        before = self._decode(self.ids[self._start : self._read])
        now = self._decode(self.ids[self._start :])
        if len(now) <= len(before) or now.endswith(_INCOMPLETE):
            return ""
        self._start, self._read = self._read, len(self.ids)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """Return what was held back, now that no token follows."""
        if self.is_stopped:
            return ""
        before = self._decode(self.ids[self._start : self._read])
        rest = self._decode(self.ids[self._start :])[len(before) :]
        self._start, self._read = self._read, len(self.ids)
        released = self._release(rest)
        rest, self._held = self._held, ""
        return released + ("" if self.is_stopped else rest)

    def _release(self, text: str) -> str:
        self._held += text
        found = self._finder.find(self._held)
        if found is not None:
            self.is_stopped = True
            released, self._held = self._held[: found[1] if self._keep_stop else found[0]], ""
            return released
        n_held = _overlap(self._held, self._stops)
        cut = len(self._held) - n_held
        released, self._held = self._held[:cut], self._held[cut:]
        return released


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that begins one of `stops`."""
    longest = 0
    for stop in stops:
        for n in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:n]):
                longest = n
                break
    return longest
