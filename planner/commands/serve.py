"""`planner serve`: a deployment behind one OpenAI-compatible address."""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated

import typer

from planner.commands import Out, Set, StartTimeout, overrides, progress, run_folder
from planner.commands.live import Config, Stack, Token, dynamo_python, spec_of


def serve(
    config: Config = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where the service listens; 0: any.")] = 8080,
    bind: Annotated[
        str, typer.Option("--bind", help="Address to listen on; beyond loopback --token is needed.")
    ] = "127.0.0.1",
    stack: Stack = None,
    token: Token = None,
    start_timeout: StartTimeout = None,
    assignments: Set = None,
    out: Out = None,
) -> None:
    """Serve a deployment at one OpenAI-compatible address.

    Until Ctrl-C.
    """
    from live.needs import need

    need(servers=not stack)
    from live.launch import MODEL_NAME
    from live.session import LiveSession
    from planner.system.resolve import resolve

    beyond = bind not in ("127.0.0.1", "localhost", "::1")
    dynamo = dynamo_python(stack, {"--token": token, "--bind": beyond})
    spec = spec_of(config, overrides(assignments, None), elsewhere=dynamo is not None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    folder = run_folder(f"{spec.name}-serve", out)
    with LiveSession(
        resolve(spec),
        folder,
        bind=(bind, port),
        token=token,
        dynamo=dynamo,
        start_timeout_s=start_timeout,
        progress=progress(0.0),
    ) as session:
        secret = " -H 'authorization: Bearer TOKEN'" if token else ""
        print(f"Serving {spec.name} on {session.base_url} (logs: {folder}); Ctrl-C stops it. Try:", file=sys.stderr)
        named = {} if dynamo is None else {"model": MODEL_NAME}  # Dynamo's frontend wants it
        body = named | {"messages": [{"role": "user", "content": "What is chunked prefill?"}], "max_tokens": 64}
        print(
            f"curl {session.base_url}/v1/chat/completions{secret} -H 'content-type: application/json' "
            f"-d '{json.dumps(body)}'",
            flush=True,
        )
        session.wait()


def register(app: typer.Typer) -> None:
    app.command()(serve)
