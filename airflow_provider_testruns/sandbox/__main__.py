"""``python -m airflow_provider_testruns.sandbox``: serve the three platforms until interrupted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress

from .catalogue import connections, targets
from .control import Control
from .eggplant import GENERATIONS
from .platform import Settings
from .server import ForegroundServer, listen, url_of
from .state import SandboxState


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_testruns.sandbox",
        description="Eggplant DAI, Future AGI and Omilia Testing Studio as one local server.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--run-seconds", type=float, default=6.0, help="how long a run takes (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that every response takes longer")
    parser.add_argument("--tls-cert", help="certificate chain in PEM; the server then speaks TLS")
    parser.add_argument("--tls-key", help="its key in PEM")
    parser.add_argument("--seed", type=int, help="repeats ids and chances")
    parser.add_argument(
        "--eggplant-generation",
        choices=tuple(GENERATIONS),
        default="full",
        help="which of Eggplant's ways to follow a run exist (default: %(default)s)",
    )
    return parser


def _introduction(state: SandboxState, url: str, verify: bool | str | None) -> str:
    lines = [f"The sandbox serves at {url}; its control is at {url}/_sandbox/docs. Stop it with Ctrl-C.", ""]
    for connection_id, connection in connections(url, verify).items():
        lines.append(f"export AIRFLOW_CONN_{connection_id.upper()}='{json.dumps(connection)}'")
    heading = ""
    for platform, kind, target, does in targets(state):
        if f"{platform} {kind}" != heading:
            heading = f"{platform} {kind}"
            lines += ["", f"{platform}, {kind}s:"]
        lines.append(f"  {target.name:<20} {target.id}  {does}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted.

    :param arguments: the command line's arguments; None takes the process's own.
    :return: the process's exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key belong together")
    settings = Settings(
        run_seconds=options.run_seconds,
        latency=options.latency,
        eggplant_generation=options.eggplant_generation,
    )
    state = SandboxState(settings, options.seed)
    try:
        sock = listen(options.host, options.port)
    except OSError as problem:
        parser.error(f"can't listen on {options.host}:{options.port}: {problem.strerror}")
    url = url_of(sock, options.tls_cert is not None)
    print(_introduction(state, url, options.tls_cert), flush=True)
    server = ForegroundServer(state, Control(state), options.tls_cert, options.tls_key)
    # uvicorn raises the signal again once it has stopped.
    with sock, suppress(KeyboardInterrupt):
        server.run(sockets=[sock])
    return 0


if __name__ == "__main__":
    sys.exit(main())
