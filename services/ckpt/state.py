"""The replicated state of the checkpoint service: all checkpoints, by name and by open. Pure."""

from __future__ import annotations

import dataclasses
import heapq
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from openais.wire import ckpt as wire
from openais.wire.ckpt import ChangeKind, Level, OpenFlags
from openais.wire.codec import Buffer, DecodeError
from openais.wire.status import TIME_END, Status
from services.ckpt import checkpoint, objects, rules, watches
from services.ckpt.checkpoint import Checkpoint, Opening, Stamp
from services.ckpt.objects import Policy, Tombstones
from services.ckpt.rules import OfHandle, ReadOfHandle, RefusalError, invalid
from services.ckpt.watches import TRACK, OpenKey, Watch
from services.kit.machine import (
    REST,
    Answer,
    Caller,
    Context,
    Effect,
    Foreign,
    NodeId,
    Objects,
    Report,
    SessionId,
    Summary,
    View,
)

UID: Final = struct.Struct(">QIQ")  # ring sequence, creator node, counter
KNOWN_FLAGS: Final = OpenFlags.READ | OpenFlags.WRITE | OpenFlags.CREATE
EXPIRED_MAX: Final = 256  # operations proposed at a time


class Checkpoints:
    """All checkpoints of the cluster. See `services.kit.machine.Machine`.

    Args:
        policy: how versions of two sides of a partition become one.
    """

    table: Final = wire.TABLE

    def __init__(self, policy: Policy = objects.DEFAULT) -> None:
        self.objects: Final = Objects()
        self.objects.touch(REST)
        self.merges_losers: Final = policy.reads_losers
        self._policy: Final = policy
        self._tombstones: Final = Tombstones()
        self._counter = 0
        self._checkpoints: dict[bytes, Checkpoint] = {}  # by uid
        self._names: dict[bytes, Checkpoint] = {}  # the linked ones
        self._memory = 0  # bytes that all take
        self._opens: dict[SessionId, dict[int, Checkpoint]] = {}
        self._timers: list[tuple[int, bytes, bytes | None]] = []  # heap; None: retention
        self._tracking: dict[SessionId, None] = {}
        self._told: list[Effect] = []  # of the operation that is applied
        self._adopted: Final[set[bytes]] = set()  # merged; the view tells who has them open

    # Operations

    def speak(self, version: int) -> None:
        """Do nothing: there is one version."""

    def apply(self, operation: Any, context: Context) -> list[Effect]:
        """Apply one ordered operation."""
        match operation:
            case wire.CheckpointExpire():
                self._checkpoint_expire(operation, context.now_ns)
            case wire.SectionExpire():
                self._section_expire(operation, context)
            case _:
                caller = context.caller
                assert caller is not None, "all others come from a client"
                try:
                    answer = Answer(caller, Status.OK, self._serve(operation, caller, context))
                except RefusalError as refusal:
                    return [Answer(caller, refusal.status, refusal.detail)]
                return [answer, *self._take_told()]
        return self._take_told()

    def _take_told(self) -> list[Effect]:
        told, self._told = self._told, []
        return told

    def _serve(self, operation: Any, caller: Caller, context: Context) -> Any:
        match operation:
            case wire.Open():
                return self._open(operation, caller, context)
            case wire.Close(handle):
                self._find(caller, handle)
                self._close((caller.session, handle), context.now_ns)
                return None
            case wire.Unlink(name):
                return self._unlink(name, context.now_ns)
            case (
                wire.RetentionDurationSet()
                | wire.ActiveReplicaSet()
                | wire.SectionCreate()
                | wire.SectionDelete()
                | wire.SectionExpirationTimeSet()
                | wire.Write()
                | wire.SectionOverwrite()
                | wire.Synchronize()
                | wire.SectionPut()
                | wire.SectionDrop()
                | wire.SectionTtlSet()
            ):
                return self._change(operation, caller, context)
            case wire.Watch() | wire.Unwatch() | wire.Track() | wire.TrackStop():
                return self._watching(operation, caller)
            case _:
                raise invalid(f"{type(operation).__name__} is no request of a client here")

    def read(self, operation: Any, context: Context) -> Answer:
        """Answer from the present state."""
        caller = context.caller
        assert caller is not None, "a read has a caller"
        try:
            return Answer(caller, Status.OK, self._read(operation, caller))
        except RefusalError as refusal:
            return Answer(caller, refusal.status, refusal.detail)

    def _read(self, operation: Any, caller: Caller) -> Any:
        match operation:
            case wire.CheckpointsGet():
                ordered = sorted(self._checkpoints.values(), key=lambda c: (c.name, c.uid))
                return wire.Checkpoints(tuple(c.info() for c in ordered))
            case wire.CheckpointDump():
                return self._dump(operation)
            case wire.NamesGet():
                return self._names_of(operation)
            case (
                wire.StatusGet()
                | wire.Read()
                | wire.SectionsGet()
                | wire.SectionGet()
                | wire.ItemsGet()
            ):
                return self._read_one(operation, caller)
            case _:
                raise invalid(f"{type(operation).__name__} is no request of a client here")

    def _read_one(self, operation: ReadOfHandle, caller: Caller) -> Any:
        c, opening = self._find(caller, operation.handle)
        rules.check_read(operation, c.attributes)
        always = isinstance(operation, wire.Read | wire.ItemsGet)
        if not opening.flags & OpenFlags.READ and (always or opening.level >= Level.B_02):
            raise RefusalError(Status.ERR_ACCESS, "not opened with READ")
        match operation:
            case wire.StatusGet():
                return c.status()
            case wire.Read():
                parts = c.read(operation.elements)
                versions = c.versions(operation.elements) if operation.versions else ()
                return wire.ReadData(parts, versions)
            case wire.SectionsGet():
                return wire.SectionIds(c.chosen(operation))
            case wire.SectionGet():
                return c.descriptor(operation.section_id)
            case wire.ItemsGet():
                c.need_active()
                ids = [i for i in c.sections if i.startswith(operation.prefix)]
                return c.page(ids, operation.after, operation.offset)

    def _names_of(self, operation: wire.NamesGet) -> wire.Names:
        found = sorted(
            name
            for name in self._names
            if name.startswith(operation.prefix) and name > operation.after
        )
        return wire.Names(tuple(found[: wire.NAMES_MAX]), len(found) > wire.NAMES_MAX)

    def _dump(self, operation: wire.CheckpointDump) -> wire.Dump:
        c = self._names.get(operation.name)
        if c is None:
            raise unknown_name(operation.name)
        if operation.after < 0 or operation.offset < 0:
            raise invalid(f"after {operation.after}, offset {operation.offset}")
        return c.page(list(c.sections), operation.after, operation.offset)

    # Opens

    def _open(self, op: wire.Open, caller: Caller, context: Context) -> wire.Opened:
        self._check_open(op, caller)
        c = self._names.get(op.name)
        created = c is None
        if c is None:
            if not op.flags & OpenFlags.CREATE:
                raise unknown_name(op.name)
            self._need_place(op.name)
            assert op.attributes is not None
            c = self._create(op.name, op.attributes, caller, context)
        elif op.attributes is not None and not c.same(op.attributes):
            rule = f"there with other attributes: {c.attributes}"
            raise RefusalError(Status.ERR_EXIST, rule)
        key = (caller.session, op.handle)
        self._opened(key, c, Opening(caller.node_id, op.flags, op.level))
        if caller.session in self._tracking:
            _track(c, key)
        return wire.Opened(c.attributes, created)

    def _check_open(self, op: wire.Open, caller: Caller) -> None:
        """Check what can be checked without the checkpoint (section 3.6.2)."""
        opens = self._opens.get(caller.session, {})
        _check_name(op.name)
        broken = None if op.attributes is None else wire.attributes_rule(op.attributes)
        if broken is not None:
            raise invalid(broken)
        if op.flags & ~KNOWN_FLAGS or not op.flags:
            raise RefusalError(Status.ERR_BAD_FLAGS, f"flags {op.flags:#x}")
        if bool(op.flags & OpenFlags.CREATE) != (op.attributes is not None):
            raise invalid("attributes are given with CREATE, and only then")
        if op.handle in opens:
            raise invalid(f"handle {op.handle} is in use")
        if len(opens) >= wire.OPENS_PER_SESSION_MAX:
            rule = f"{wire.OPENS_PER_SESSION_MAX} checkpoints are open in this session"
            raise RefusalError(Status.ERR_NO_RESOURCES, rule)

    def _need_place(self, name: bytes) -> None:
        """Refuse one checkpoint more where it has no room."""
        if len(self._checkpoints) >= wire.CHECKPOINTS_MAX:
            rule = f"there are {wire.CHECKPOINTS_MAX} checkpoints"
            raise RefusalError(Status.ERR_NO_RESOURCES, rule)
        if self._memory + checkpoint.CHECKPOINT_OVERHEAD + len(name) > wire.MEMORY_MAX:
            rule = f"checkpoints take {self._memory} bytes, limit {wire.MEMORY_MAX}"
            raise RefusalError(Status.ERR_NO_MEMORY, rule)

    def _create(
        self, name: bytes, attributes: wire.Attributes, caller: Caller, context: Context
    ) -> Checkpoint:
        self.objects.touch(REST)
        self._counter += 1
        uid = UID.pack(context.view.ring.seq, caller.node_id, self._counter)
        c = Checkpoint(uid, name, attributes, context.now_ns)
        self.objects.touch(uid)
        c.create_default(c.stamp(context.now_ns, context.view.ring))
        self._memory += c.memory
        self._checkpoints[uid] = self._names[name] = c
        return c

    def _opened(self, key: OpenKey, c: Checkpoint, opening: Opening) -> None:
        self._changing(c)
        c.opened(key, opening)
        self._opens.setdefault(key[0], {})[key[1]] = c

    def _changing(self, c: Checkpoint) -> None:
        """Count a change that is about to be made: nothing can refuse it any more."""
        self.objects.touch(c.uid)
        c.mutations += 1

    def _find(self, caller: Caller, handle: int) -> tuple[Checkpoint, Opening]:
        c = self._opens.get(caller.session, {}).get(handle)
        if c is None:
            raise RefusalError(Status.ERR_BAD_HANDLE, f"handle {handle} is not open")
        return c, c.opens[caller.session, handle]

    def _close(self, key: OpenKey, now_ns: int) -> None:
        session, handle = key
        c = self._opens[session].pop(handle)
        if not self._opens[session]:
            del self._opens[session]
        self._changing(c)
        if c.closed(key, now_ns):
            self._delete(c, now_ns)
        elif c.deadline_ns is not None:
            heapq.heappush(self._timers, (c.deadline_ns, c.uid, None))

    def _delete(self, c: Checkpoint, now_ns: int) -> None:
        self.objects.touch(c.uid)
        self.objects.touch(REST)
        self._tombstones.add(c.uid, now_ns)
        del self._checkpoints[c.uid]
        self._memory -= c.memory
        if self._names.get(c.name) is c:
            del self._names[c.name]

    def _unlink(self, name: bytes, now_ns: int) -> None:
        _check_name(name)
        c = self._names.get(name)
        if c is None:
            raise unknown_name(name)
        self._changing(c)
        del self._names[name]
        c.linked = False
        if not c.opens:
            self._delete(c, now_ns)

    # Changes through a handle

    def _change(self, op: OfHandle, caller: Caller, context: Context) -> Any:
        c, opening = self._find(caller, op.handle)
        rules.check_change(op, c.attributes)
        free = isinstance(op, wire.RetentionDurationSet) and opening.level < Level.B_02
        if not opening.flags & OpenFlags.WRITE and not free:
            raise RefusalError(Status.ERR_ACCESS, "not opened with WRITE")
        if isinstance(op, wire.Synchronize):
            if c.synchronous:
                rule = "WR_ALL_REPLICAS: a write has reached all replicas when it returns"
                raise RefusalError(Status.ERR_BAD_OPERATION, rule)
            return c.need_active()
        self.objects.touch(c.uid)
        before = c.memory
        there = getattr(op, "section_id", None) in c.sections
        version = c.stamp(context.now_ns, context.view.ring).version
        result = self._apply_change(c, op, caller, context)
        self._memory += c.memory - before
        c.mutations += 1
        if c.watches:
            self._tell(c, op, result, version, there=there)
        return result

    def _tell(
        self, c: Checkpoint, op: OfHandle, result: Any, version: bytes, *, there: bool
    ) -> None:
        """Tell who watches; ``there``: the section was there before."""
        elements: tuple[wire.ChangedElement, ...]
        put = ChangeKind.OVERWRITTEN if there else ChangeKind.CREATED
        match op:
            case wire.SectionCreate():
                kind, elements = ChangeKind.CREATED, (_whole(result.section_id, op.data),)
            case wire.SectionOverwrite() | wire.SectionPut():
                kind, elements = put, (_whole(op.section_id, op.data),)
            case wire.SectionDelete() | wire.SectionDrop():
                kind, elements = ChangeKind.DELETED, (_gone(op.section_id),)
            case wire.Write():
                kind = ChangeKind.WRITTEN
                elements = tuple(
                    wire.ChangedElement(e.section_id, e.offset, len(e.data), e.data)
                    for e in op.elements
                )
            case _:
                return
        self._told += watches.tell(c.watches, kind, elements, version)

    # Watches

    def _watching(
        self, op: wire.Watch | wire.Unwatch | wire.Track | wire.TrackStop, caller: Caller
    ) -> None:
        match op:
            case wire.Watch():
                self._watch(op, caller)
            case wire.Unwatch():
                c, _ = self._find(caller, op.handle)
                self._unwatch(c, (caller.session, op.handle), op.watch)
            case wire.Track():
                self.objects.touch(REST)
                self._tracking[caller.session] = None
                for handle, c in sorted(self._opens.get(caller.session, {}).items()):
                    self.objects.touch(c.uid)
                    _track(c, (caller.session, handle))
            case wire.TrackStop():
                if caller.session not in self._tracking:
                    raise RefusalError(Status.ERR_NOT_EXIST, "this session does not track")
                self.objects.touch(REST)
                del self._tracking[caller.session]
                for handle, c in sorted(self._opens.get(caller.session, {}).items()):
                    key = (caller.session, handle)
                    if TRACK in c.watches.get(key, {}):
                        self._unwatch(c, key, TRACK)

    def _watch(self, op: wire.Watch, caller: Caller) -> None:
        c, opening = self._find(caller, op.handle)
        rules.check_watch(op)
        need = OpenFlags.READ if op.data_size_max else OpenFlags.READ | OpenFlags.WRITE
        if not opening.flags & need:
            raise RefusalError(Status.ERR_ACCESS, "not opened with READ")
        key = (caller.session, op.handle)
        mine = c.watches.get(key, {})
        if op.watch in mine:
            raise RefusalError(Status.ERR_EXIST, f"watch {op.watch} is there")
        if len(mine) >= wire.WATCHES_PER_OPEN_MAX:
            rule = f"{wire.WATCHES_PER_OPEN_MAX} watches of this open"
            raise RefusalError(Status.ERR_NO_RESOURCES, rule)
        self.objects.touch(c.uid)
        watch = Watch(op.section_id, op.prefix, op.data_size_max)
        c.watches.setdefault(key, {})[op.watch] = watch

    def _unwatch(self, c: Checkpoint, key: OpenKey, watch: int) -> None:
        if watch not in c.watches.get(key, {}):
            raise RefusalError(Status.ERR_NOT_EXIST, f"there is no watch {watch}")
        self.objects.touch(c.uid)
        del c.watches[key][watch]
        if not c.watches[key]:
            del c.watches[key]

    def _apply_change(self, c: Checkpoint, op: OfHandle, caller: Caller, context: Context) -> Any:
        match op:
            case wire.RetentionDurationSet():
                return _retention_set(c, op.duration_ns)
            case wire.ActiveReplicaSet():
                if not c.collocated:
                    rule = "only asynchronous, collocated checkpoints have an active replica"
                    raise RefusalError(Status.ERR_BAD_OPERATION, rule)
                c.active = caller.node_id
                return None
            case _:
                stamp = c.stamp(context.now_ns, context.view.ring)
                return self._change_section(c, op, stamp)

    def _change_section(self, c: Checkpoint, op: Any, stamp: Stamp) -> Any:
        room = wire.MEMORY_MAX - self._memory
        match op:
            case wire.SectionOverwrite():
                return c.overwrite(op, stamp, room)
            case wire.Write():
                return c.write(op.elements, stamp, room)
            case wire.SectionCreate():
                created = c.section_create(op.section_id, op.expiration_ns, op.data, stamp, room)
                self._arm(c, created, op.expiration_ns)
                return wire.SectionCreated(created)
            case wire.SectionDelete() | wire.SectionDrop():
                if isinstance(op, wire.SectionDrop):
                    c.need_version(op.section_id, op.expected)
                return c.section_delete(op.section_id)
            case wire.SectionPut():
                c.put(op, stamp, room)
                self._arm(c, op.section_id, c.sections[op.section_id].expiration_ns)
                return wire.SectionPutDone(stamp.version)
            case wire.SectionTtlSet():
                until_ns = min(stamp.now_ns + op.ttl_ns, TIME_END)
                c.section_expiration_set(op.section_id, until_ns)
                return self._arm(c, op.section_id, until_ns)
            case wire.SectionExpirationTimeSet():
                c.section_expiration_set(op.section_id, op.expiration_ns)
                return self._arm(c, op.section_id, op.expiration_ns)
            case _:
                raise AssertionError(f"no way to apply {type(op).__name__}")

    # Time

    def _arm(self, c: Checkpoint, section_id: bytes, expiration_ns: int) -> None:
        if expiration_ns < TIME_END:
            heapq.heappush(self._timers, (expiration_ns, c.uid, section_id))

    def _still_due(self, timer: tuple[int, bytes, bytes | None]) -> bool:
        at_ns, uid, section_id = timer
        c = self._checkpoints.get(uid)
        if c is None:
            return False
        if section_id is None:
            return c.deadline_ns == at_ns
        section = c.sections.get(section_id)
        return section is not None and section.expiration_ns == at_ns

    def deadline_ns(self) -> int | None:
        """Return when the next section or checkpoint expires."""
        while self._timers and not self._still_due(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def expired(self, now_ns: int) -> list[Any]:
        """Return the operations that delete what is over."""
        due: dict[tuple[int, bytes, bytes | None], Any] = {}
        waiting = []
        while self._timers and self._timers[0][0] <= now_ns and len(due) < EXPIRED_MAX:
            timer = heapq.heappop(self._timers)
            if self._still_due(timer):
                waiting.append(timer)
                due[timer] = self._expiry(timer)
        for timer in waiting:  # until the operation is delivered
            heapq.heappush(self._timers, timer)
        return list(due.values())

    def _expiry(self, timer: tuple[int, bytes, bytes | None]) -> Any:
        at_ns, uid, section_id = timer
        if section_id is None:
            return wire.CheckpointExpire(uid, self._checkpoints[uid].generation)
        return wire.SectionExpire(uid, section_id, at_ns)

    def _checkpoint_expire(self, op: wire.CheckpointExpire, now_ns: int) -> None:
        """Delete a checkpoint, unless somebody opened it before (its generation changed)."""
        c = self._checkpoints.get(op.uid)
        if c is not None and not c.opens and c.generation == op.generation:
            self._delete(c, now_ns)

    def _section_expire(self, op: wire.SectionExpire, context: Context) -> None:
        c = self._checkpoints.get(op.uid)
        if c is None or not c.still_expires(op.section_id, op.expiration_ns):
            return
        version = c.stamp(context.now_ns, context.view.ring).version
        self._changing(c)
        before = c.memory
        c.remove(op.section_id)
        self._memory += c.memory - before
        gone = (_gone(op.section_id),)
        self._told += watches.tell(c.watches, ChangeKind.EXPIRED, gone, version)

    # Sessions and views

    def session_closed(self, session: SessionId, context: Context) -> list[Effect]:
        """Close everything the session had open."""
        for handle in sorted(self._opens.get(session, ())):
            self._close((session, handle), context.now_ns)
        if session in self._tracking:
            self.objects.touch(REST)
            del self._tracking[session]
        return []

    def holdings(self, session: SessionId) -> bytes:
        """Tell what a session has open."""
        return self.report((session,))

    def resumed(self, session: SessionId, holdings: bytes, context: Context) -> list[Effect]:
        """Open again what a session had open, where it is still there."""
        told = wire.TABLE.decode(holdings)
        assert isinstance(told, wire.OpensReport), "it is of this state"
        self._reopen(context.sender, told)
        return []

    def report(self, sessions: tuple[SessionId, ...]) -> bytes:
        """Tell what the sessions have open."""
        opens = []
        for session in sessions:
            for handle, c in sorted(self._opens.get(session, {}).items()):
                o = c.opens[session, handle]
                watched = sorted(c.watches.get((session, handle), {}).items())
                told = tuple(watch.report(number) for number, watch in watched)
                opens.append(wire.OpenReport(session, handle, c.uid, o.flags, o.level, told))
        tracking = tuple(s for s in sessions if s in self._tracking)
        return wire.TABLE.encode(wire.OpensReport(tuple(opens), tracking))

    def view_changed(
        self, view: View, reports: Mapping[NodeId, Report], context: Context
    ) -> list[Effect]:
        """Open again what returning nodes had open; active replicas that are gone are none."""
        for node_id in sorted(reports):
            try:
                told = wire.TABLE.decode(reports[node_id].content)
            except DecodeError:
                continue  # a newer node says what we do not understand: its handles end
            if isinstance(told, wire.OpensReport):
                self._reopen(node_id, told)
        for c in self._checkpoints.values():
            if c.active is not None and c.active not in view.members:
                self._changing(c)
                c.active = None
        for uid in sorted(self._adopted):
            taken_up = self._checkpoints.get(uid)
            if taken_up is not None and taken_up.watches:
                self.objects.touch(uid)
                self._told += watches.tell(taken_up.watches, ChangeKind.REPLACED, (), b"")
            self._end_of_use(uid, context.now_ns)
        self._adopted.clear()
        return self._take_told()

    def _reopen(self, node_id: NodeId, told: wire.OpensReport) -> None:
        for session in told.tracking:
            self.objects.touch(REST)
            self._tracking[SessionId(session)] = None
        for o in told.opens:
            c = self._checkpoints.get(o.uid)
            if c is not None and o.handle not in self._opens.get(SessionId(o.session), {}):
                key = (SessionId(o.session), o.handle)
                self._opened(key, c, Opening(node_id, o.flags, o.level))
                if o.watches:
                    mine = {w.watch: watches.load(w) for w in o.watches}
                    c.watches[key] = mine
                    self._told += watches.tell({key: mine}, ChangeKind.REPLACED, (), b"")

    # Memory

    def names(self) -> Iterable[bytes]:
        """Return the uids, and the rest."""
        return (REST, *self._checkpoints)

    def dump(self, name: bytes) -> list[bytes]:
        """Return a checkpoint, or the rest, in parts."""
        if name == REST:
            return [objects.dump_rest(self._counter, self._tracking, self._tombstones)]
        c = self._checkpoints.get(name)
        return [] if c is None else objects.dump(c)

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace checkpoints and the rest."""
        loaded = [objects.load(data) for name, data in changes.items() if data and name != REST]
        rest = changes.get(REST)
        if rest is not None:
            self.objects.touch(REST)
            self._counter, tracking = self._tombstones.load(rest)
            self._tracking = dict.fromkeys(tracking)
        for name in changes:
            if name != REST:
                self._forget(name)
        for c in loaded:
            self._add(c)

    def _forget(self, uid: bytes) -> None:
        self.objects.touch(uid)
        c = self._checkpoints.pop(uid, None)
        if c is None:
            return
        self._memory -= c.memory
        if self._names.get(c.name) is c:
            del self._names[c.name]
        for session, handle in c.opens:
            del self._opens[session][handle]
            if not self._opens[session]:
                del self._opens[session]

    def _add(self, c: Checkpoint) -> None:
        self.objects.touch(c.uid)
        self._checkpoints[c.uid] = c
        self._memory += c.memory
        if c.linked:
            self._names[c.name] = c
        for session, handle in c.opens:
            self._opens.setdefault(session, {})[handle] = c
        if c.deadline_ns is not None:
            heapq.heappush(self._timers, (c.deadline_ns, c.uid, None))
        for section_id, section in c.sections.items():
            self._arm(c, section_id, section.expiration_ns)

    # Merges

    def summary(self, name: bytes) -> Summary:
        """Sum a checkpoint up."""
        return objects.summary(self._checkpoints[name])

    def tombstones(self) -> Sequence[bytes]:
        """Return the uids deleted lately."""
        return self._tombstones.uids()

    def merge(self, foreign: Sequence[Foreign], context: Context) -> None:
        """Take up checkpoints of other sides; their own sessions open them again by report."""
        for f in foreign:
            self.objects.touch(f.name)
            mine = self._checkpoints.get(f.name)
            merged = objects.merged(mine, f, self._policy)
            if merged is None:
                continue
            if mine is not None:
                self._forget(f.name)
            self._settle_name(merged, f, context.now_ns)
            if merged.linked or self._policy.detaches:
                self._add(merged)
                self._adopted.add(f.name)

    def _settle_name(self, c: Checkpoint, f: Foreign, now_ns: int) -> None:
        """Let one of two linked checkpoints of one name keep it."""
        holder = self._names.get(c.name)
        if not c.linked or holder is None:
            return
        if not (f.equal and c.mutations > holder.mutations):
            c.linked = False
            return
        self.objects.touch(holder.uid)
        del self._names[c.name]
        holder.linked = False
        if not self._policy.detaches:
            self._forget(holder.uid)
            self.objects.touch(REST)
            self._tombstones.add(holder.uid, now_ns)
        else:
            self._adopted.add(holder.uid)

    def _end_of_use(self, uid: bytes, now_ns: int) -> None:
        """Apply the rules of a last close to what a merge took up and nobody has open."""
        c = self._checkpoints.get(uid)
        if c is None:
            return
        self._changing(c)
        if c.active not in {o.node_id for o in c.opens.values()}:
            c.active = None
        if c.opens or (c.linked and c.deadline_ns is not None):
            return
        if c.unused(now_ns):
            self._delete(c, now_ns)
        elif c.deadline_ns is not None:
            heapq.heappush(self._timers, (c.deadline_ns, c.uid, None))

    def check(self) -> None:
        """Assert every invariant."""
        assert self._memory == sum(c.memory for c in self._checkpoints.values())
        for c in self._checkpoints.values():
            c.check()
            assert not c.linked or self._names[c.name] is c
            assert all(self._opens[s][h] is c for s, h in c.opens)
        assert sum(map(len, self._opens.values())) == sum(
            len(c.opens) for c in self._checkpoints.values()
        )

    def describe(self) -> dict[str, int]:
        """Return counts for the status."""
        return {
            "checkpoints": len(self._checkpoints),
            "sections": sum(len(c.sections) for c in self._checkpoints.values()),
            "data_bytes": sum(c.used for c in self._checkpoints.values()),
            "memory_bytes": self._memory,
            "memory_bytes_max": wire.MEMORY_MAX,
            "opens": sum(map(len, self._opens.values())),
            "watches": sum(len(w) for c in self._checkpoints.values() for w in c.watches.values()),
            "tombstones": len(self._tombstones.uids()),
        }


def _whole(section_id: bytes, data: bytes) -> wire.ChangedElement:
    return wire.ChangedElement(section_id, 0, len(data), data)


def _gone(section_id: bytes) -> wire.ChangedElement:
    return wire.ChangedElement(section_id, 0, 0, None)


def _track(c: Checkpoint, key: OpenKey) -> None:
    if c.opens[key].flags & (OpenFlags.READ | OpenFlags.WRITE):
        c.watches.setdefault(key, {}).setdefault(TRACK, Watch(None, b"", 0))


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= wire.NAME_SIZE_MAX:
        raise invalid(f"name: 1..{wire.NAME_SIZE_MAX} bytes, not {len(name)}")


def unknown_name(name: bytes) -> RefusalError:
    """Return the refusal of a name that no linked checkpoint has."""
    return RefusalError(Status.ERR_NOT_EXIST, f"there is no checkpoint {name!r}")


def _retention_set(c: Checkpoint, duration_ns: int) -> None:
    if not c.linked:
        raise RefusalError(Status.ERR_BAD_OPERATION, "unlinked: it is deleted at its last close")
    c.attributes = dataclasses.replace(c.attributes, retention_duration=duration_ns)
