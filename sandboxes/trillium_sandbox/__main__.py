"""`python -m trillium_sandbox`: the commands, where nothing else of Trillium is installed."""

import sys

from trillium_sandbox.cli import app
from trillium_sandbox.errors import RequestError, SandboxError

if __name__ == "__main__":
    try:
        app(prog_name="python -m trillium_sandbox")
    except (RequestError, SandboxError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2 if isinstance(error, RequestError) else 1) from None
