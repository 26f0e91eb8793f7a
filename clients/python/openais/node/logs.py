"""Log records of daemons: one line per fact, ``event key=value ...``, to where the file says.

Every record has the same shape: a name of the event and fields. The keys are the same everywhere:
node ring view group session op. Secrets are never given to a logger.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import time
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

_handlers: Final[list[logging.Handler]] = []  # those that `configure` added to the root logger
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
            self._logger.log(level, "%s", event_text(event, fields), extra=extra)


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
    """``TIME PROGRAM[PID] LEVEL event key=value``; without the first parts for syslog."""

    def __init__(self, program: str, timestamp: str) -> None:
        super().__init__()
        self._head = f"{program}[{os.getpid()}]"
        self._timestamp = timestamp

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self._head} {record.levelname} {_one_line(self._message(record))}"
        time_text = _time_text(record.created, self._timestamp)
        return f"{time_text} {head}" if time_text else head

    def _message(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            return f"{record.getMessage()} {self.formatException(record.exc_info)}"
        return record.getMessage()


class _SyslogFormatter(logging.Formatter):
    def __init__(self, program: str) -> None:
        super().__init__()
        self._head = f"{program}[{os.getpid()}]: "

    def format(self, record: logging.LogRecord) -> str:
        return self._head + _one_line(super().format(record))


class _JsonFormatter(logging.Formatter):
    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

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


def configure(config: LoggingConfig, program: str) -> None:
    """Send the log records of this process where the configuration says; replaces what was.

    Raises:
        ExitError: status 7, the log file cannot be written.
    """
    root = logging.getLogger()
    while _handlers:
        old = _handlers.pop()
        root.removeHandler(old)
        old.close()
    root.setLevel(_level(config, program))
    text = _TextFormatter(program, config.timestamp)
    own = _JsonFormatter(program) if config.format == "json" else text
    if config.to_stderr:
        _add(root, logging.StreamHandler(sys.stderr), own, logging.NOTSET)
    if config.to_logfile:
        assert config.logfile is not None, "checked when the configuration was read"
        _add(root, _file_handler(config.logfile), own, _priority(config, config.logfile_priority))
    if config.to_syslog and SYSLOG_SOCKET.exists():
        level = _priority(config, config.syslog_priority)
        _add(root, _syslog_handler(config), _SyslogFormatter(program), level)


def check_logfile(config: LoggingConfig) -> None:
    """Check that the log file can be written.

    Raises:
        ExitError: status 7.
    """
    if config.to_logfile and config.logfile is not None:
        _file_handler(config.logfile).close()


def _level(config: LoggingConfig, program: str) -> int:
    name = "TOTEM" if program == "totemd" else program.upper()
    for subsystem in config.subsystems:
        if subsystem.name == name:
            return _DEBUG_LEVELS[subsystem.debug]
    return _DEBUG_LEVELS[config.debug]


def _priority(config: LoggingConfig, word: str) -> int:
    # Whoever switches debugging on wants to read it, whatever the priority says.
    return logging.NOTSET if config.debug != "off" else _LEVELS[word]


def _add(
    root: logging.Logger, handler: logging.Handler, formatter: logging.Formatter, level: int
) -> None:
    handler.setFormatter(formatter)
    handler.setLevel(level)
    root.addHandler(handler)
    _handlers.append(handler)


def _file_handler(path: Path) -> logging.Handler:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, LOGFILE_MODE)
        os.close(descriptor)
        return logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ExitError(Exit.LOGGING_CONFIGURATION, f"log file {path}: {error.strerror}") from error


def _syslog_handler(config: LoggingConfig) -> logging.Handler:
    try:
        return logging.handlers.SysLogHandler(
            str(SYSLOG_SOCKET),
            logging.handlers.SysLogHandler.facility_names[config.syslog_facility],
        )
    except OSError as error:
        raise ExitError(Exit.LOG_SETUP, f"syslog {SYSLOG_SOCKET}: {error.strerror}") from error
