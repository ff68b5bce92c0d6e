"""From a run folder to a listening socket, and from a signal to a clean end."""

from __future__ import annotations

import sys

import torch
from trillium.serving.listening import check_exposure, listen, say_address
from trillium.serving.running import make_server, run_until_told

from trillium_rec.served_run import ServedRun
from trillium_rec.serving.app import ServingSettings, build_app

TOKEN = "TRILLIUM_REC_TOKEN"
"""The environment variable with the token of the service."""


def serve_until_told(
    run: ServedRun,
    settings: ServingSettings,
    *,
    host: str,
    port: int,
    no_token: bool,
    n_threads: int,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is under way.

    Raises ConfigError where other machines could come in without a token and nobody said so,
    BackendError where the address cannot be had, DataError when the run cannot be served.
    """
    check_exposure(host, settings.token, TOKEN, no_token=no_token)
    torch.set_num_threads(n_threads)
    with listen(host, port) as listener:
        server = make_server(build_app(run, settings))
        print(f"rec: {run.folder} on {say_address(listener)}", file=sys.stderr, flush=True)
        run_until_told(server, listener)
