"""What one client may use of a service, and how much of it is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from openais.node.ipc import Peer
from openais.wire.status import ONE_SECOND_NS
from services.kit.machine import SessionId
from services.kit.requests import Key

TURN_NS_MAX: Final = ONE_SECOND_NS  # a turn of the loop that took longer: the process was stopped
TOLD_MAX: Final = 32  # processes in the status, those with most unanswered requests


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the client side of a service, from the section ipc of the configuration."""

    sessions_max: int  # on this node
    process_sessions_max: int
    user_sessions_max: int
    session_requests_max: int  # unanswered
    session_bytes_max: int  # of its unanswered requests
    session_grace_ms: int
    body_size_max: int  # of one request


@dataclass(slots=True)
class Attached:
    """A session with a client that is connected."""

    client: int
    peer: Peer
    pushed: int = 0  # newest notification sent
    taken: int = 0  # newest notification that the client acknowledged
    ordered: int = 0  # newest acknowledgement that was ordered
    requests: dict[int, int] = field(default_factory=dict)  # unanswered: number -> bytes
    bytes_held: int = 0


class Use:
    """How much of the limits is used.

    Args:
        limits: of this service.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits: Final = limits
        self.attached: Final[dict[SessionId, Attached]] = {}

    def session_rule(self, peer: Peer) -> str | None:
        """Return the limit that one more session of a peer would pass; None: there is room."""
        peers = [a.peer for a in self.attached.values()]
        limits = self.limits
        of_process = sum(1 for p in peers if p.pid == peer.pid)
        of_user = sum(1 for p in peers if p.uid == peer.uid)
        for count, count_max, whose in (
            (len(peers), limits.sessions_max, "on this node (ipc.max_clients)"),
            (
                of_process,
                limits.process_sessions_max,
                f"of process {peer.pid} (ipc.max_process_sessions)",
            ),
            (of_user, limits.user_sessions_max, f"of uid {peer.uid} (ipc.max_user_sessions)"),
        ):
            if count >= count_max:
                return f"{count_max} sessions are open {whose}"
        return None

    def request_rule(self, session: SessionId, size: int) -> str | None:
        """Return the limit that one more request would pass; None: there is room."""
        attached = self.attached[session]
        limits = self.limits
        if len(attached.requests) >= limits.session_requests_max:
            return (
                f"{limits.session_requests_max} requests of this session are unanswered "
                "(ipc.max_session_requests)"
            )
        if attached.requests and attached.bytes_held + size > limits.session_bytes_max:
            return (
                f"unanswered requests of this session hold {attached.bytes_held} bytes, limit "
                f"{limits.session_bytes_max} (ipc.max_session_bytes)"
            )
        return None

    def hold(self, key: Key, size: int) -> None:
        """Count a request."""
        attached = self.attached.get(key[0])
        if attached is not None:
            attached.requests[key[1]] = size
            attached.bytes_held += size

    def release(self, key: Key) -> None:
        """Count a request no more: it is answered."""
        attached = self.attached.get(key[0])
        if attached is not None:
            attached.bytes_held -= attached.requests.pop(key[1], 0)

    def report(self) -> list[dict[str, Any]]:
        """Return what the processes use that use most."""
        processes: dict[int, dict[str, Any]] = {}
        for attached in self.attached.values():
            pid, uid = attached.peer.pid, attached.peer.uid
            used = processes.setdefault(
                pid, {"pid": pid, "uid": uid, "sessions": 0, "requests": 0, "bytes": 0}
            )
            used["sessions"] += 1
            used["requests"] += len(attached.requests)
            used["bytes"] += attached.bytes_held
        order = sorted(processes.values(), key=lambda p: (-p["requests"], -p["sessions"], p["pid"]))
        return order[:TOLD_MAX]


class ServingClock:
    """Time that passes only while this process runs and serves.

    A client is given a time to come back. While the service could not have served it - it was
    stopped, starved of its processor, or met other replicas - that time does not run.
    """

    def __init__(self) -> None:
        self.ns = 0
        self._before_ns: int | None = None

    def turn(self, now_ns: int, *, serving: bool) -> None:
        """Let a turn of the loop pass."""
        if self._before_ns is not None and serving:
            self.ns += min(now_ns - self._before_ns, TURN_NS_MAX)
        self._before_ns = now_ns
