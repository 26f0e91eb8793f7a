"""What a start would find wrong, found without starting: opens no socket and makes no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from openais.node.config import ConfigError, NodeConfig, load
from openais.node.exits import Exit, ExitError
from openais.node.machine import Machine, this_machine
from openais.node.network import own_address

Check: TypeAlias = Callable[[NodeConfig], None]  # raises ExitError


@dataclass(frozen=True, slots=True)
class Report:
    """What a start would say; ``status`` is the one it would end with."""

    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    status: Exit
    path: Path | None  # of the configuration, where it could be read


def check(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    more: tuple[Check, ...] = (),
    lenient: bool = False,
    key_file: Path | None = None,
    amf_file: Path | None = None,
    machine: Machine | None = None,
) -> Report:
    """Read a configuration and check what it names on this machine.

    Args:
        path: as in `openais.node.config.load`, like the others.
        environ: the process environment.
        more: what else the program would check at its start, in its order.
        lenient: unknown directives are warnings.
        key_file: of the command line.
        amf_file: of the command line.
        machine: facts of the machine; None: read them.
    """
    machine = this_machine() if machine is None else machine
    try:
        config = load(
            path,
            environ,
            lenient=lenient,
            testing=True,
            key_file=key_file,
            amf_file=amf_file,
            machine=machine,
        )
    except ConfigError as error:
        return Report((), error.errors, error.exit_status, None)
    found: list[ExitError] = []
    checks = (_check_logs, _check_directories, *more, _address_check(machine))
    for one in checks:
        try:
            one(config)
        except ExitError as error:
            found.append(error)
    status = found[0].status if found else Exit.OK
    return Report(config.warnings, tuple(error.reason for error in found), status, config.path)


def _check_logs(config: NodeConfig) -> None:
    logging = config.logging
    wanted = [logging, *(subsystem.logging for subsystem in logging.subsystems)]
    for file in {log.logfile: None for log in wanted if log.to_logfile}:
        if file is not None and (rule := _unwritable_file(file)):
            raise ExitError(Exit.LOGGING_CONFIGURATION, f"log file {file}: {rule}")


def _unwritable_file(file: Path) -> str:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return _unusable_directory(file.parent)
    except OSError as error:
        return error.strerror or str(error)
    if stat.S_ISDIR(mode):
        return "Is a directory"
    return "" if os.access(file, os.W_OK) else "Permission denied"


def _unusable_directory(directory: Path) -> str:
    try:
        mode = directory.stat().st_mode
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(mode):
        return "Not a directory"
    return "" if os.access(directory, os.W_OK | os.X_OK) else "not writable"


def _check_directories(config: NodeConfig) -> None:
    for directory in (config.system.run_dir, config.system.state_dir):
        # What is missing is made at the start, if that can be done.
        present = next(path for path in (directory, *directory.parents) if _exists(path))
        rule = _unusable_directory(present)
        if rule:
            where = "" if present == directory else f"{present}: "
            raise ExitError(Exit.DIRECTORY, f"directory {directory}: {where}{rule}")


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # what is wrong with it is said where it is used
    return True


def _address_check(machine: Machine) -> Check:
    def check_addresses(config: NodeConfig) -> None:
        if config.totem.wait_for_interface:
            return  # a warning of the configuration already
        for interface in config.interfaces:
            if own_address(interface.bind_address, machine.addresses) is None:
                raise ExitError(
                    Exit.NETWORK,
                    f"network {interface.ring_number}: no interface has {interface.bind_address}",
                )

    return check_addresses
