"""What the ring's directives leave out derives here; the rules between them are checked. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from openais.node.binding import DERIVED, BoundSection
from openais.node.rules import HOLD_MIN_MS, TIMEOUT_MIN_MS
from openais.node.tree import Problems
from openais.node.values import Value

MAX_MESSAGES: Final = 17  # of one token visit

RULES: Final[dict[str, Callable[[BoundSection, int], Value]]] = {
    # key -> its value from the section so far and the token timeout of a ring of all nodes, in
    # this order. What must be below the token timeout derives from that of the smallest ring.
    "token_retransmit": lambda totem, _: (
        totem.integer("token")
        * 10
        // (totem.integer("token_retransmits_before_loss_const") * 10 + 2)
    ),
    "hold": lambda totem, _: (totem.integer("token_retransmit") * 8 - 100) // 10,
    "consensus": lambda _, token: token * 6 // 5,
    "silent_fail": lambda totem, token: min(
        max(6 * totem.integer("join"), token * 3 // 10), totem.integer("consensus") - 1
    ),
    "startup_wait": lambda totem, _: 2 * totem.integer("join"),
    "fail_recv_time": lambda _, token: token,
    "link_probe_interval": lambda totem, _: totem.integer("token") // 4,
    "link_probe_timeout": lambda totem, _: totem.integer("token") // 2,
    "rrp_token_expired_timeout": lambda totem, _: totem.integer("token_retransmit"),
    "rrp_problem_count_mcast_threshold": lambda totem, _: (
        10 * totem.integer("rrp_problem_count_threshold")
    ),
    "max_messages": lambda totem, _: min(
        MAX_MESSAGES, totem.optional_integer("window_size") or MAX_MESSAGES
    ),
}


def ip_version(totem: BoundSection) -> str:
    """Return which addresses of host names count where nobody says."""
    return "ipv4" if totem.text("transport") == "udp" else "ipv6-4"


def runtime_token_ms(totem: BoundSection, nodes_count: int) -> int:
    """Return the token timeout of a ring of all nodes: it grows above two."""
    return totem.integer("token") + max(0, nodes_count - 2) * totem.integer("token_coefficient")


def complete(totem: BoundSection, nodes_count: int, problems: Problems) -> None:
    """Fill in what derives and check what must hold between the values of section totem.

    Raises:
        TooManyProblemsError: see `Problems.error`.
    """
    token = runtime_token_ms(totem, nodes_count)
    for key, rule in RULES.items():
        totem.fill(key, rule(totem, token), DERIVED)
    totem.fill("block_unlisted_ips", nodes_count > 0, DERIVED)
    _Checks(totem, token, problems).run(nodes_count)


class _Checks:
    def __init__(self, totem: BoundSection, token_ms: int, problems: Problems) -> None:
        self._totem = totem
        self._token = token_ms
        self._problems = problems

    def run(self, nodes_count: int) -> None:
        self._minimum("token_retransmit", TIMEOUT_MIN_MS)
        self._minimum("hold", HOLD_MIN_MS)
        self._consensus()
        for lower, upper in (
            ("token_retransmit", "token"),
            ("hold", "token_retransmit"),
            ("silent_fail", "consensus"),
            ("link_probe_interval", "link_probe_timeout"),
        ):
            self._below(lower, upper)
        for lower, upper in (
            ("token_retransmit_min", "token_retransmit"),
            ("token_retransmit_first", "token_retransmit"),
            ("max_messages", "window_size"),
            ("accelerated_window", "max_messages"),
            ("window_size", "max_gap"),
        ):
            self._at_most(lower, upper)
        self._heartbeat()
        if self._totem.integer("max_nodes") < nodes_count:
            self._error(
                "max_nodes",
                f"{self._totem.integer('max_nodes')} is below the {nodes_count} nodes of the "
                "nodelist",
            )

    def _minimum(self, key: str, minimum: int) -> None:
        value = self._totem.integer(key)
        if value < minimum:
            self._problems.error(
                self._totem.origin_of("token"),
                f"totem.{key}: {value} ms, derived from totem.token, is below the minimum of "
                f"{minimum} ms",
            )

    def _consensus(self) -> None:
        consensus, join = self._totem.integer("consensus"), self._totem.integer("join")
        if consensus < join:
            self._error("consensus", f"{consensus} is below totem.join {join}")
        elif consensus < self._token * 6 // 5:
            self._problems.warning(
                self._totem.origin_of("consensus"),
                f"totem.consensus: {consensus} is below 1.2 * token {self._token}",
            )

    def _below(self, lower: str, upper: str) -> None:
        value, limit = self._totem.integer(lower), self._totem.integer(upper)
        if value and value >= limit:
            self._error(lower, f"{value} is not below totem.{upper} {limit}")

    def _at_most(self, lower: str, upper: str) -> None:
        value, limit = (self._optional(key) for key in (lower, upper))
        if value is not None and limit is not None and value > limit:
            self._error(lower, f"{value} is over totem.{upper} {limit}")

    def _optional(self, key: str) -> int | None:
        if key == "window_size":
            return self._totem.optional_integer(key)
        return self._totem.integer(key)

    def _heartbeat(self) -> None:
        failures = self._totem.integer("heartbeat_failures_allowed")
        retransmit = self._totem.integer("token_retransmit")
        delay = self._totem.integer("max_network_delay")
        token = self._totem.integer("token")
        if failures and failures * retransmit + delay >= token:
            self._error(
                "heartbeat_failures_allowed",
                f"{failures} * token_retransmit {retransmit} + max_network_delay {delay} is not "
                f"below totem.token {token}",
            )

    def _error(self, key: str, rule: str) -> None:
        totem = self._totem
        origin = totem.origin_of(key if key in totem.written else _cause(totem, key))
        self._problems.error(origin, f"totem.{key}: {rule}")


def _cause(totem: BoundSection, key: str) -> str:
    """Return the key whose line an error names about a value that nobody wrote."""
    return "token" if "token" in totem.written else key
