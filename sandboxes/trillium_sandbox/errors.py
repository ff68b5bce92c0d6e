"""What the sandbox raises: its own failures, and the caller's mistakes; never a program's."""


class SandboxError(RuntimeError):
    """The sandbox cannot do its work here: a level is missing, or its processes keep dying."""


class RequestError(ValueError):
    """A request or a limit is not valid; the message says which field and what it needs."""
