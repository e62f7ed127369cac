"""What Future AGI demands of a request, and the words in which it refuses one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .exchange import ANY_UUID, Exchange, Refusal, Response, json_response


def error(
    status: int,
    kind: str,
    code: str,
    detail: str,
    details: Mapping[str, list[str]] | None = None,
    attribute: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Return an error as the product words it."""
    body: dict[str, Any] = {
        "status": False,
        "type": kind,
        "code": code,
        "detail": detail,
        "message": detail,
        "error": detail,
        "result": detail,
    }
    if details is not None:
        body["details"] = details
    if attribute is not None:
        body["attr"] = attribute
    body.update(more or {})
    return json_response(status, body)


def not_found(detail: str) -> Refusal:
    """Return a 404."""
    return Refusal(error(404, "not_found", "not_found", detail))


def invalid(detail: str) -> Response:
    """Return a 400 that is about no field in particular."""
    return error(400, "validation_error", "invalid", detail)


def unauthenticated(code: str, detail: str, violation: str | None = None) -> Refusal:
    """Return a 401."""
    response = error(401, "authentication_error", code, detail, {"detail": [detail]})
    response.headers.append(("www-authenticate", "ApiKey"))
    return Refusal(response, violation)


NO_CREDENTIALS = "Authentication credentials were not provided."


NOT_FOUND_PAGE = (
    '<!doctype html>\n<html lang="en">\n<head>\n  <title>Not Found</title>\n</head>\n<body>\n'
    "  <h1>Not Found</h1><p>The requested resource was not found on this server.</p>\n</body>\n</html>\n"
)


@dataclass(slots=True)
class Problems:
    """What is wrong with the fields of a body or a query."""

    details: dict[str, list[str]] = field(default_factory=dict)
    first_code: str = "invalid"

    def add(self, name: str, message: str, code: str = "invalid") -> None:
        """Take note of a problem with a field."""
        if not self.details:
            self.first_code = code
        self.details.setdefault(name, []).append(message)

    def refuse(self, sdk: bool = False) -> None:
        """Refuse the request if anything is wrong."""
        if not self.details:
            return
        first = next(iter(self.details))
        attribute = None if first == "non_field_errors" else first
        words = [
            message if name == "non_field_errors" else f"{name}: {message}"
            for name, messages in self.details.items()
            for message in messages
        ]
        text = "; ".join(words)
        more = {"errors": self.details} if sdk else None
        detail = "Validation failed" if sdk else text
        raise Refusal(error(400, "validation_error", self.first_code, detail, self.details, attribute, more), text)


Check = Callable[[Any], str | None]


BAD_UUID = "Must be a valid UUID."


def is_uuid(value: Any) -> bool:
    """Tell whether a value is a UUID."""
    return isinstance(value, str) and ANY_UUID.fullmatch(value) is not None


def check_uuid(value: Any) -> str | None:
    """Demand a UUID."""
    return None if is_uuid(value) else BAD_UUID


def check_integer(value: Any) -> str | None:
    """Demand a number from 1 on."""
    if not value.lstrip("-").isdecimal():
        return "A valid integer is required."
    return None if int(value) >= 1 else "Ensure this value is greater than or equal to 1."


def check_text(value: Any) -> str | None:
    """Demand anything but nothing."""
    return None if value else "This field may not be blank."


def check_any(value: Any) -> str | None:
    """Demand nothing."""
    return None


def check_flag(value: Any) -> str | None:
    """Demand a boolean, as a query writes it."""
    return None if value in ("true", "false", "True", "False", "1", "0") else "Must be a valid boolean."


PAGING: Mapping[str, Check] = {"page": check_integer, "limit": check_integer}


SDK_QUERY: Mapping[str, Check] = {
    "execution_id": check_uuid,
    "run_test_name": check_text,
    **PAGING,
}


def read_query(exchange: Exchange, known: Mapping[str, Check], sdk: bool = False) -> dict[str, str]:
    """Return the query parameters, checked; an unknown one is refused."""
    problems = Problems()
    arguments = exchange.arguments()
    if sdk:
        # An empty value counts as none.
        arguments = {name: value for name, value in arguments.items() if value}
    for name, value in arguments.items():
        check = known.get(name)
        if check is None:
            problems.add(name, "Unknown field.")
            continue
        problem = check(value)
        if problem is not None:
            problems.add(name, problem, "min_value" if "greater" in problem else "invalid")
    if sdk:
        required = [name for name in ("run_test_name", "execution_id", "call_execution_id") if name in known]
        if not any(arguments.get(name) for name in required) and not problems.details.keys() & set(required):
            quoted = [f"'{name}'" for name in required]
            listed = " or ".join(quoted) if len(quoted) == 2 else f"{', '.join(quoted[:-1])}, or {quoted[-1]}"
            problems.add("non_field_errors", f"At least one of {listed} is required.")
    problems.refuse(sdk)
    return arguments


def read_json(exchange: Exchange) -> dict[str, Any]:
    """Return the body; an absent one is an empty object."""
    if not exchange.body:
        return {}
    if exchange.media_type != "application/json":
        text = f'Unsupported media type "{exchange.media_type}" in request.'
        raise Refusal(
            error(415, "api_error", "unsupported_media_type", text, {"detail": [text]}),
            f"the body must be application/json, not {exchange.media_type or 'without Content-Type'}",
        )
    try:
        body = json.loads(exchange.body)
    except ValueError as problem:
        text = f"JSON parse error - {problem}"
        raise Refusal(error(400, "validation_error", "parse_error", text, {"detail": [text]}), text) from None
    if not isinstance(body, dict):
        text = f"Invalid data. Expected a dictionary, but got {type(body).__name__}."
        raise Refusal(error(400, "validation_error", "invalid", text, {"non_field_errors": [text]}), text)
    return body


def check_ids(problems: Problems, name: str, value: Any) -> None:
    """Demand a list of UUIDs."""
    if value is None:
        problems.add(name, "This field may not be null.", "null")
    elif not isinstance(value, list):
        problems.add(name, f'Expected a list of items but got type "{type(value).__name__}".', "not_a_list")
    else:
        for position, item in enumerate(value):
            if not is_uuid(item):
                problems.add(name, f"{position}: {BAD_UUID}")


def check_boolean(problems: Problems, name: str, value: Any) -> None:
    """Demand a boolean."""
    if value is None:
        problems.add(name, "This field may not be null.", "null")
    elif not isinstance(value, bool):
        problems.add(name, "Must be a valid boolean.")
