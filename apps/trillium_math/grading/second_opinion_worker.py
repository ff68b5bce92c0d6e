"""The process that owns math-verify: pairs in, its verdict out; started by `second_opinion.py`."""

import json
import logging
import resource
import sys

MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    from math_verify import parse, verify

    print("ready", flush=True)
    for line in sys.stdin:
        gold, prediction, kind = json.loads(line)
        wrapped = prediction if kind == "response" else f"${prediction}$"
        try:
            # No time limits of its own: they are signals, and the parent kills this process anyway.
            reference = parse(f"${gold}$", parsing_timeout=None)
            answer = parse(wrapped, parsing_timeout=None)
            verdict: bool | None = bool(verify(reference, answer, timeout_seconds=None))
        # The library promises nothing about what it raises; no verdict is the honest answer.
        except Exception:
            verdict = None
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
