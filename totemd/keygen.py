"""The program ais-keygen: make the key file that all nodes of a cluster share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from openais.node.assembly import AUTHKEY_VARIABLE
from openais.node.exits import Exit, ExitError
from openais.node.paths import KEY_FILE
from totemd import keyfile
from totemd.seal import fingerprint

REFUSED: Final = 1
SIZE_RULE: Final = f"{keyfile.SIZE_MIN}..{keyfile.SIZE_MAX}"


def _size(text: str) -> int:
    if not text.isdigit() or not keyfile.SIZE_MIN <= int(text) <= keyfile.SIZE_MAX:
        raise argparse.ArgumentTypeError(f"expected {SIZE_RULE} bytes, got {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ais-keygen", description="Make the key file that all nodes of a cluster share."
    )
    parser.add_argument("-k", type=Path, metavar="FILE", help=f"the key file; else {KEY_FILE}")
    parser.add_argument(
        "-s", type=_size, default=keyfile.SIZE_DEFAULT, metavar="BYTES", help=SIZE_RULE
    )
    parser.add_argument("-r", type=Path, metavar="FILE", help="read the bytes from FILE: tests")
    parser.add_argument("-l", action="store_true", help="accepted; has no effect")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--fingerprint", action="store_true", help="print the fingerprint of an existing file"
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="STATE_DIR",
        help="write the key that a node uses now, after openais key rotate",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status: 0 done, 1 refused or failed, 2 usage."""
    options = _parser().parse_args(arguments)
    path = options.k or Path(os.environ.get(AUTHKEY_VARIABLE) or KEY_FILE)
    try:
        if options.export is not None:
            _export(options.export, path, force=options.force)
        elif options.fingerprint:
            sys.stdout.write(f"{fingerprint(keyfile.read(path))}\n")
        else:
            _generate(path, options.s, options.r, force=options.force)
    except FileExistsError:
        sys.stderr.write(f"{path} exists (use --force)\n")
        return REFUSED
    except ExitError as error:
        sys.stderr.write(f"{error.reason}\n")
        return REFUSED
    except OSError as error:
        sys.stderr.write(f"{path}: {error.strerror or error}\n")
        return REFUSED
    if options.l:
        sys.stdout.write("Option -l has no effect.\n")
    return 0


def _export(state_dir: Path, path: Path, *, force: bool) -> None:
    ring = keyfile.read_ring(state_dir / keyfile.RING_NAME)
    if ring is None:
        raise ExitError(Exit.KEY_FILE, f"{state_dir}: no key ring; the key file is in use")
    sys.stdout.write(f"Writing openais key to {path}.\n")
    keyfile.write(path, ring.current.secret, force=force)


def _generate(path: Path, size: int, source: Path | None, *, force: bool) -> None:
    sys.stdout.write("openais authentication key generator.\n")
    sys.stdout.write(f"Gathering {size * 8} bits for key from the kernel.\n")
    key = os.getrandom(size) if source is None else source.read_bytes()
    if len(key) != size:
        raise OSError(f"{source or 'the kernel'} gave {len(key)} bytes, {size} needed")
    sys.stdout.write(f"Writing openais key to {path}.\n")
    keyfile.write(path, key, force=force)


if __name__ == "__main__":
    sys.exit(main())
