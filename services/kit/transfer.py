"""A state on its way from a replica that has it to one that lacks it, piece by piece. Pure.

The giver sends the state of one position while it goes on changing: an object that is about to
change before it was sent is dumped first. The receiver keeps what is whole when its giver dies;
the next one is told and sends the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openais.wire.codec import DecodeError, pack_state, unpack_state
from services.kit.entries import PIECE_SIZE_MAX, Piece, RoundId
from services.kit.memory import Memory

MANIFEST: Final = b""  # names the list of all objects; it goes first
OBJECTS_PER_PIECE_MAX: Final = 512
STEP_NS: Final = 4_000_000_000  # without a piece; then another is asked
ATTEMPTS_MAX: Final = 12  # then the member joins anew
EVERYBODY: Final = 0  # receiver of what a merge takes from other sides


class Giving:
    """What one replica gives to another, or to all.

    Args:
        memory: of the giver; at the position whose state is given.
        names: of the objects to give, in this order.
        component: in force, or the round of a merge.
        receiver: node, or `EVERYBODY`.
        attempt: of the receiver.
        manifest: goes before the objects; b"": nothing does.
    """

    def __init__(
        self,
        memory: Memory,
        names: Iterable[bytes],
        component: RoundId,
        receiver: int,
        attempt: int = 0,
        manifest: bytes = b"",
    ) -> None:
        self.receiver: Final = receiver
        self.attempt: Final = attempt
        self.finished = False
        self._memory: Final = memory
        self._component: Final = component
        self._waiting: Final = deque(names)
        self._unsent: Final = set(self._waiting)
        self._kept: Final[dict[bytes, list[bytes]]] = {}
        self._serial = 0
        self._name = MANIFEST
        self._parts: deque[memoryview] = deque([memoryview(manifest)] if manifest else ())
        self._total = self._left = len(manifest)
        self._end: Final[Callable[[], None]] = memory.keep(self._keep)

    def _keep(self, name: bytes) -> None:
        if name in self._unsent and name not in self._kept:
            self._kept[name] = self._memory.dump(name)

    def next(self) -> Piece:
        """Return the next piece; after the last, `finished` is True."""
        assert not self.finished, "the last piece was taken"
        items: list[list[Any]] = []
        room = PIECE_SIZE_MAX
        while room > 0 and len(items) < OBJECTS_PER_PIECE_MAX and (self._left or self._open()):
            data = self._cut(room)
            items.append([self._name, self._total - self._left - len(data), self._total, data])
            room -= len(data)
        if not self._left and not self._waiting:
            self.end()
        self._serial += 1
        return Piece(
            self._component,
            self.receiver,
            self.attempt,
            self._serial,
            self.finished,
            pack_state(items),
        )

    def _open(self) -> bool:
        """Begin the next object that exists; False: that was all."""
        while self._waiting:
            self._name = self._waiting.popleft()
            self._unsent.remove(self._name)
            parts = self._kept.pop(self._name, None)
            if parts is None:
                parts = self._memory.dump(self._name)
            self._parts = deque(memoryview(part) for part in parts if part)
            self._total = self._left = sum(map(len, self._parts))
            if self._left:
                return True
        return False

    def _cut(self, room: int) -> bytes:
        out: list[memoryview] = []
        while self._parts and room > 0:
            part = self._parts.popleft()
            if len(part) > room:
                self._parts.appendleft(part[room:])
            out.append(part[:room])
            room -= len(out[-1])
        data = b"".join(out)
        self._left -= len(data)
        return data

    def end(self) -> None:
        """Give no more."""
        if not self.finished:
            self.finished = True
            self._kept.clear()
            self._end()


class Gifts:
    """Everything one replica gives at a time; one after the other.

    Args:
        memory: of the giver.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory: Final = memory
        self._giving: Final[list[Giving]] = []

    def __bool__(self) -> bool:
        return bool(self._giving)

    def begin(
        self,
        names: Iterable[bytes],
        component: RoundId,
        receiver: int,
        attempt: int,
        manifest: bytes = b"",
    ) -> None:
        """Give the state of this position; see `Giving`."""
        self._giving.append(Giving(self._memory, names, component, receiver, attempt, manifest))

    def next(self) -> Piece:
        """Return the next piece."""
        return self._next(self._giving[0])

    def _next(self, giving: Giving) -> Piece:
        piece = giving.next()
        if giving.finished:
            self._giving.remove(giving)
        return piece

    def skip(self, piece: Piece) -> None:
        """Do not send what an earlier life of this process sent."""
        for giving in self._giving[:]:
            if (giving.receiver, giving.attempt) == (piece.receiver, piece.attempt):
                self._next(giving)

    def end(self, receiver: int | None = None) -> None:
        """Give no more to one receiver; None: to nobody."""
        for giving in self._giving[:]:
            if receiver in (None, giving.receiver):
                giving.end()
                self._giving.remove(giving)


