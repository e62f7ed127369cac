"""What the server was asked: counts, violations, connections, and the latest requests."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

#: How many requests and violations are remembered one by one. Counts are not limited.
REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request.

    :param at: when it came, by the server's clock.
    :param platform: whose API it went to.
    :param operation: the operation's name.
    :param method: the HTTP method.
    :param path: below the server's root, with the query.
    :param status: what was answered; 0 when nothing was.
    :param fault: the kind of fault that struck.
    """

    at: float
    platform: str
    operation: str
    method: str
    path: str
    status: int
    fault: str | None


@dataclass(frozen=True, slots=True)
class Violation:
    """A request that the documents don't allow.

    :param at: when it came.
    :param operation: the operation's name.
    :param method: the HTTP method.
    :param path: below the server's root.
    :param reason: what is wrong with it.
    """

    at: float
    operation: str
    method: str
    path: str
    reason: str


class Traffic:
    """The counters of one server. Connections are counted over its whole life, the rest since the last reset."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.connections_open = 0
        self.reset()

    def reset(self) -> None:
        """Start counting again. The connections that are open stay counted as open."""
        self.operations: Counter[str] = Counter()
        self.platforms: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.violations: deque[Violation] = deque(maxlen=REMEMBERED)
        self.requests: deque[SeenRequest] = deque(maxlen=REMEMBERED)
        self.connections_opened = 0
        self.connections_peak = self.connections_open

    def connection_opened(self) -> None:
        """Count a TCP connection."""
        self.connections_opened += 1
        self.connections_open += 1
        self.connections_peak = max(self.connections_peak, self.connections_open)

    def connection_closed(self) -> None:
        """Count a TCP connection less."""
        self.connections_open -= 1

    def answered(self, request: SeenRequest) -> None:
        """Count a request with what became of it."""
        self.operations[request.operation] += 1
        self.platforms[request.platform] += 1
        self.statuses[f"{request.operation} {request.status}"] += 1
        if request.fault is not None:
            self.faults[request.fault] += 1
        self.requests.append(request)

    def summary(self) -> dict[str, Any]:
        """Describe the counters."""
        return {
            "requests": sum(self.operations.values()),
            "operations": dict(self.operations),
            "platforms": dict(self.platforms),
            "statuses": dict(self.statuses),
            "faults": dict(self.faults),
            "token_requests": {
                name.partition(".")[0]: count for name, count in self.operations.items() if name.endswith(".token")
            },
            "violations": [asdict(v) for v in self.violations],
            "connections": {
                "opened": self.connections_opened,
                "open": self.connections_open,
                "peak": self.connections_peak,
            },
        }
