"""Runs the sources of a configuration, in order, over one tree.

A source is an object with ``read_config(tree, context)``. The list of sources is the environment's
OPENAIS_DEFAULT_CONFIG_IFACE: names separated by colons, each a built-in source, an entry point of
the group ``openais.config`` or ``package.module/attribute``. What a later source says replaces what
an earlier one said; names and values are checked once, after the last.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from openais.node.exits import Exit, ExitError
from openais.node.tree import FILE_SIZE_MAX, Problems, Section, TooManyProblemsError

VARIABLE: Final = "OPENAIS_DEFAULT_CONFIG_IFACE"
DEFAULT: Final = "aisparser"
ENTRY_POINTS: Final = "openais.config"
SOURCES_MAX: Final = 16


class ConfigError(ExitError):
    """The configuration cannot be used; ``errors`` are complete lines for the operator."""

    def __init__(self, errors: tuple[str, ...], exit_status: Exit, reason: str = "") -> None:
        count = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
        super().__init__(exit_status, reason or f"{count} in the configuration", errors)
        self.errors = errors
        self.exit_status = exit_status


@dataclass(frozen=True, slots=True)
class Context:
    """What a source may know, and where it says what is wrong.

    Attributes:
        main_file: openais.conf, as the command line, the environment or the default says.
        amf_file: amf.conf likewise.
        key_file: the key file that counts unless the configuration names another.
        environ: a copy of the environment; empty where it is not to be trusted.
        test_mode: nothing will be started.
    """

    main_file: Path
    amf_file: Path
    key_file: Path
    environ: Mapping[str, str]
    test_mode: bool
    problems: Problems

    def error(self, origin: str, text: str) -> None:
        """Report an error; the configuration will not be used (status 8).

        Raises:
            TooManyProblemsError: enough were reported; let it pass.
        """
        self.problems.error(origin, text)

    def warn(self, origin: str, text: str) -> None:
        """Report a warning."""
        self.problems.warning(origin, text)


class Source(Protocol):
    """A source of configuration."""

    def read_config(self, tree: Section, context: Context) -> None:
        """Add what this source knows to the tree."""


def run(
    names: str, built_in: Mapping[str, Callable[[], Source]], tree: Section, context: Context
) -> None:
    """Let the sources fill a tree.

    Args:
        names: the list, separated by colons.
        built_in: sources that come with openais.
        tree: may be empty.
        context: for the sources.

    Raises:
        ConfigError: status 24, a source cannot be had or failed.
        TooManyProblemsError: see `Problems.error`.
    """
    wanted = names.split(":")
    if len(wanted) > SOURCES_MAX:
        raise _failure(names, f"{len(wanted)} sources, at most {SOURCES_MAX}")
    for number, name in enumerate(wanted, start=1):
        if name in built_in:
            built_in[name]().read_config(tree, context)
            tree.stamp(number, name)
        else:
            _run_plug_in(name, number, tree, context)


def _run_plug_in(name: str, number: int, tree: Section, context: Context) -> None:
    try:
        with _isolated_path():
            _loaded(name).read_config(tree, context)
        tree.stamp(number, f"plugin:{name}")
    except (ConfigError, TooManyProblemsError):
        raise
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its failure
        lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
        raise _failure(name, f"{type(error).__name__}: {error}", tuple(lines)) from error


def _loaded(name: str) -> Source:
    module, slash, attribute = name.partition("/")
    if slash:
        found = getattr(importlib.import_module(module), attribute)
    else:
        # Seldom needed, and a sixth of the start of a daemon.
        metadata = importlib.import_module("importlib.metadata")
        points = metadata.entry_points(group=ENTRY_POINTS, name=name)
        if not points:
            raise _failure(name, f"no such source, and no entry point in group {ENTRY_POINTS}")
        found = next(iter(points)).load()
    source: Source = found() if isinstance(found, type) else found
    if not callable(getattr(source, "read_config", None)):
        raise _failure(name, "has no method read_config(tree, context)")
    return source


def _failure(name: str, rule: str, lines: tuple[str, ...] = ()) -> ConfigError:
    reason = f'configuration source "{name}": {rule}'
    return ConfigError(lines or (reason,), Exit.CONFIGURATION_SOURCE, reason)


@contextlib.contextmanager
def _isolated_path() -> Iterator[None]:
    """Take the current directory off the module path: who writes there must not run code here."""
    before = list(sys.path)
    sys.path[:] = [entry for entry in before if not _is_here(entry)]
    try:
        yield
    finally:
        sys.path[:] = before


def _is_here(entry: str) -> bool:
    path = Path(entry)
    try:
        return not path.is_absolute() or path.samefile(Path.cwd())
    except OSError:
        return False  # one of the two is gone: nothing can be imported from it


def read_file(path: Path) -> bytes:
    """Return a file of the configuration.

    Raises:
        ConfigError: status 8, it cannot be read or is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        rule = error.strerror or str(error)
    else:
        if len(data) <= FILE_SIZE_MAX:
            return data
        rule = f"longer than {FILE_SIZE_MAX} bytes"
    raise ConfigError((f"configuration file {path}: {rule}",), Exit.MAIN_CONFIGURATION)
