"""What the main of every daemon does before its own work: options, configuration, log, lock."""

from __future__ import annotations

import argparse
import faulthandler
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openais import __version__
from openais.node import checking, paths
from openais.node.config import NodeConfig, load
from openais.node.exits import NOT_RESTARTED, Exit, ExitError, guard, last_line
from openais.node.lock import InstanceLock
from openais.node.logs import EventLog, configure, dump_blackbox

RESTART_PAUSE_S: Final = 1.0
BLACKBOX_FOLDER: Final = "blackbox"  # in the state directory

_LOG = EventLog(__name__)


def main(
    program: str, body: Callable[[NodeConfig], None], checks: tuple[checking.Check, ...] = ()
) -> int:
    """Run a daemon in the foreground; return its exit status.

    The order: options, configuration, logging, directories, instance lock, then ``body``.

    Args:
        program: its name.
        body: its work, until it is told to stop.
        checks: what ``body`` checks first, for option ``-t``.
    """
    options = _parser(program).parse_args()
    if options.test:
        return test(_checked(options, checks))
    status = guard(lambda: _run(program, body, options))
    if status and status not in NOT_RESTARTED:
        time.sleep(RESTART_PAUSE_S)  # supervisord starts us again at once
    return status


def test(report: checking.Report) -> int:
    """Print what a start would find wrong; return the exit status it would have."""
    for line in (*report.warnings, *report.problems):
        sys.stdout.write(f"{line}\n")
    if report.status is Exit.OK:
        sys.stdout.write(f"{report.path}: good\n")
    else:
        count = len(report.problems)
        reason = f"{count} problems" if count > 1 else "1 problem"
        sys.stdout.flush()
        sys.stderr.write(f"{last_line(report.status, reason)}\n")
    return int(report.status)


def _checked(options: argparse.Namespace, checks: tuple[checking.Check, ...]) -> checking.Report:
    return checking.check(
        options.config,
        os.environ,
        more=checks,
        lenient=options.lenient,
        key_file=options.key_file,
        amf_file=options.amf_file,
    )


def _run(program: str, body: Callable[[NodeConfig], None], options: argparse.Namespace) -> None:
    faulthandler.enable()  # a crash of the interpreter itself: say where, on standard error
    config = load(
        options.config,
        os.environ,
        lenient=options.lenient,
        key_file=options.key_file,
        amf_file=options.amf_file,
    )
    configure(config.logging, program)
    for warning in config.warnings:
        _LOG.warning("configuration", rule=warning)
    if config.logging.debug == "off":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold keys
    paths.make_node_directories(config.system.run_dir, config.system.state_dir)
    lock = InstanceLock(config.system.run_dir, program)
    try:
        body(config)
    except Exception as error:
        if not isinstance(error, ExitError) or error.status is Exit.FATAL:
            _dump(config.system.state_dir / BLACKBOX_FOLDER, program, error)
        raise
    finally:
        lock.release()


def _dump(directory: Path, program: str, error: Exception) -> None:
    why = "".join(traceback.format_exception(error)).rstrip()
    try:
        path = dump_blackbox(directory, program, why)
    except OSError as failure:
        _LOG.error("blackbox_failed", path=directory, reason=failure.strerror or str(failure))
        return
    if path is not None:
        _LOG.error("blackbox_written", path=path)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=f"openais: {program}")
    parser.add_argument("-c", dest="config", type=absolute, metavar="FILE", help="openais.conf")
    parser.add_argument("-a", dest="amf_file", type=absolute, metavar="FILE", help="amf.conf")
    parser.add_argument("-k", dest="key_file", type=absolute, metavar="FILE", help="key file")
    parser.add_argument("-t", dest="test", action="store_true", help="test the configuration")
    parser.add_argument("--lenient", action="store_true", help="unknown directives are warnings")
    parser.add_argument("-v", action="version", version=f"{program} {__version__}")
    parser.add_argument("-f", action="store_true", help="stay in the foreground: always so")
    return parser


def absolute(text: str) -> Path:
    """Return a path of the command line: absolute, so that every message names it whole."""
    return Path(text).absolute()
