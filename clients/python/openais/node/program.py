"""What the main of every daemon does before its own work: options, configuration, log, lock."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openais import __version__
from openais.node import paths
from openais.node.config import NodeConfig, load
from openais.node.exits import NOT_RESTARTED, guard
from openais.node.lock import InstanceLock
from openais.node.logs import EventLog, configure

RESTART_PAUSE_S: Final = 1.0

_LOG = EventLog(__name__)


def main(program: str, body: Callable[[NodeConfig], None]) -> int:
    """Run a daemon in the foreground; return its exit status.

    The order: options, configuration, logging, directories, instance lock, then ``body``.
    """
    options = _parser(program).parse_args()
    status = guard(lambda: _run(program, body, options))
    if status and status not in NOT_RESTARTED and not options.test:
        time.sleep(RESTART_PAUSE_S)  # supervisord starts us again at once
    return status


def _run(program: str, body: Callable[[NodeConfig], None], options: argparse.Namespace) -> None:
    config = load(options.config, os.environ, lenient=options.lenient)
    if options.test:
        for warning in config.warnings:
            sys.stdout.write(f"{warning}\n")
        sys.stdout.write(f"{config.path}: good\n")
        return
    configure(config.logging, program)
    for warning in config.warnings:
        _LOG.warning("configuration", rule=warning)
    if config.logging.debug == "off":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold keys
    paths.make_node_directories(config.system.run_dir, config.system.state_dir)
    lock = InstanceLock(config.system.run_dir, program)
    try:
        body(config)
    finally:
        lock.release()


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=f"openais: {program}")
    parser.add_argument("-c", dest="config", type=Path, metavar="FILE", help="openais.conf")
    parser.add_argument("-t", dest="test", action="store_true", help="test the configuration")
    parser.add_argument("--lenient", action="store_true", help="unknown directives are warnings")
    parser.add_argument("-v", action="version", version=f"{program} {__version__}")
    parser.add_argument("-f", action="store_true", help="stay in the foreground: always so")
    return parser
