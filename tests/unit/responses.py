"""What a platform responses, for tests that write it down."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_testruns.steps import Response


def response(body: Any = None, status: int = 200, **headers: str) -> Response:
    """A response: bytes as they are, ``None`` as nothing, anything else as JSON.

    :param headers: their names with ``_`` for ``-``.
    """
    if isinstance(body, bytes):
        content, kind = body, "text/html"
    else:
        content, kind = b"" if body is None else json.dumps(body).encode(), "application/json"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"content-type": kind, **given}, content)
