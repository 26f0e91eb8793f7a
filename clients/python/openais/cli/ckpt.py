"""``openais ckpt list | show | dump | restore | unlink | watch``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Final

from openais import ckpt, dumpfile
from openais.cli import table
from openais.errors import NotExistError
from openais.wire.ckpt import CheckpointInfo, CreationFlags
from openais.wire.status import TIME_END

NOT_FOUND: Final = 1
FAILED: Final = 1
SHOWN_MAX: Final = 60  # characters of data in a line


def text(data: bytes) -> str:
    """Return bytes as a person reads them."""
    return data.decode("utf-8", "backslashreplace")


def _time(at_ns: int) -> str:
    if at_ns in (0, TIME_END):
        return "never"
    moment = datetime.datetime.fromtimestamp(at_ns / 1e9, datetime.UTC)
    return moment.isoformat(timespec="milliseconds")


def _fields(info: CheckpointInfo) -> dict[str, Any]:
    a = info.attributes
    return {
        "name": text(info.name),
        "linked": info.linked,
        "mode": _mode(a.creation_flags),
        "sections": info.sections,
        "used_bytes": info.used_size,
        "opens": info.opens,
        "readers": info.readers,
        "writers": info.writers,
        "created": _time(info.creation_ns),
        "expires": _time(info.deadline_ns),
        "active_node": info.active_node,
        "checkpoint_size": a.checkpoint_size,
        "retention_duration_ns": a.retention_duration,
        "max_sections": a.max_sections,
        "max_section_size": a.max_section_size,
        "max_section_id_size": a.max_section_id_size,
    }


def _mode(flags: int) -> str:
    names = [flag.name for flag in CreationFlags if flags & flag and flag.name]
    return "+".join(names).replace("WR_", "").lower()


def list_all(options: argparse.Namespace) -> int:
    """Show all checkpoints."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        found = [_fields(info) for info in client.checkpoints()]
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    keys = ("name", "mode", "sections", "used_bytes", "opens", "expires")
    rows = [
        [row[key] if row["linked"] or key != "name" else f"({row[key]})" for key in keys]
        for row in found
    ]
    table.show(keys, rows)
    return 0


def show(options: argparse.Namespace) -> int:
    """Show one checkpoint and its sections."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        infos = [i for i in client.checkpoints() if i.linked and text(i.name) == options.name]
        if not infos:
            return _missing(options.name)
        sections = list(client.dump(infos[0].name))
    fields = _fields(infos[0])
    rows = [
        [text(s.section_id) or "(default)", s.size, _time(s.last_update), _time(s.expiration_time)]
        for s, _ in sections
    ]
    if options.json:
        keys = ("id", "size", "last_update", "expires")
        fields["section_list"] = [dict(zip(keys, row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps(fields, indent=2) + "\n")
        return 0
    for key, value in fields.items():
        sys.stdout.write(f"{key + ':':<24}{value}\n")
    sys.stdout.write("\n")
    table.show(["section", "bytes", "last update", "expires"], rows)
    return 0


def dump(options: argparse.Namespace) -> int:
    """Write one checkpoint with its data to a file that restore reads."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        try:
            if options.output is None:
                return _dump_to_stdout(client, options.name)
            _dump_to_file(client, options.name, options.output)
        except NotExistError:
            return _missing(options.name)
    return 0


def _dump_to_stdout(client: ckpt.Client, name: str) -> int:
    """Write a whole dump or nothing."""
    with tempfile.TemporaryFile() as file:
        client.dump_to(name, file)
        file.seek(0)
        shutil.copyfileobj(file, sys.stdout.buffer)
    return 0


def _dump_to_file(client: ckpt.Client, name: str, path: Path) -> None:
    """Put a whole dump in the place of a file, or leave that alone."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        written = Path(file.name)
        try:
            client.dump_to(name, file)
            file.flush()
            os.fsync(file.fileno())
            written.replace(path)
        except BaseException:
            written.unlink()
            raise


def restore(options: argparse.Namespace) -> int:
    """Create a checkpoint from a file that dump wrote."""
    with tempfile.TemporaryFile() as spool:
        if options.file == "-":
            shutil.copyfileobj(sys.stdin.buffer, spool)
            return _restore(options, spool)
        try:
            given = Path(options.file).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            sys.stderr.write(f"openais ckpt restore: {options.file}: {error.strerror}\n")
            return FAILED
        with given:
            return _restore(options, given)


def _restore(options: argparse.Namespace, file: IO[bytes]) -> int:
    try:
        with ckpt.Client(run_dir=options.run_dir) as client:
            with client.restore(file, options.name, replace=options.replace) as restored:
                status = restored.status()
                if options.keep:
                    restored.retention_duration_set(ckpt.NEVER)
                duration_ns = restored.status().attributes.retention_duration
            sys.stdout.write(
                f"restored {status.number_of_sections} sections, {status.memory_used} bytes; "
                f"kept for {_duration(duration_ns)} while nobody has it open\n"
            )
    except dumpfile.DumpError as error:
        sys.stderr.write(f"openais ckpt restore: {options.file}: {error}\n")
        return FAILED
    return 0


def _duration(duration_ns: int) -> str:
    return "ever" if duration_ns == TIME_END else f"{duration_ns / 1e9:g} s"


def unlink(options: argparse.Namespace) -> int:
    """Take a checkpoint's name away; it is deleted at its last close."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        try:
            client.unlink(options.name)
        except NotExistError:
            return _missing(options.name)
    return 0


def watch(options: argparse.Namespace) -> int:
    """Show each change of a checkpoint, one line each, until interrupted."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        try:
            opened = client.open(options.name, None, ckpt.OpenFlags.READ)
        except NotExistError:
            return _missing(options.name)
        opened.watch(
            lambda change: _show_change(change, as_json=options.json), prefix=options.prefix
        )
        try:
            client.dispatch(ckpt.DispatchFlags.BLOCKING)
        except KeyboardInterrupt:
            return 0
    return 0


def _show_change(change: ckpt.Change, *, as_json: bool) -> None:
    for e in change.elements:
        fields = {
            "change": change.kind.name.lower(),
            "id": text(e.section_id),
            "offset": e.offset,
            "size": e.size,
            "data": None if e.data is None else text(e.data),
            "lost_before": change.lost,
        }
        line = json.dumps(fields) if as_json else _change_line(fields)
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _change_line(fields: dict[str, Any]) -> str:
    data = fields["data"]
    shown = "" if data is None else f" {data[:SHOWN_MAX]!r}"
    lost = f" ({fields['lost_before']} changes before were lost)" if fields["lost_before"] else ""
    where = f"{fields['id'] or '(default)'} offset={fields['offset']} size={fields['size']}"
    return f"{fields['change']:<12}{where}{shown}{lost}"


def _missing(name: str) -> int:
    sys.stderr.write(f'openais ckpt: no checkpoint "{name}"; see: openais ckpt list\n')
    return NOT_FOUND
