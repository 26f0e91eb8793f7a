"""Where versions of checkpoints go that a merge discards: a file each, in ``ckpt.conflict_dir``."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from openais.node.logs import EventLog
from openais.node.paths import make_directory
from services.ckpt import objects
from services.ckpt.checkpoint import Checkpoint
from services.kit.effects import Discarded

FILES_MAX: Final = 10_000  # of one life of the process; what is discarded after that is only logged
FILE_MODE: Final = 0o600  # it holds what applications wrote
DIRECTORY_MODE: Final = 0o700

_NAME_SIZE_MAX: Final = 100  # characters of the checkpoint's name in that of the file

_LOG = EventLog(__name__)


class Conflicts:
    """Keeps what is discarded.

    Args:
        directory: made if it is missing; None: nothing is kept.

    Raises:
        ExitError: status 16, the directory cannot be used.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory: Final = directory
        self._written = 0
        if directory is not None:
            make_directory(directory, DIRECTORY_MODE)

    def discard(self, version: Discarded) -> dict[str, str]:
        """Keep a version; return what the log says of it."""
        c = objects.load(b"".join(version.parts))
        said: dict[str, str] = {"name": c.name.decode(errors="replace"), "uid": c.uid.hex()}
        if self._directory is None:
            return said
        if self._written >= FILES_MAX:
            return said | {"file": f"none: {FILES_MAX} were written"}
        self._written += 1
        quoted = urllib.parse.quote(c.name, safe="")[:_NAME_SIZE_MAX]
        path = self._directory / f"{quoted}.{c.uid.hex()}.{version.counter}.jsonl"
        try:
            _write(path, c)
        except OSError as error:
            _LOG.error("conflict_not_kept", path=str(path), reason=error.strerror or str(error))
            return said
        return said | {"file": str(path)}


def _write(path: Path, c: Checkpoint) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.writelines(_lines(c))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _lines(c: Checkpoint) -> Iterator[str]:
    """Yield the sections as ``openais ckpt dump`` shows them."""
    for section_id, section in c.sections.items():
        line = {
            "id": base64.b64encode(section_id).decode(),
            "text_id": section_id.decode(errors="replace"),
            "expiration_time": section.expiration_ns,
            "last_update": section.last_update_ns,
            "data": base64.b64encode(section.data).decode(),
        }
        yield json.dumps(line) + "\n"
