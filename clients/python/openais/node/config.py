"""Read the configuration of a node: the file, the environment, this machine.

The order of precedence: command line, then the sources (usually the file), then the environment,
then the preset and the default; which file is read is decided by the command line, then the
environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openais.node import paths, sources
from openais.node.assembly import (
    AMF_VARIABLE,
    AUTHKEY_VARIABLE,
    INLINE_KEY_VARIABLE,
    Assembler,
    Given,
)
from openais.node.binding import BoundSection, bind
from openais.node.exits import Exit
from openais.node.formats import BUILT_IN
from openais.node.machine import Machine, this_machine
from openais.node.model import (
    CkptConfig,
    ClmConfig,
    Identity,
    Interface,
    IpcConfig,
    LoggingConfig,
    NodeConfig,
    NodeEntry,
    QuorumConfig,
    ServiceMemoryConfig,
    ServicesConfig,
    Subsystem,
    SystemConfig,
    TotemConfig,
)
from openais.node.sources import ConfigError, Context, read_file
from openais.node.syntax import parse
from openais.node.tree import Problems, Section, TooManyProblemsError

__all__ = [
    "CkptConfig",
    "ClmConfig",
    "ConfigError",
    "Identity",
    "Interface",
    "IpcConfig",
    "Loaded",
    "LoggingConfig",
    "NodeConfig",
    "NodeEntry",
    "QuorumConfig",
    "ServiceMemoryConfig",
    "ServicesConfig",
    "Subsystem",
    "SystemConfig",
    "TotemConfig",
    "load",
    "load_with_origins",
]

CONFIG_VARIABLE: Final = "OPENAIS_MAIN_CONFIG_FILE"
DROP_IN_FOLDER: Final = "uidgid.d"  # beside the configuration file
DROP_IN_FILES_MAX: Final = 256
_PATH_VARIABLES: Final = (CONFIG_VARIABLE, AMF_VARIABLE, AUTHKEY_VARIABLE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and where each of its values comes from."""

    config: NodeConfig
    root: BoundSection


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    lenient: bool = False,
    testing: bool = False,
    key_file: Path | None = None,
    amf_file: Path | None = None,
    machine: Machine | None = None,
) -> NodeConfig:
    """Read, check and complete the configuration of this node.

    Args:
        path: the file; None: as the environment says, else /etc/ais/openais.conf.
        environ: the process environment.
        lenient: unknown directives are warnings.
        testing: nothing will be started, so what is dangerous to start may be read.
        key_file: of the command line.
        amf_file: of the command line.
        machine: facts of the machine; None: read them.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    return load_with_origins(
        path,
        environ,
        lenient=lenient,
        testing=testing,
        key_file=key_file,
        amf_file=amf_file,
        machine=machine,
    ).config


def load_with_origins(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    lenient: bool = False,
    testing: bool = False,
    key_file: Path | None = None,
    amf_file: Path | None = None,
    machine: Machine | None = None,
) -> Loaded:
    """Do what `load` does; return also every effective value with its origin.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    machine = this_machine() if machine is None else machine
    environ, warnings = _trusted(environ, machine)
    path = path or Path(environ.get(CONFIG_VARIABLE) or paths.MAIN_CONFIG_FILE)
    given = Given(path, environ, key_file, amf_file, testing)
    problems = Problems()
    problems.warnings.extend(warnings)
    tree = Section("", f"{path}:1")
    try:
        context = Context(
            path,
            amf_file or Path(environ.get(AMF_VARIABLE) or paths.AMF_CONFIG_FILE),
            key_file or Path(environ.get(AUTHKEY_VARIABLE) or paths.KEY_FILE),
            environ,
            testing,
            problems,
        )
        sources.run(environ.get(sources.VARIABLE) or sources.DEFAULT, BUILT_IN, tree, context)
        root = bind(tree, problems, lenient=lenient)
        root.sections += _drop_ins(path.parent / DROP_IN_FOLDER, problems)
        config = Assembler(root, machine, given, problems).assemble()
    except TooManyProblemsError:
        problems.errors.append("further errors are not shown")
        raise ConfigError(tuple(problems.errors), _status(problems)) from None
    if problems.errors:
        raise ConfigError(tuple(problems.errors), _status(problems))
    return Loaded(config, root)


def _status(problems: Problems) -> Exit:
    if Exit.MAIN_CONFIGURATION in problems.statuses:
        return Exit.MAIN_CONFIGURATION
    return min(problems.statuses)


def _trusted(environ: Mapping[str, str], machine: Machine) -> tuple[dict[str, str], list[str]]:
    """Return what may be used of the environment, and warnings."""
    if machine.elevated:
        ignored = [
            name
            for name in (*_PATH_VARIABLES, sources.VARIABLE, INLINE_KEY_VARIABLE)
            if environ.get(name)
        ]
        return {}, [
            f"environment variable {name} ignored: the process runs with elevated privileges"
            for name in ignored
        ]
    errors = tuple(
        f'environment variable {name}: expected an absolute path, got "{environ[name]}"'
        for name in _PATH_VARIABLES
        if environ.get(name) and not environ[name].startswith("/")
    )
    if errors:
        raise ConfigError(errors, Exit.USAGE)
    return dict(environ), []


def _drop_ins(folder: Path, problems: Problems) -> list[BoundSection]:
    """Read the identities of ``uidgid.d``; each file holds exactly one section ``uidgid``."""
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    found: list[BoundSection] = []
    for file in files[:DROP_IN_FILES_MAX]:
        found.extend(_drop_in(file, problems))
    if len(files) > DROP_IN_FILES_MAX:
        problems.error(str(folder), f"holds over {DROP_IN_FILES_MAX} files")
    return found


def _drop_in(file: Path, problems: Problems) -> list[BoundSection]:
    tree = Section("", f"{file}:1")
    before = len(problems.errors)
    parse(read_file(file), str(file), problems, tree)
    root = bind(tree, problems, lenient=False)
    names = [section.name for section in tree.sections]
    if len(problems.errors) == before and (tree.directives or names != ["uidgid"]):
        problems.error(f"{file}:1", "expected exactly one section uidgid")
    return root.all("uidgid")
