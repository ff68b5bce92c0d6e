"""The exceptions of the core, one per kind of cause.

Each message reads `<where>: <what is wrong, with the value> (<what was expected>); <what to do>`.
The command line turns the first three into exit code 2 (the caller's mistake) and `BackendError`
into exit code 1. All of them survive pickling, so a worker process can raise them.
"""


class ConfigError(ValueError):
    """Report a run file, an override or a combination of options that cannot be run."""


class DataError(ValueError):
    """Report rows, tokens or templates that cannot be used, with file and line if there is one."""


class ShapeError(ValueError):
    """Report tensors or batches that do not belong together."""


class BackendError(RuntimeError):
    """Report a machine, model, disk or service that failed although the input was right."""
