"""The administrative states on disk: a locked node stays locked over a restart of everything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from openais.node.logs import EventLog
from openais.node.paths import STATE_DIR_MODE, make_directory
from openais.wire.clm import AdminRecord
from openais.wire.codec import DecodeError
from services.clm.snapshot import RECORDS, AdminRecords

FILE: Final = "administration"  # in the service's state directory

_LOG = EventLog(__name__)


class AdminFile:
    """The file with what administrators did.

    Args:
        directory: of the service's state.

    Raises:
        ExitError: status 16, the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        make_directory(directory, STATE_DIR_MODE)
        self._path: Final = directory / FILE
        self.records: Final = self._read()
        self._written: tuple[AdminRecord, ...] = self.records

    def _read(self) -> tuple[AdminRecord, ...]:
        try:
            message: AdminRecords = RECORDS.decode(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, DecodeError) as error:
            _LOG.error("administration_unusable", path=str(self._path), rule=str(error))
            return ()
        return message.records

    def write(self, records: tuple[AdminRecord, ...]) -> None:
        """Make records durable, if they changed; where the disk refuses, the log says why."""
        if records == self._written:
            return
        self._written = records
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                file.write(RECORDS.encode(AdminRecords(records)))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
        except OSError as error:
            reason = error.strerror or str(error)
            _LOG.error("administration_unwritten", path=str(self._path), reason=reason)
