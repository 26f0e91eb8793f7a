"""Arguments of the command ``openais``, and which part does what.

Exit statuses: 0 done, 1 failed, 2 usage, 3 cannot connect.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Final

from openais import __version__
from openais.cli import ckpt, cluster, config, doctor, key, ring
from openais.errors import AisError, TryAgainError
from openais.node import paths
from openais.node.program import absolute

LOCAL_CLUSTER_MODULE: Final = "deploy.local"  # comes with the package openais-node
RENEW_MODULE: Final = "deploy.renew"  # likewise
FAILED: Final = 1
CANNOT_CONNECT: Final = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["cluster"] and given[1:2] in (["up"], ["down"]):
        return _of_node("cluster", LOCAL_CLUSTER_MODULE, given[1:])
    if given[:1] in (["restart"], ["upgrade"]):
        return _of_node(given[0], RENEW_MODULE, given)
    if given[:1] == ["status"]:
        given = ["cluster", *given]
    options = _parser().parse_args(given)
    try:
        return int(options.run(options))
    except TryAgainError as error:
        sys.stderr.write(f"openais: {error.reason}\n")
        return CANNOT_CONNECT
    except (AisError, paths.SocketPathError) as error:
        sys.stderr.write(f"openais: {error}\n")
        return FAILED
    except BrokenPipeError:
        return 0


def _of_node(name: str, module: str, arguments: list[str]) -> int:
    """Run a command that comes with the daemons."""
    try:
        run = importlib.import_module(module).main
    except ImportError as error:
        sys.stderr.write(f"openais {name}: needs the package openais-node ({error})\n")
        return FAILED
    try:
        return int(run(arguments))
    except SystemExit as end:  # usage, of argparse
        return int(end.code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openais", description=__doc__)
    parser.add_argument("--version", action="version", version=f"openais {__version__}")
    rooms = parser.add_subparsers(
        dest="room",
        required=True,
        metavar="status|doctor|cluster|restart|upgrade|ckpt|config|key|ring",
    )
    rooms.add_parser("status", help="as cluster status")
    _doctor(rooms.add_parser("doctor", help="what is wrong with nodes, and what to do"))
    rooms.add_parser("restart", help="restart programs of nodes, one at a time, each until live")
    rooms.add_parser("upgrade", help="run a program from another release; back if it fails")
    _cluster(rooms.add_parser("cluster", help="up, down, status of a cluster"))
    _ckpt(rooms.add_parser("ckpt", help="look into checkpoints, dump and restore them"))
    _config(rooms.add_parser("config", help="check and show openais.conf"))
    _key(rooms.add_parser("key", help="change the key of a running cluster"))
    _ring(rooms.add_parser("ring", help="have the ring formed anew, nodes taken in again"))
    return parser


def _doctor(room: argparse.ArgumentParser) -> None:
    room.add_argument("--dir", type=Path, help="a cluster made by up: all its nodes")
    room.add_argument("--run-dir", type=Path, help="one node; else OPENAIS_RUN_DIR, /run/ais")
    room.add_argument("-c", dest="config", type=absolute, metavar="FILE", help="openais.conf")
    room.add_argument("--json", action="store_true", help="JSON")
    room.set_defaults(run=doctor.run)


def _ring(room: argparse.ArgumentParser) -> None:
    commands = room.add_subparsers(dest="command", required=True, metavar="gather|clear-hold-offs")
    for name, run, help_text in (
        ("gather", ring.gather, "form the ring anew, with the nodes that are there"),
        ("clear-hold-offs", ring.clear_hold_offs, "merge at once with nodes that came and went"),
    ):
        one = commands.add_parser(name, help=help_text)
        one.add_argument("--run-dir", type=Path, help="of a node; else OPENAIS_RUN_DIR, /run/ais")
        if name == "gather":
            one.add_argument("--wait", type=float, default=30.0, help="seconds; 30")
        one.set_defaults(run=run)


def _key(room: argparse.ArgumentParser) -> None:
    commands = room.add_subparsers(dest="command", required=True, metavar="status|rotate|retire")
    for name, run, help_text in (
        ("status", key.status, "which keys a node sends under and accepts"),
        ("rotate", key.rotate, "change the key on all nodes, without a pause"),
        ("retire", key.retire, "accept old keys no longer, on all nodes"),
    ):
        one = commands.add_parser(name, help=help_text)
        one.add_argument("--run-dir", type=Path, help="of a node; else OPENAIS_RUN_DIR, /run/ais")
        if name != "status":
            one.add_argument("--wait", type=float, default=30.0, help="seconds; 30")
        one.set_defaults(run=run)


def _cluster(room: argparse.ArgumentParser) -> None:
    commands = room.add_subparsers(dest="command", required=True, metavar="up|down|status")
    commands.add_parser("up", help="make and start a cluster on this machine")
    commands.add_parser("down", help="stop it")
    status = commands.add_parser("status", help="members, ring, services and their state")
    status.add_argument("--dir", type=Path, help="a cluster made by up: all its nodes")
    status.add_argument("--run-dir", type=Path, help="one node; else OPENAIS_RUN_DIR, /run/ais")
    status.add_argument("--json", action="store_true", help="the status documents")
    status.set_defaults(run=cluster.status)


def _ckpt(room: argparse.ArgumentParser) -> None:
    commands = room.add_subparsers(
        dest="command", required=True, metavar="list|show|dump|restore|unlink|watch"
    )
    made: dict[str, argparse.ArgumentParser] = {}
    for name, run, help_text in (
        ("list", ckpt.list_all, "all checkpoints"),
        ("show", ckpt.show, "one checkpoint and its sections"),
        ("dump", ckpt.dump, "one checkpoint with its data, as JSON lines with a digest"),
        ("restore", ckpt.restore, "create a checkpoint from a dump"),
        ("unlink", ckpt.unlink, "take a checkpoint's name away"),
        ("watch", ckpt.watch, "show each change of a checkpoint until interrupted"),
    ):
        one = made[name] = commands.add_parser(name, help=help_text)
        one.add_argument("--run-dir", type=Path, help="of a node; else OPENAIS_RUN_DIR, /run/ais")
        if name in ("list", "show", "watch"):
            one.add_argument("--json", action="store_true", help="JSON")
        if name not in ("list", "restore"):
            one.add_argument("name", help="of the checkpoint")
        one.set_defaults(run=run)
    made["dump"].add_argument("-o", "--output", type=Path, help="the file; else standard output")
    made["restore"].add_argument("file", help="a dump; - is standard input")
    made["restore"].add_argument("--name", help="of the checkpoint; else the name in the dump")
    made["restore"].add_argument("--replace", action="store_true", help="unlink one that is there")
    made["restore"].add_argument("--keep", action="store_true", help="retention for ever")
    made["watch"].add_argument("--prefix", default="", help="of the sections' ids")


def _config(room: argparse.ArgumentParser) -> None:
    commands = room.add_subparsers(dest="command", required=True, metavar="check|show")
    for name, run, help_text in (
        ("check", config.check, "what a start would find wrong, and its exit status"),
        ("show", config.show, "what the configuration says, with the origin of each value"),
    ):
        one = commands.add_parser(name, help=help_text)
        one.add_argument(
            "file",
            nargs="?",
            type=absolute,
            metavar="FILE",
            help="else OPENAIS_MAIN_CONFIG_FILE, /etc/ais/openais.conf",
        )
        one.add_argument("-a", dest="amf_file", type=absolute, metavar="FILE", help="amf.conf")
        one.add_argument("-k", dest="key_file", type=absolute, metavar="FILE", help="key file")
        one.add_argument("--lenient", action="store_true", help="unknown directives are warnings")
        if name == "show":
            one.add_argument("--effective", action="store_true", help="every value that counts")
            one.add_argument("--json", action="store_true", help="JSON")
        one.set_defaults(run=run)
