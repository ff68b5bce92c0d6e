"""How much memory this process has used at most."""

import resource
import sys


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process, without its children."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
