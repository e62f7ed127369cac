"""Which answers are changed, and into what: all of them in an order that a seed decides."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from airflow_provider_testruns.steps import Response
from tests.fuzz.operations import Operation, World
from tests.fuzz.trial import Change
from tests.fuzz.values import BODIES, HEADERS, ODD, STATUSES, paths, replaced, restructured


def changes(operation: Operation, seen: set[tuple[str, str, str]]) -> Iterator[Change]:
    """Every change of one operation.

    :param operation: the operation.
    :param seen: answers that all operations share, such as tokens, and are changed in one of them.
    """
    for at, exchange in enumerate(operation.exchanges):
        if exchange.path.endswith("/token"):
            key = (operation.platform, exchange.method, exchange.path)
            if key in seen:
                continue
            seen.add(key)
        good = exchange.response
        where = f"answer {at} ({exchange.method} {exchange.path})"
        for name, body in BODIES.items():
            yield Change(at, f"{where} is {name}", partial(replace, good, body=body))
        for status, headers in STATUSES:
            told = {**good.headers, **headers}
            yield Change(
                at, f"{where} is HTTP {status} {headers}"[:300], partial(replace, good, status=status, headers=told)
            )
        for name in ("HTML", "BOM", "half a character", "random bytes", "deep", "a huge number"):
            for status in (400, 401, 404, 500):
                made = partial(replace, good, status=status, body=BODIES[name])
                yield Change(at, f"{where} is HTTP {status} with {name}", made)
        for headers in HEADERS:
            told = {**good.headers, **headers}
            yield Change(at, f"{where} has {str(headers)[:100]}", partial(replace, good, headers=told))
        yield from _of_values(at, where, good)


def _of_values(at: int, where: str, good: Response) -> Iterator[Change]:
    try:
        value = json.loads(good.body)
    except ValueError:
        for cut in range(0, len(good.body), max(1, len(good.body) // 20)):
            yield Change(at, f"{where} ends after {cut} bytes", partial(replace, good, body=good.body[:cut]))
        return
    for path in paths(value):
        name = f"{where}, {'/'.join(map(str, path)) or 'all of it'}"
        for text in ODD:
            yield Change(at, f"{name} is {text[:80]}", partial(_with_value, good, value, path, text))
        for number in range(len(list(restructured(value, path)))):
            yield Change(at, f"{name} is restructured, {number}", partial(_restructured, good, value, path, number))
    for text in ('{"detail": %s}', '{"message": [%s]}', '{"error": {"code": %s}}', '{"result": {"message": %s}}'):
        for odd in ODD:
            body = (text % odd).encode("utf-8", "surrogatepass")
            yield Change(at, f"{where} is HTTP 400 {text % odd[:80]}", partial(replace, good, status=400, body=body))


def _with_value(good: Response, value: Any, path: tuple[str | int, ...], text: str) -> Response:
    return replace(good, body=replaced(value, path, text))


def _restructured(good: Response, value: Any, path: tuple[str | int, ...], number: int) -> Response:
    return replace(good, body=list(restructured(value, path))[number])


def chosen(world: World, seed: int, most: int | None = None) -> list[tuple[Operation, Change]]:
    """Changes of all operations in an order of chance; all of them, or ``most``, an equal share of each operation."""
    seen: set[tuple[str, str, str]] = set()
    order = random.Random(seed)
    found: list[tuple[Operation, Change]] = []
    share = None if most is None else max(1, most // len(world.operations))
    for operation in world.operations:
        of_it = list(changes(operation, seen))
        if share is not None and len(of_it) > share:
            of_it = order.sample(of_it, share)
        found += [(operation, change) for change in of_it]
    order.shuffle(found)
    return found


def mixed(world: World, order: random.Random) -> tuple[Operation, Change]:
    """An answer in which several values are odd at once."""
    operation = order.choice([one for one in world.operations if one.exchanges])
    at = order.randrange(len(operation.exchanges))
    good = operation.exchanges[at].response
    try:
        value: Any = json.loads(good.body)
    except ValueError:
        body = bytearray(good.body)
        for _ in range(order.randint(1, 8)):
            body[order.randrange(len(body) or 1) : order.randrange(len(body) or 1)] = order.randbytes(
                order.randint(0, 4)
            )
        return operation, Change(at, "several bytes are odd", partial(replace, good, body=bytes(body)))
    body = good.body
    for _ in range(order.randint(2, 5)):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            break
        body = replaced(value, order.choice(list(paths(value, 3))), order.choice(ODD))
    return operation, Change(at, f"several values are odd: {body[:500]!r}", partial(replace, good, body=body))
