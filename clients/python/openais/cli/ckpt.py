"""``openais ckpt list | show | dump``."""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import sys
from typing import Any

from openais import ckpt
from openais.cli import table
from openais.errors import NotExistError
from openais.wire.ckpt import CheckpointInfo, CreationFlags
from openais.wire.status import TIME_END

NOT_FOUND = 1


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
    """Write one checkpoint with its data: a JSON object per section, data in base64."""
    with ckpt.Client(run_dir=options.run_dir) as client:
        try:
            for section, data in client.dump(options.name):
                line = {
                    "id": base64.b64encode(section.section_id).decode(),
                    "text_id": text(section.section_id),
                    "expiration_time": section.expiration_time,
                    "last_update": section.last_update,
                    "data": base64.b64encode(data).decode(),
                }
                sys.stdout.write(json.dumps(line) + "\n")
        except NotExistError:
            return _missing(options.name)
    return 0


def _missing(name: str) -> int:
    sys.stderr.write(f'openais ckpt: no checkpoint "{name}"; see: openais ckpt list\n')
    return NOT_FOUND
