"""Log records of daemons: one line per fact, ``event key=value ...``, to where the file says.

Every record has the same shape: a name of the event and fields. The keys are the same everywhere:
node ring view group session op. Secrets are never given to a logger.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import logging.handlers
import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from openais.node.exits import Exit, ExitError
from openais.node.model import LoggingConfig

Field: TypeAlias = int | str | bytes | Path | tuple[int, ...] | None

TRACE: Final = 5  # below DEBUG: everything
SYSLOG_SOCKET: Final = Path("/dev/log")
LOGFILE_MODE: Final = 0o640
FIELD_SIZE_MAX: Final = 1024  # characters of one value; the rest is cut

BLACKBOX_SIZE_MAX: Final = 1 << 20  # characters
BLACKBOX_FILES_MAX: Final = 8  # of one program
BLACKBOX_DIRECTORY_MODE: Final = 0o700

PROGRAM_SUBSYSTEMS: Final = {"totemd": "TOTEM"}  # of others: the program's name
MODULE_SUBSYSTEMS: Final = {  # modules that do something else than their program
    "openais.node.ipc": "IPC",
    "openais.node.program": "CFG",
    "totemd.port": "CPG",
}

_handlers: Final[list[tuple[logging.Logger, logging.Handler]]] = []  # that `configure` added
_LEVELS: Final = {
    "emerg": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "crit": logging.CRITICAL,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_DEBUG_LEVELS: Final = {"off": logging.INFO, "on": logging.DEBUG, "trace": TRACE}
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:/+-@%")

logging.addLevelName(TRACE, "TRACE")


class EventLog:
    """Logs events with fields; the logger of one module.

    Args:
        name: shown by JSON records, the module's ``__name__``.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def enabled(self, level: int) -> bool:
        """Tell whether a record of a level would be written; for what costs to compute."""
        return self._logger.isEnabledFor(level)

    def error(self, event: str, **fields: Field) -> None:
        """Log what an operator must act on."""
        self._log(logging.ERROR, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        """Log what an operator should know."""
        self._log(logging.WARNING, event, fields)

    def info(self, event: str, **fields: Field) -> None:
        """Log what one wants to read at three in the morning; never once per message."""
        self._log(logging.INFO, event, fields)

    def debug(self, event: str, **fields: Field) -> None:
        """Log messages."""
        self._log(logging.DEBUG, event, fields)

    def trace(self, event: str, **fields: Field) -> None:
        """Log everything."""
        self._log(TRACE, event, fields)

    def _log(self, level: int, event: str, fields: Mapping[str, Field]) -> None:
        if self._logger.isEnabledFor(level):
            extra = {"event": event, "fields": fields}
            # The record names the caller of info() and the like, two frames above.
            self._logger.log(level, "%s", event_text(event, fields), extra=extra, stacklevel=3)


def event_text(event: str, fields: Mapping[str, Field]) -> str:
    """Write an event as ``event key=value ...``; values with blanks or quotes are quoted."""
    return " ".join([event, *(f"{key}={_quoted(_plain(value))}" for key, value in fields.items())])


def _plain(value: Field) -> str:
    if isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    elif isinstance(value, tuple):
        text = ",".join(map(str, value))
    else:
        text = str(value)
    return text if len(text) <= FIELD_SIZE_MAX else f"{text[:FIELD_SIZE_MAX]}..."


def _quoted(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)


class _TextFormatter(logging.Formatter):
    """``TIME PROGRAM[PID] LEVEL FILE:LINE FUNCTION() event key=value``, as far as configured."""

    def __init__(self, program: str, config: LoggingConfig) -> None:
        super().__init__()
        self._head = f"{program}[{os.getpid()}]"
        self._config = config

    def format(self, record: logging.LogRecord) -> str:
        config = self._config
        parts = [
            _time_text(record.created, config.timestamp),
            self._head,
            record.levelname,
            *_source(record, config),
            _one_line(self._message(record)),
        ]
        return " ".join(part for part in parts if part)

    def _message(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            return f"{record.getMessage()} {self.formatException(record.exc_info)}"
        return record.getMessage()


class _SyslogFormatter(logging.Formatter):
    """``PROGRAM[PID]: event key=value``; syslog has the time and the level."""

    def __init__(self, program: str, config: LoggingConfig) -> None:
        super().__init__()
        self._head = f"{program}[{os.getpid()}]:"
        self._config = config

    def format(self, record: logging.LogRecord) -> str:
        text = _one_line(super().format(record))
        return " ".join([self._head, *_source(record, self._config), text])


def _source(record: logging.LogRecord, config: LoggingConfig) -> list[str]:
    parts = [f"{record.filename}:{record.lineno}"] if config.fileline else []
    return [*parts, f"{record.funcName}()"] if config.function_name else parts


class _JsonFormatter(logging.Formatter):
    def __init__(self, program: str, config: LoggingConfig) -> None:
        super().__init__()
        self._program = program
        self._config = config

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Field] = getattr(record, "fields", {})
        line: dict[str, str | int] = {
            "time": _time_text(record.created, "hires"),
            "level": record.levelname.lower(),
            "program": self._program,
            "pid": os.getpid(),
            "module": record.name,
            "event": getattr(record, "event", record.getMessage()),
        }
        if self._config.fileline:
            line |= {"file": record.filename, "line": record.lineno}
        if self._config.function_name:
            line["function"] = record.funcName or ""
        for key, value in fields.items():
            line[key] = value if isinstance(value, int) else _plain(value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _time_text(seconds: float, timestamp: str) -> str:
    if timestamp == "off":
        return ""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    return f"{whole}.{int(seconds * 1_000_000) % 1_000_000:06}" if timestamp == "hires" else whole


class _Blackbox(logging.Handler):
    """Keeps the last records, as text, within BLACKBOX_SIZE_MAX."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: Final[deque[str]] = deque()
        self._size = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self.lines.append(line)
        self._size += len(line)
        while self._size > BLACKBOX_SIZE_MAX:
            self._size -= len(self.lines.popleft())


def configure(config: LoggingConfig, program: str) -> None:
    """Send the log records of this process where the configuration says; replaces what was.

    A record belongs to the subsystem of its module, else to that of the program.

    Raises:
        ExitError: status 7, the log file cannot be written.
    """
    _forget()
    box = _Blackbox() if config.blackbox else None
    own = {subsystem.name: subsystem.logging for subsystem in config.subsystems}
    program_name = PROGRAM_SUBSYSTEMS.get(program, program.upper())
    _set_up(logging.getLogger(), own.get(program_name, config), program, box)
    for module, name in MODULE_SUBSYSTEMS.items():
        if name in own or program_name in own:
            logger = logging.getLogger(module)
            logger.propagate = False
            _set_up(logger, own.get(name, config), program, box)


def _forget() -> None:
    while _handlers:
        logger, old = _handlers.pop()
        logger.removeHandler(old)
        old.close()
    for module in MODULE_SUBSYSTEMS:
        logger = logging.getLogger(module)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _set_up(
    logger: logging.Logger, config: LoggingConfig, program: str, box: _Blackbox | None
) -> None:
    logger.setLevel(_DEBUG_LEVELS[config.debug])
    form = _JsonFormatter if config.format == "json" else _TextFormatter
    own = form(program, config)
    if config.to_stderr:
        _add(logger, logging.StreamHandler(sys.stderr), own, logging.NOTSET)
    if config.to_logfile:
        assert config.logfile is not None, "checked when the configuration was read"
        level = _priority(config, config.logfile_priority)
        _add(logger, _file_handler(config.logfile), own, level)
    if config.to_syslog and SYSLOG_SOCKET.exists():
        level = _priority(config, config.syslog_priority)
        _add(logger, _syslog_handler(config), _SyslogFormatter(program, config), level)
    if box is not None:
        detailed = dataclasses.replace(config, timestamp="hires", fileline=True)
        _add(logger, box, _TextFormatter(program, detailed), logging.NOTSET)


def dump_blackbox(directory: Path, program: str, why: str) -> Path | None:
    """Write the last records to a new file; of earlier ones the newest stay.

    Args:
        directory: made where it is missing.
        program: part of the file's name.
        why: written last.

    Returns:
        The file; None where there is no black box.

    Raises:
        OSError: as the system says.
    """
    boxes = [handler for _, handler in _handlers if isinstance(handler, _Blackbox)]
    if not boxes:
        return None
    directory.mkdir(mode=BLACKBOX_DIRECTORY_MODE, parents=True, exist_ok=True)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = directory / f"{program}-{name}-{os.getpid()}.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, LOGFILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{line}\n" for line in [*boxes[0].lines, why])
    for old in sorted(directory.glob(f"{program}-*.log"))[:-BLACKBOX_FILES_MAX]:
        old.unlink(missing_ok=True)
    return path


def _priority(config: LoggingConfig, word: str) -> int:
    # Whoever switches debugging on wants to read it, whatever the priority says.
    return logging.NOTSET if config.debug != "off" else _LEVELS[word]


def _add(
    logger: logging.Logger, handler: logging.Handler, formatter: logging.Formatter, level: int
) -> None:
    handler.setFormatter(formatter)
    handler.setLevel(level)
    logger.addHandler(handler)
    _handlers.append((logger, handler))


def _file_handler(path: Path) -> logging.Handler:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, LOGFILE_MODE)
        os.close(descriptor)
        return logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ExitError(Exit.LOGGING_CONFIGURATION, f"log file {path}: {error.strerror}") from error


class _SyslogHandler(logging.handlers.SysLogHandler):
    def mapPriority(self, levelName: str) -> str:  # noqa: N802, N803 - the base class's names
        return "debug" if levelName == "TRACE" else super().mapPriority(levelName)


def _syslog_handler(config: LoggingConfig) -> logging.Handler:
    facility = _SyslogHandler.facility_names[config.syslog_facility]
    try:
        return _SyslogHandler(str(SYSLOG_SOCKET), facility)
    except OSError as error:
        raise ExitError(Exit.LOG_SETUP, f"syslog {SYSLOG_SOCKET}: {error.strerror}") from error
