"""Everything that replicas share, as one set of objects: the machine's, the sessions, the head.

Keeps the digest of each object and of the whole, and computes again only what was touched. The
digest of the whole is the sum of what the objects contribute, so that it costs nothing to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from openais.wire.codec import Buffer, DecodeError
from services.kit.machine import Machine
from services.kit.sessions import Sessions

DIGEST_SIZE: Final = 16  # bytes of the digest of an object
ROOT_SIZE: Final = 32  # bytes of the digest of the whole
HEAD: Final = b"h"  # the object of the replica itself
MACHINE: Final = b"m"  # before the names of the machine's objects

_SESSION: Final = b"s"
_PART_SIZE_MIN: Final = 4096  # bytes; the digests of larger parts are kept
_ROOT: Final = 1 << 8 * ROOT_SIZE


class Memory:
    """See the module.

    Args:
        machine: of the service.
        sessions: of the service.
        head: makes the bytes of the object `HEAD`, which is small and hashed each time.
    """

    def __init__(self, machine: Machine, sessions: Sessions, head: Callable[[], bytes]) -> None:
        self._machine: Final = machine
        self._sessions: Final = sessions
        self._head: Final = head
        self._digests: Final[dict[bytes, bytes]] = {}
        self._parts: Final[dict[bytes, dict[bytes, bytes]]] = {}
        self._sum = 0
        self._scrubbed = b""
        self.hashed_bytes = 0
        self.hashed_parts = 0

    # Objects

    def dump(self, name: bytes) -> list[bytes]:
        """Return an object in parts; []: there is none."""
        kind, own = name[:1], name[1:]
        if kind == MACHINE:
            return self._machine.dump(own)
        if kind == _SESSION:
            return self._sessions.dump(own)
        return [self._head()]

    def names(self) -> list[bytes]:
        """Return the names of all objects but the head, sorted."""
        return sorted(
            [MACHINE + n for n in self._machine.names()]
            + [_SESSION + n for n in self._sessions.names()]
        )

    def load(self, changes: Mapping[bytes, Buffer | None]) -> None:
        """Replace objects of the machine and sessions.

        Raises:
            DecodeError: damaged.
        """
        if any(name[:1] not in (MACHINE, _SESSION) for name in changes):
            raise DecodeError("state: an object of unknown kind")
        of_machine = {n[1:]: d for n, d in changes.items() if n[:1] == MACHINE}
        if of_machine:
            self._machine.load(of_machine)
        self._sessions.load({n[1:]: d for n, d in changes.items() if n[:1] == _SESSION})

    def keep(self, keeper: Callable[[bytes], None]) -> Callable[[], None]:
        """Call a function before an object changes; return what ends that."""

        def of_machine(name: bytes) -> None:
            keeper(MACHINE + name)

        def of_session(name: bytes) -> None:
            keeper(_SESSION + name)

        self._machine.objects.keepers.append(of_machine)
        self._sessions.objects.keepers.append(of_session)

        def end() -> None:
            self._machine.objects.keepers.remove(of_machine)
            self._sessions.objects.keepers.remove(of_session)

        return end

    # Digests

    def digests(self) -> dict[bytes, bytes]:
        """Return the digest of each object but the head. Not to be changed."""
        self._refresh()
        return self._digests

    def root(self) -> bytes:
        """Return the digest of everything."""
        self._refresh()
        total = (self._sum + _share(HEAD, _blake(self._head()))) % _ROOT
        return total.to_bytes(ROOT_SIZE, "big")

    @property
    def changed(self) -> bool:
        """True: an object was touched since the digests were last computed."""
        return bool(self._machine.objects.changed or self._sessions.objects.changed)

    def _refresh(self) -> None:
        for kind, objects in (
            (MACHINE, self._machine.objects),
            (_SESSION, self._sessions.objects),
        ):
            for name in objects.changed:
                self._update(kind + name)
            objects.changed.clear()

    def _update(self, name: bytes) -> bool:
        """Compute the digest of one object; True: it is another."""
        old = self._digests.get(name)
        parts = self.dump(name)
        new = self._hash(name, parts) if parts else None
        if new == old:
            return False
        if old is not None:
            self._sum -= _share(name, old)
            del self._digests[name]
        if new is not None:
            self._sum += _share(name, new)
            self._digests[name] = new
        else:
            self._parts.pop(name, None)
        self._sum %= _ROOT
        return True

    def _hash(self, name: bytes, parts: Iterable[bytes]) -> bytes:
        known = self._parts.get(name, {})
        kept: dict[bytes, bytes] = {}
        whole = hashlib.blake2b(digest_size=DIGEST_SIZE)
        for part in parts:
            self.hashed_parts += 1
            if len(part) < _PART_SIZE_MIN:
                whole.update(part)
                self.hashed_bytes += len(part)
                continue
            digest = known.get(part)
            if digest is None:
                digest = _blake(part)
                self.hashed_bytes += len(part)
            kept[part] = digest
            whole.update(digest)
        if kept:
            self._parts[name] = kept
        else:
            self._parts.pop(name, None)
        return whole.digest()

    def scrub(self, bytes_max: int) -> bool:
        """Hash some objects anew that were not touched; True: one had changed all the same."""
        self._refresh()
        names = sorted(self._digests)
        after = [n for n in names if n > self._scrubbed]
        differs = False
        for name in after or names:
            self._scrubbed = name
            self._parts.pop(name, None)
            before = self.hashed_bytes
            differs |= self._update(name)
            bytes_max -= self.hashed_bytes - before + 64
            if bytes_max <= 0:
                break
        return differs


def _blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def _share(name: bytes, digest: bytes) -> int:
    mixed = hashlib.blake2b(digest + name, digest_size=ROOT_SIZE)
    return int.from_bytes(mixed.digest(), "big")
