"""The process of a service: one loop over clients, totemd and time.

No decision about operations is made here. One thread, one poller.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from openais import __version__
from openais.node.config import NodeConfig
from openais.node.exits import Exit, ExitError
from openais.node.ipc import Access, IpcServer
from openais.node.logs import EventLog
from openais.node.poller import Poller
from openais.node.program import main
from openais.wire import port
from openais.wire.codec import DecodeError
from openais.wire.status import ONE_MILLISECOND_NS, Status
from services.kit import stream
from services.kit.effects import (
    Discarded,
    Diverged,
    Dropped,
    Effect,
    Ended,
    FencePassed,
    LeftOut,
    Moved,
    Now,
    Opened,
    Rejoin,
    Replied,
    Send,
    Stale,
    State,
    Told,
)
from services.kit.electorate import ballot
from services.kit.group import Group, Lost
from services.kit.journal import Journal, Snapshot
from services.kit.limits import Limits
from services.kit.machine import KEPT, Machine, Notifications, Operation
from services.kit.outside import Outside
from services.kit.quorum import Quorum
from services.kit.replica import Replica
from services.kit.server import Server, refusal
from services.kit.snapshots import SnapshotLimits, Snapshots

SLEEP_MAX_MS: Final = 1000
ATTACH_NS: Final = 5_000_000_000  # without an answer to an attach; then it is sent anew
FRAME_SIZE_MAX: Final = 128 << 20  # bytes of one bundle of a client
BODY_OVERHEAD_MAX: Final = 4096  # bytes of a request beside its data
EVENT_SIZE_ESTIMATE: Final = 128  # bytes that totemd counts for a logged bundle beside its payload

_LOG = EventLog(__name__)

Factory = Callable[[NodeConfig], Machine]
Keep = Callable[[Discarded], dict[str, str]]


def run(
    name: str,
    factory: Factory,
    operations: tuple[Operation, ...],
    *,
    needs_quorum: bool = True,
    notifications: Notifications = KEPT,
    keeper: Callable[[NodeConfig], Keep] = lambda _config: _named,
) -> int:
    """Be the process of a service; return its exit status.

    Args:
        name: of the service.
        factory: makes its machine.
        operations: what clients may ask for.
        needs_quorum: without a quorum requests are refused; else the machine sees to it.
        notifications: how many are kept for a session, and what happens to more.
        keeper: makes what keeps the objects that a merge discards, and names them for the log.
    """

    def fresh(config: NodeConfig) -> Replica:
        return Replica(
            config.totem.node_id,
            factory(config),
            ballot(config),
            needs_quorum=needs_quorum,
            notifications=notifications,
        )

    def body(config: NodeConfig) -> None:
        ServiceProcess(
            name, config, fresh, operations, needs_quorum=needs_quorum, keep=keeper(config)
        ).run()

    return main(name, body)


class ServiceProcess:
    """A service on this node."""

    def __init__(
        self,
        name: str,
        config: NodeConfig,
        fresh: Callable[[NodeConfig], Replica],
        operations: tuple[Operation, ...],
        *,
        needs_quorum: bool,
        keep: Keep,
    ) -> None:
        self._name: Final = name
        self._config: Final = config
        self._fresh: Final = fresh
        self._node_id: Final = config.totem.node_id
        self._journal: Final = Journal(config.system.state_dir, name, self._node_id)
        self._context: Final = zmq.Context()
        ipc = IpcServer(
            self._context,
            config.system.run_dir,
            f"{name}.sock",
            config.ipc.mode,
            _access(config),
            config.ipc.clients_max,
            FRAME_SIZE_MAX,
            refusal,
        )
        self._group: Final = Group(self._context, config.system.run_dir, name)
        self._needs_quorum: Final = needs_quorum
        self._keep: Final = keep
        self._replica = fresh(config)
        self._history = b""
        self._snapshot: Snapshot | None = self._journal.read()
        self._server: Final = Server(
            ipc,
            self._replica,
            self._group,
            operations,
            self.status,
            _client_limits(config),
        )
        self._poller: Final = Poller()
        self._outside: Final = Outside(config.system.run_dir)
        self._snapshots: Final = Snapshots(self._journal, _limits(config), self._poller)
        self._replay = _Replay()
        self._wall_ns = 0
        self._quorate = True
        self._attached = False
        self._attach_until_ns = 0
        self._again = False
        self._wake_fd, self._wake_write_fd = socket.socketpair()
        self._stopping = False

    def run(self) -> None:
        """Serve until told to stop; leave a snapshot."""
        self._signals()
        self._server.register(self._poller)
        self._group.register(self._poller)
        self._poller.register(self._wake_fd.fileno())
        _LOG.info("started", node=self._node_id, version=__version__, pid=os.getpid())
        self._connect()
        try:
            while not self._stopping:
                self._turn()
            self._server.ipc.flush()
            self._last_snapshot()
        finally:
            self._snapshots.abandon()
            self._group.close()
            self._server.ipc.close()
            self._context.destroy(0)
        _LOG.info("stopped", node=self._node_id)

    def _connect(self) -> None:
        self._attached = False
        self._attach_until_ns = time.monotonic_ns() + ATTACH_NS
        if self._snapshot is not None:
            self._group.connect(self._snapshot.history, self._snapshot.index)
        elif self._history and self._replica.state is not State.JOINING:
            self._group.connect(self._history, self._replica.index)
        else:
            self._group.connect(b"", 0)

    def _now(self) -> Now:
        self._wall_ns = max(self._wall_ns, time.time_ns())
        return Now(time.monotonic_ns(), self._wall_ns)

    def _turn(self) -> None:
        ready = {fd for fd in self._poller.poll(self._timeout_ms()) if isinstance(fd, int)}
        if self._wake_fd.fileno() in ready:
            self._wake_fd.recv(64)
        for message in self._group.receive():
            self._from_totemd(message)
        self._tell_quorum()
        now = self._now()
        if not self._attached and now.ns >= self._attach_until_ns:
            # totemd is away, or it ended just when it had been asked: nobody answers that any more
            self._connect()
        if self._needs_quorum:
            self._server.take_outside(self._outside.reason(now.ns), now)
        self._server.receive(now, ready)
        self._perform(self._replica.expire(now))
        self._server.expire(now)
        self._server.order()
        while self._replica.gives and self._group.bulk_room:
            self._perform(self._replica.give())
        self._durable(self._snapshots.collect(ready, now.ns))
        if self._snapshots.due(now.ns):
            self._make_snapshot(now)
        self._group.flush()
        self._server.ipc.flush()

    def _tell_quorum(self) -> None:
        quorum = self._replica.quorum
        if quorum.quorate == self._quorate:
            return
        self._quorate = quorum.quorate
        log = _LOG.info if quorum.quorate else _LOG.warning
        log(
            "quorum_reached" if quorum.quorate else "quorum_lost",
            votes=quorum.votes,
            needed=quorum.rules.needed,
            expected=quorum.rules.expected_votes,
            members=quorum.present,
        )

    def _timeout_ms(self) -> int:
        if self._group.pending or self._server.ipc.pending:
            return 1 if self._server.ipc.pending else 0
        if self._replica.gives and self._group.bulk_room:
            return 0
        now = self._now()
        wanted = (
            self._replica.wait_ns(now),
            self._server.wait_ns(now),
            self._snapshots.wait_ns(now.ns),
        )
        waits = [wait for wait in wanted if wait is not None]
        wait_ns = min(waits, default=SLEEP_MAX_MS * ONE_MILLISECOND_NS)
        return min(SLEEP_MAX_MS, -(-wait_ns // ONE_MILLISECOND_NS))

    # The stream

    def _from_totemd(self, message: object) -> None:
        now = self._now()
        match message:
            case port.Delivered():
                self._delivered(message, now)
            case port.View():
                self._perform(self._replica.viewed(message, now))
            case port.Parting():
                self._perform(self._replica.parted(message))
            case port.CaughtUp():
                self._replay.end(self._replica.applied, now.ns)
                self._perform(self._replica.caught_up(now))
                self._resumed(now)
            case port.Attached():
                self._attach(message, now)
            case port.SnapshotWanted():
                self._snapshots.wanted = True
            case port.Refused(0, Status.ERR_VERSION, reason):
                own = f"this process speaks {port.VERSION_MIN} to {port.VERSION}"
                raise ExitError(Exit.PROTOCOL_VERSION, f"totemd: {reason}, {own}")
            case port.Refused(0, status, reason):
                raise ExitError(Exit.SERVICE_INITIALIZATION, f"totemd: {status.name} {reason}")
            case Lost(rule):
                why = {"rule": rule} if rule else {}
                _LOG.warning("totemd_lost", node=self._node_id, **why)
                self._connect()
            case _:
                pass  # Accepted, which the group has taken

    def _delivered(self, message: port.Delivered, now: Now) -> None:
        before = self._replica.applied
        self._perform(self._replica.delivered(message, now))
        self._snapshots.log_bytes += len(message.payload) + EVENT_SIZE_ESTIMATE
        self._snapshots.log_entries += max(0, self._replica.applied - before)

    def _attach(self, attached: port.Attached, now: Now) -> None:
        """Take up the memory that the stream goes on from, or what is left of it."""
        self._attached = True
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and not attached.resumed:
            # Of an earlier life of the node: worthless, and totemd must know that we have nothing.
            _LOG.info("snapshot_outdated", path=str(self._journal.path))
            self._renew()
            return
        if attached.resumed and snapshot is not None:
            try:
                snapshot.check()
                stream.restore(self._replica, snapshot.state, snapshot.index)
            except DecodeError as error:
                self._journal.unusable(str(error))
                self._renew()
                return
            size = len(snapshot.state)
            self._snapshots.loaded(size, snapshot.index)
            self._durable(snapshot.index)
            _LOG.info("snapshot_loaded", index=snapshot.index, bytes=size)
        self._history = attached.history
        self._group.forget()
        self._again = True
        if attached.resumed:
            self._replica.replaying = True
            self._replay.begin(self._replica.applied, now.ns)
        else:
            self._snapshots.abandon()  # it is of another history
            self._perform(self._replica.reattached(now))
            if self._replica.view is not None:
                # The new log does not tell what was before it.
                self._snapshots.wanted = True
                self._write_snapshot(now)
        _LOG.info("attached", resumed=attached.resumed, index=attached.index)

    def _resumed(self, now: Now) -> None:
        """The replay is over."""
        if self._replica.state is State.LIVE:
            self._serve(now)

    def _serve(self, now: Now) -> None:
        self._server.live()
        if self._again:  # a new connection: what was on the way may be lost
            self._again = False
            self._server.send_again()

    def _renew(self) -> None:
        """Forget everything and join as a new member."""
        self._snapshots.abandon()
        self._replica = self._fresh(self._config)
        self._server.replica = self._replica
        self._history = b""
        self._leave()
        self._group.forget()
        self._connect()

    def _leave(self) -> None:
        """Give the seat up at once: the others need not wait for its grace."""
        self._group.control(port.Detach())
        self._group.flush()

    # Effects

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(entry, bulk):
                    self._group.send(entry, bulk=bulk)
                case Dropped():
                    self._again = True
                case Replied() | Told() | Opened() | Ended() | Stale() | FencePassed():
                    self._tell(effect)
                case _:
                    self._change(effect)

    def _tell(self, effect: Replied | Told | Opened | Ended | Stale | FencePassed) -> None:
        match effect:
            case Replied(session, number, status, body):
                self._server.replied((session, number), status, body)
            case Told(session, _):
                self._server.told(session)
            case Opened(session):
                self._server.opened(session)
            case Ended(session):
                self._server.ended(session)
            case Stale(session):
                self._server.stale(session)
            case FencePassed(number):
                self._server.fence_passed(number, self._now())

    def _report(self, effect: Discarded | Diverged) -> None:
        """Say loudly what must not pass unseen."""
        match effect:
            case Diverged(nodes, majority):
                _LOG.error("replicas_diverged", nodes=nodes, majority=majority)
            case Discarded(_, _, changes, kept):
                won = "deleted" if kept is None else kept
                _LOG.warning("merge_discarded", **self._keep(effect), changes=changes, kept=won)

    def _change(self, effect: Moved | Rejoin | LeftOut | Discarded | Diverged) -> None:
        match effect:
            case Moved(old, new):
                self._moved(old, new)
            case Rejoin(rule):
                _LOG.error("joins_anew", rule=rule)
                self._renew()
            case LeftOut(rule):
                self._leave()
                raise ExitError(Exit.PROTOCOL_VERSION, rule)
            case Discarded() | Diverged():
                self._report(effect)

    def _moved(self, old: State, new: State) -> None:
        view = self._replica.view
        members = tuple(view.members) if view is not None else ()
        _LOG.info("state", old=old.value, new=new.value, view=members)
        if new is State.LIVE and not self._replica.replaying:
            self._serve(self._now())

    @property
    def _settled(self) -> bool:
        """True: a snapshot of now tells everything."""
        return self._replica.settled and not self._replica.replaying and self._history != b""

    def _make_snapshot(self, now: Now) -> None:
        if self._settled:
            self._write_snapshot(now)

    def _write_snapshot(self, now: Now) -> None:
        replica = self._replica
        begin = self._snapshots.begin
        self._durable(begin(self._history, replica.index, lambda: stream.parts(replica), now.ns))

    def _last_snapshot(self) -> None:
        dump = (lambda: stream.parts(self._replica)) if self._settled else None
        self._durable(self._snapshots.last(self._history, self._replica.index, dump))
        self._group.flush()

    def _durable(self, index: int | None) -> None:
        """Let totemd cut its log."""
        if index is not None and self._attached:
            self._group.control(port.Snapshotted(index))

    def _signals(self) -> None:
        self._wake_fd.settimeout(0)
        self._wake_write_fd.settimeout(0)
        signal.set_wakeup_fd(self._wake_write_fd.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def status(self) -> dict[str, Any]:
        """Return the status document; keys in docs/operating.md."""
        replica = self._replica
        view = replica.view
        counters = dataclasses.asdict(replica.stats)
        counters |= dataclasses.asdict(self._server.stats)
        counters |= dataclasses.asdict(self._server.ipc.stats)
        counters |= dataclasses.asdict(self._snapshots.stats)
        counters |= {"entries_queued": self._group.queued}
        state = replica.state.value if self._attached else "connecting"
        return {
            "process": self._name,
            "pid": os.getpid(),
            "version": __version__,
            "node_id": self._node_id,
            "state": "replaying" if replica.replaying else state,
            "history": self._history.hex(),
            "index": replica.index,
            "applied": replica.applied,
            "view": {
                "ring_seq": view.ring.seq if view else 0,
                "number": replica.component.number if replica.component else 0,
                "members": list(view.members) if view else [],
            },
            "quorum": _quorum(replica.quorum),
            "versions": _versions(replica),
            "clock_skew_ms": {
                str(node): skew // ONE_MILLISECOND_NS
                for node, skew in sorted(replica.clock_skews_ns.items())
                if node != self._node_id
            },
            "sessions": len(replica.sessions.open),
            "limits": dataclasses.asdict(self._server.use.limits),
            "clients": self._server.use.report(),
            "digest": replica.digest().hex() if view and replica.serving else "",
            "incomplete": sorted(replica.incomplete),
            "diverged": sorted(replica.diverged),
            "memory": self._snapshots.status() | self._replay.status(),
            "counters": counters,
            "machine": replica.machine.describe(),
        }


@dataclasses.dataclass(slots=True)
class _Replay:
    """What the last process of the service left to be replayed."""

    entries: int = 0
    duration_ns: int = 0
    _begun_ns: int = 0
    _applied: int = 0

    def begin(self, applied: int, now_ns: int) -> None:
        self._applied, self._begun_ns = applied, now_ns

    def end(self, applied: int, now_ns: int) -> None:
        self.entries, self.duration_ns = applied - self._applied, now_ns - self._begun_ns
        duration_ms = self.duration_ns // ONE_MILLISECOND_NS
        _LOG.info("replayed", entries=self.entries, duration_ms=duration_ms)

    def status(self) -> dict[str, int]:
        return {
            "replayed_entries": self.entries,
            "replayed_ms": self.duration_ns // ONE_MILLISECOND_NS,
        }


def _limits(config: NodeConfig) -> SnapshotLimits:
    memory = config.service_memory
    return SnapshotLimits(
        memory.snapshot_log_bytes,
        memory.snapshot_log_entries,
        memory.snapshot_fork_bytes,
        memory.snapshot_timeout_ms * ONE_MILLISECOND_NS,
        memory.snapshot_exit_ms * ONE_MILLISECOND_NS,
    )


def _quorum(quorum: Quorum) -> dict[str, Any]:
    rules = quorum.rules
    return {
        "configured": quorum.configured,
        "quorate": quorum.quorate,
        "votes": quorum.votes,
        "needed": rules.needed if quorum.configured else 0,
        "expected": rules.expected_votes,
    }


def _versions(replica: Replica) -> dict[str, Any]:
    """Return what the group speaks and what this process could, per protocol."""
    return {
        name: {"spoken": spoken, "newest": span.newest, "oldest": span.oldest}
        for name, spoken, span in zip(
            replica.offer._fields, replica.versions.spoken, replica.offer, strict=True
        )
    }


def _access(config: NodeConfig) -> Access:
    identities = config.identities
    return Access(
        frozenset(i.uid for i in identities if i.uid is not None),
        frozenset(i.gid for i in identities if i.gid is not None),
        frozenset(i.uid for i in identities if i.uid is not None and i.admin),
        frozenset(i.gid for i in identities if i.gid is not None and i.admin),
    )


def _client_limits(config: NodeConfig) -> Limits:
    ipc = config.ipc
    return Limits(
        ipc.clients_max,
        ipc.process_sessions_max,
        ipc.user_sessions_max,
        ipc.session_requests_max,
        ipc.session_bytes_max,
        ipc.session_grace_ms,
        ipc.message_size_max_bytes + BODY_OVERHEAD_MAX,
    )


def _named(version: Discarded) -> dict[str, str]:
    return {"object": version.name.hex()}
