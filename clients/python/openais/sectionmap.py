"""A checkpoint as a dict: an extension to the specification."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any, Final

from openais import errors
from openais.checkpoints import ATTEMPTS_MAX, SectionId, section_key

if TYPE_CHECKING:
    from openais.ckpt import Checkpoint

_MISSING: Final = object()


class _Items(ItemsView[Any, Any]):
    """All items of one state, as far as one answer holds them."""

    def __init__(self, sections: SectionMap) -> None:
        super().__init__(sections)
        self._sections: Final = sections

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._sections.checkpoint.items()


class _Values(ValuesView[Any]):
    def __init__(self, sections: SectionMap) -> None:
        super().__init__(sections)
        self._sections: Final = sections

    def __iter__(self) -> Iterator[bytes]:
        return (data for _, data in self._sections.checkpoint.items())


class SectionMap(MutableMapping[SectionId, bytes]):
    """Sections as a dict of ids to data, in creation order; keys may be given as text.

    Each operation is one step that all nodes see at one place in the order: also `setdefault`,
    `pop`, `popitem` and `change`, whoever else writes. `update` and `clear` are one step per key.

    Args:
        checkpoint: open to read and write.
        ttl_ns: what is set expires so long after it was set last; None: never.
    """

    def __init__(self, checkpoint: Checkpoint, ttl_ns: int | None = None) -> None:
        self.checkpoint: Final = checkpoint
        self._ttl_ns: Final = ttl_ns

    def __getitem__(self, key: SectionId) -> bytes:
        return self.checkpoint[key]

    def __setitem__(self, key: SectionId, data: bytes) -> None:
        self.checkpoint.put(key, data, ttl_ns=self._ttl_ns)

    def __delitem__(self, key: SectionId) -> None:
        del self.checkpoint[key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes | str) and key in self.checkpoint

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.checkpoint)

    def __len__(self) -> int:
        return len(self.checkpoint)

    def __repr__(self) -> str:
        return f"SectionMap({self.checkpoint!r})"

    def items(self) -> ItemsView[Any, Any]:
        """Return a view of all ids and data, read at once."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of all data, read at once."""
        return _Values(self)

    def setdefault(self, key: SectionId, default: bytes = b"") -> bytes:
        """Return a section's data; create it with the default if there is none."""
        return self.change(key, lambda data: default if data is None else data)

    def pop(self, key: SectionId, default: Any = _MISSING) -> Any:
        """Delete a section and return its data; the default, else KeyError, if there is none."""
        for _ in range(ATTEMPTS_MAX):
            try:
                data, version = self.checkpoint.read_version(key)
            except errors.NotExistError as error:
                if default is _MISSING:
                    raise KeyError(key) from error
                return default
            try:
                self.checkpoint.section_delete(key, expected=version)
            except errors.FailedOperationError:
                continue  # somebody was faster
            return data
        raise _busy("pop")

    def popitem(self) -> tuple[SectionId, bytes]:
        """Delete the section created last; return its id and data. KeyError: there is none."""
        for _ in range(ATTEMPTS_MAX):
            ids = list(self)
            if not ids:
                raise KeyError("there are no sections")
            data = self.pop(ids[-1], None)
            if data is not None:
                return ids[-1], data
        raise _busy("popitem")

    def clear(self) -> None:
        """Delete all sections that there are now."""
        for key in list(self):
            self.pop(key, None)

    def change(self, key: SectionId, function: Callable[[bytes | None], bytes]) -> bytes:
        """Replace a section's data by what a function makes of it; nothing comes between.

        Args:
            key: the section; created if there is none.
            function: gets the data, or None; called again when somebody else was faster.

        Returns:
            The data now.

        Raises:
            TryAgainError: somebody else was faster ATTEMPTS_MAX times.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                before, version = self.checkpoint.read_version(key)
            except errors.NotExistError:
                after = function(None)
                version = b""
            else:
                after = function(before)
                if after == before:
                    return after
            try:
                self.checkpoint.put(key, after, expected=version, ttl_ns=self._ttl_ns)
            except errors.FailedOperationError:
                continue
            return after
        raise _busy(f"change of {section_key('change', key)!r}")


def _busy(what: str) -> errors.TryAgainError:
    return errors.TryAgainError("ckpt.put", f"{what}: others were faster {ATTEMPTS_MAX} times")
