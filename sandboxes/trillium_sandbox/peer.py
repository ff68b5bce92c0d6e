"""Calls between the judge's process and the candidate's, over one socket.

Plain values cross as copies (codec.py); containers that a call was given and changed are changed
where they came from, by identity. What is not plain, a function, an iterator, an instance, stays
where it is and crosses as a handle; the other side sees a `Remote` (remote.py). The line serves one
thread at a time; what several would do at once in plain execution is not settled here.
"""

from __future__ import annotations

import contextlib
import sys
from _thread import RLock, get_ident

from trillium_sandbox import raised
from trillium_sandbox.changes import apply_changes, changes_since, contents_of, still_held
from trillium_sandbox.channel import MAX_FRAME_BYTES, Channel, ConnectionLost
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.copies import Copies
from trillium_sandbox.decode import decode
from trillium_sandbox.handles import Handles
from trillium_sandbox.operations import ITEMS, LEANING, OPERATIONS, target_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from trillium_sandbox.opcodes import OpcodeCount
    from trillium_sandbox.settings import Settings

_ANSWERS = encode(("ok", None, None))[:-2], encode(("raise", None, None))[:-2]
"""How answers begin; no other message may refer to what the operation sent."""
_STUCK = encode(("stuck", None))[:-1]
_NEWS = frozenset({"stale", "again", "kept", "counts", "order"})
"""What a candidate's side says before an answer: what crossed before is another one there now (as
its folder may be), crosses as a second copy, or may become another one; its numbers have other
settings; a set that crosses has another order."""