class Assembly:
    """Pieces put together. Those of one giver come in order; any other is refused."""

    def __init__(self) -> None:
        self.objects: Final[dict[bytes, bytes]] = {}  # whole ones
        self.size = 0  # bytes of them
        self.finished = False
        self._serial = 0
        self._parts: list[bytes] = []
        self._name = MANIFEST
        self._size = 0

    def restart(self) -> None:
        """Forget what is not whole: what follows begins anew."""
        self._serial = 0
        self._parts, self._size = [], 0

    def take(self, piece: Piece) -> bool:
        """Add a piece; False: it is not the next one.

        Raises:
            DecodeError: damaged.
        """
        if piece.serial != self._serial + 1:
            return False
        self._serial = piece.serial
        self.finished = piece.last
        try:
            for name, position, total, data in unpack_state(piece.items):
                self._add(name, position, total, data)
        except (TypeError, ValueError) as error:
            raise DecodeError(f"piece of a state: {error}") from error
        return True

    def _add(self, name: bytes, position: int, total: int, data: bytes) -> None:
        if position == 0:
            self._name, self._parts, self._size = name, [], 0
        if name != self._name or position != self._size:
            raise DecodeError(f"piece of a state: {position} of {name!r} after {self._size}")
        self._parts.append(data)
        self._size += len(data)
        if self._size == total:
            self.objects[name] = b"".join(self._parts)
            self.size += total
            self._parts = []


class Receiving:
    """What one replica lacks and gets.

    Args:
        component: in force among those that have the state.
        holders: who they are.
        staged: objects that came before, with their digests.
    """

    def __init__(
        self, component: RoundId, holders: Iterable[int], staged: dict[bytes, tuple[bytes, bytes]]
    ) -> None:
        self.component: Final = component
        self.holders: Final = set(holders)
        self.attempt = 0  # names the last question; grows, also from life to life
        self.asked_times = 0
        self.giver: int | None = None  # None: the question is on its way
        self.last_ns = 0  # when the last piece came, or the question was sent
        self._avoid: set[int] = set()
        self._staged: Final = staged
        self._assembly = Assembly()
        self._manifest: dict[bytes, bytes] = {}
        self._waited = 0
        self._covered = 0
        self.head = b""

    def avoid(self) -> tuple[int, ...]:
        """Return who need not be asked: they gave nothing in time. Not everybody."""
        if self.giver is not None:
            self._avoid.add(self.giver)
        if self._avoid >= self.holders:
            self._avoid.clear()
        return tuple(sorted(self._avoid))

    def have(self, own: Mapping[bytes, bytes]) -> bytes:
        """Pack what need not be sent: our own objects' digests, and what came before."""
        staged = {name: digest for name, (digest, _) in self._staged.items()}
        return pack_state([list(item) for item in sorted((dict(own) | staged).items())])

    def asked(self, attempt: int, giver: int | None, waited: int = 0) -> None:
        """Our question has its place in the order: what comes is the state of this position.

        Args:
            attempt: of the question.
            giver: who will answer; None: the question is on its way.
            waited: entries that were deferred before this position.
        """
        self._waited = waited
        self.attempt = attempt
        self.giver = giver
        self._assembly = Assembly()
        self._manifest = {}

    def take(self, node: int, piece: Piece) -> bool:
        """Take a piece for us; True: it came from our giver, in order.

        Raises:
            DecodeError: damaged.
        """
        if node != self.giver or piece.attempt != self.attempt:
            return False
        if not self._assembly.take(piece):
            return False
        whole = self._assembly.objects
        manifest = whole.pop(MANIFEST, None)
        if manifest is not None:
            self.head, digests, held = unpack_state(manifest)
            self._covered = max(0, self._waited - held)
            self._manifest = {name: digest for name, digest in digests}  # noqa: C416 - pairs
        for name, data in whole.items():
            self._staged[name] = (self._manifest[name], data)
        whole.clear()
        return True

    def covered(self) -> int:
        """Return how many of the deferred entries are in the state that comes; tells it once."""
        covered, self._covered = self._covered, 0
        return covered

    @property
    def finished(self) -> bool:
        """True: everything has come."""
        return self._assembly.finished

    def load_into(self, memory: Memory) -> None:
        """Make a memory what the giver's was.

        Raises:
            DecodeError: damaged, or not what was promised.
        """
        own = memory.digests()
        changes: dict[bytes, bytes | None] = {n: None for n in own if n not in self._manifest}
        for name, digest in self._manifest.items():
            if own.get(name) == digest:
                continue
            came = self._staged.get(name)
            if came is None or came[0] != digest:
                raise DecodeError(f"state: object {name!r} did not come")
            changes[name] = came[1]
        memory.load(changes)
        if memory.digests() != self._manifest:
            raise DecodeError("state: what came has not the digests that were promised")


def manifest(head: bytes, digests: Mapping[bytes, bytes], held: int) -> bytes:
    """Pack the list of all objects, and how many entries the giver holds back itself."""
    return pack_state([head, [list(item) for item in sorted(digests.items())], held])


def missing(have: bytes, digests: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the names of the objects that a receiver lacks, sorted.

    Raises:
        DecodeError: what the receiver says is damaged.
    """
    try:
        known = {name: digest for name, digest in unpack_state(have)}  # noqa: C416 - pairs
    except (TypeError, ValueError) as error:
        raise DecodeError(f"need: {error}") from error
    return sorted(name for name, digest in digests.items() if known.get(name) != digest)