class Peer:
    """One end of the connection; each end serves the other while it waits for an answer."""

    def __init__(
        self,
        descriptor: int,
        *,
        names: Mapping[str, object] | None = None,
        on_leaning: Callable[[], None] | None = None,
    ) -> None:
        """Speak over `descriptor`; with `names`, the other side may ask for them and look inside.

        Without, it may only use what it was handed: call functions, advance iterators, and touch
        the public attributes of instances. That is the judge's side; `on_leaning` is called when
        `leant` is first set.
        """
        self.names = names
        self.raised: BaseException | None = None
        self.counted: OpcodeCount | None = None
        self.settings: Settings | None = None
        self.copies = Copies()
        self.handles = Handles(self)
        self.has_met_errors = self.has_built = False  # what is not of Python's own plain types
        self.counts_otherwise = self.differs = False
        self._leant = False
        self._on_leaning = on_leaning
        self._channel = Channel(descriptor)
        self._turn = RLock()
        self._thread = get_ident()
        self._n_late = 0

    @property
    def leant(self) -> bool:
        """Return whether verdicts rest on more than data from here on."""
        return self._leant

    @leant.setter
    def leant(self, has_leant: bool) -> None:
        if has_leant and not self._leant:
            self._leant = True
            if self._on_leaning is not None:
                self._on_leaning()

    @property
    def is_lost(self) -> bool:
        """Return whether the other side is gone."""
        return self._channel.is_lost

    def ask(self, *operation: object) -> object:
        """Have the other side do `operation` and return its answer, or raise what it raised.

        Containers that it was given and changed are changed here as well, and keep their identity
        wherever they turn up, in one another or in the answer. An operation in which an object
        speaks for itself (its truth, an attribute, a comparison) sets `leant`, for good: what it
        was told may serve it later. So does whatever cannot cross.
        """
        if operation[0] in LEANING or (operation[0] == "do" and operation[1] not in ITEMS):
            self.leant = True
        if get_ident() != self._thread:
            self.leant = True
            if self.names is not None:
                self.send("stale")
        with self._turn:
            try:
                return self._ask(operation)
            except CodecError:
                self.leant = True
                raise

    def _ask(self, operation: tuple[object, ...]) -> object:
        sent: list[object] = []
        self.leant |= self.copies.have_changed()
        data = self._encode(operation, sent)
        if self.names is not None:
            self._tell(self.copies.news_of_asking(sent))
        self._channel.send(data)
        before = [contents_of(container) for container in sent]
        message = self._await_answer(sent, before)
        if message[0] == "stuck":
            raise CodecError(str(message[1])[:2000])
        if message[0] == "raise":
            self._raise(message[1])
        return message[1]

    def _await_answer(self, sent: list[object], before: Sequence[object]) -> tuple[object, ...]:
        """Serve the other side until it answers; return the answer."""
        is_kept = False
        while True:
            try:
                data = self._next_frame()
            except Exception:
                # A test's alarm: the answer will come when nobody waits for it any more.
                self._n_late += 1
                self.leant = True
                raise
            message, containers = self._read(data, sent)
            kind = message[0]
            if kind in ("ok", "raise") and len(message) == 3:
                apply_changes(sent, message[2])
                if is_kept:
                    self.copies.keep(containers)
                elif self.names is not None:
                    self.copies.note(containers)  # the judge's
                return message
            if kind == "stuck" and len(message) == 2:
                return message
            if kind in _NEWS:
                self.leant |= kind == "stale"
                self.copies.has_twins |= kind == "again"
                self.differs |= kind in ("counts", "order")
                self.counts_otherwise |= kind == "counts"
                is_kept |= kind in ("stale", "again", "kept")
                continue
            self._serve(message, containers)
            # Neither side sees what the other does to an argument before the call is over.
            self.leant |= changes_since(before, sent) is not None

    def _tell(self, news: Sequence[str]) -> None:
        for word in news:
            self.send(word)

    def _raise(self, error: object) -> NoReturn:
        """Raise what the other side raised, as far as it may.

        Nothing that would end a loop of a test as if all went well: a RuntimeError instead, as in
        PEP 479.
        """
        if not isinstance(error, BaseException):
            raise CodecError("what was raised is no exception")
        if self.names is None:
            if isinstance(error, StopIteration | StopAsyncIteration):
                error = RuntimeError(f"it raised {type(error).__name__}")
                self.leant = True
            if not isinstance(error, Exception):
                self.leant = True
        self.raised = error
        raise error

    def serve_forever(self) -> None:
        """Answer the other side until it hangs up."""
        while True:
            with self._turn:
                message, containers = self._read(self._next_frame())
            self._serve(message, containers)

    def send(self, *message: object) -> None:
        """Send one message that needs no answer."""
        self._channel.send(self._encode(message))

    def receive(self) -> tuple[object, ...]:
        """Return the next message as it came."""
        return self._read(self._next_frame())[0]

    def _serve(self, message: tuple[object, ...], containers: list[object]) -> None:
        operation = message[0]
        action = OPERATIONS.get(operation) if isinstance(operation, str) else None
        before = [contents_of(container) for container in containers]
        known = [*containers]
        try:
            if action is None:
                raise CodecError("an unknown operation")
            if self.names is None and not self.handles.holds(target_of(message)):
                raise TypeError("the test's side works on what it handed over, and on nothing else")
            with self.copies.working_on(before, containers):
                answer = action(self, *message[1:])
            changes = changes_since(before, containers)
            reply = self._encode(("ok", answer, changes), known)
            del known[: len(containers)]
            if self.names is None:
                # A container of a test's object: what becomes of the copy? And of an argument's?
                self.leant |= operation == "get" and bool(known)
                self.leant |= self.copies.has_twins and changes is not None
            else:
                self._tell(self.copies.news_of_answering(known))
            before.clear()
            changes = None
            held = still_held(known)
            known.clear()
            answer = None
            self._keep(held + still_held(containers))
        except ConnectionLost:
            raise
        except BaseException as error:
            # Its frames hold the half of an answer that did not fit into memory.
            reply = self._failure(error.with_traceback(None), before, containers)
        self._put_in_order()
        with self._turn:
            self._channel.send(reply)

    def _put_in_order(self) -> None:
        """Leave what is due before an answer: the candidate may be killed any time after it."""
        if self.names is None:
            return
        self._tell([] if self.settings is None else self.settings.news())
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        if self.counted is not None:
            self.counted.save()

    def _keep(self, held: list[object]) -> None:
        """Say when containers that crossed are still held here, as the other side holds copies."""
        if held:
            if self.names is None:
                self.copies.note(held)
            else:
                self.copies.keep(held)
            self.send("kept")

    def _failure(
        self, error: BaseException, before: Sequence[object], containers: Sequence[object]
    ) -> bytes:
        """Return the answer that an operation raised, without what cannot cross."""
        try:
            if type(error) is CodecError:
                raise error
            changes = changes_since(before, containers)
            known = [*containers]
            reply = self._encode(("raise", error, changes), known)
            if self.names is not None:
                del known[: len(containers)]
                self._tell(self.copies.news_of_answering(known))
                self._keep(known)
            return reply
        except Exception as reason:
            self.leant = True
            return encode(("stuck", f"{type(reason).__name__}: {raised.text_of(reason)}"))

    def _encode(self, message: object, known: list[object] | None = None) -> bytes:
        known = [] if known is None else known
        n_known = len(known)
        data = encode(message, self.handles.export, known, lends_errors=self.names is None)
        if self.copies.are_reordered(known[n_known:]):
            self.differs = True
            if self.names is not None:
                self.send("order")
        if len(data) <= MAX_FRAME_BYTES:
            return data
        raise CodecError(f"a message of {len(data)} bytes (at most {MAX_FRAME_BYTES})")

    def _next_frame(self) -> bytes:
        """Return the next message's bytes; answers that nobody waits for are dropped."""
        data = self._channel.receive()
        while self._n_late and data.startswith((*_ANSWERS, _STUCK)):
            self._n_late -= 1
            data = self._channel.receive()
        return data

    def _note_building(self) -> None:
        self.has_built = True

    def _read(
        self, data: bytes, sent: Sequence[object] = ()
    ) -> tuple[tuple[object, ...], list[object]]:
        """Return a message and its containers; those `sent` come first in an answer's."""
        containers = [*sent] if data.startswith(_ANSWERS) else []
        message = decode(data, self.handles.resolve, containers, self._note_building)
        self.has_met_errors |= b"X" in data  # or a text with that letter
        if type(message) is not tuple or not message:
            self._channel.lose()
        return message, containers
