"""The built-in sources of configuration: openais.conf, the same tree as JSON or TOML, environment.

``aisparser`` reads the main file. ``jsonconf`` and ``tomlconf`` read the file beside it whose name
ends in ``.json`` or ``.toml`` instead; that is the main file itself where its name ends so.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from openais.node.sources import Context, Source, read_file
from openais.node.syntax import parse
from openais.node.tree import DEPTH_MAX, Section

ENVIRONMENT_PREFIX: Final = "OPENAIS_CFG_"
_LINE: Final = re.compile(r"\(at line ([0-9]+),")


class AisParser:
    """The main file, in the format of the predecessors."""

    def read_config(self, tree: Section, context: Context) -> None:
        """Parse the file into the tree."""
        file = context.main_file
        parse(read_file(file), str(file), context.problems, tree)


class _Object(list[tuple[str, object]]):
    """The pairs of an object: unlike a list it is no value with several parts."""


class JsonConf:
    """A JSON object: objects are sections, arrays of objects sections that stand several times."""

    def read_config(self, tree: Section, context: Context) -> None:
        """Read the file into the tree."""
        file = _beside(context.main_file, ".json")
        data = read_file(file)
        try:
            found = json.loads(
                _decoded(data),
                object_pairs_hook=_Object,
                parse_int=str,
                parse_float=str,
                parse_constant=str,
            )
        except json.JSONDecodeError as error:
            context.error(f"{file}:{error.lineno}", error.msg)
        except (ValueError, RecursionError) as error:
            context.error(str(file), _reason(error))
        else:
            _fill_from_file(found, file, tree, context)


class TomlConf:
    """A TOML document: tables are sections, arrays of tables sections that stand several times."""

    def read_config(self, tree: Section, context: Context) -> None:
        """Read the file into the tree."""
        file = _beside(context.main_file, ".toml")
        data = read_file(file)
        try:
            found = tomllib.loads(_decoded(data), parse_float=str)
        except tomllib.TOMLDecodeError as error:
            line = _LINE.search(str(error))
            context.error(f"{file}:{line[1]}" if line else str(file), str(error))
        except (ValueError, RecursionError) as error:
            context.error(str(file), _reason(error))
        else:
            _fill_from_file(_objects(found), file, tree, context)


def _beside(file: Path, suffix: str) -> Path:
    return file.parent / (file.stem + suffix)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8").removeprefix("\ufeff")


def _reason(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def _objects(value: object) -> object:
    if isinstance(value, dict):
        return _Object((key, _objects(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return [_objects(inner) for inner in value]
    return value


def _fill_from_file(found: object, file: Path, tree: Section, context: Context) -> None:
    if not isinstance(found, _Object):
        context.error(str(file), "expected an object with the sections")
        return
    _Filler(str(file), context).section(found, tree, "", DEPTH_MAX)


class _Filler:
    """Fills a tree from nested objects; names what does not fit by its path."""

    def __init__(self, origin: str, context: Context) -> None:
        self._origin = origin
        self._context = context

    def section(self, pairs: _Object, section: Section, path: str, depth: int) -> None:
        for name, value in pairs:
            inner = f"{path}.{name}" if path else name
            try:
                self._member(name, value, section, inner, depth)
            except ValueError as error:
                self._context.error(self._origin, f"{inner}: {error}")

    def _member(self, name: str, value: object, section: Section, path: str, depth: int) -> None:
        tables = value if isinstance(value, list) and not isinstance(value, _Object) else [value]
        if tables and all(isinstance(table, _Object) for table in tables):
            if depth == 0:
                raise ValueError(f"more than {DEPTH_MAX} sections inside each other")
            for table in tables:
                assert isinstance(table, _Object), "looked at above"
                opened = section.new_section(name, self._origin)
                self.section(table, opened, path, depth - 1)
        elif tables:
            section.add(name, " ".join(map(_text, tables)), self._origin)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | str):
        return str(value)
    raise ValueError(f"expected a text, number or truth value, got {type(value).__name__}")


class Environment:
    """Variables ``OPENAIS_CFG_section__key``.

    A section that stands several times has its number, from 0, after its name:
    ``OPENAIS_CFG_totem__interface__1__mcastport``. The next free number adds a section.
    """

    def read_config(self, tree: Section, context: Context) -> None:
        """Add what the variables say to the tree."""
        for variable in sorted(context.environ):
            if variable.startswith(ENVIRONMENT_PREFIX) and context.environ[variable]:
                origin = f"environment {variable}"
                names = variable.removeprefix(ENVIRONMENT_PREFIX).split("__")
                try:
                    _inner_section(tree, names[:-1], origin).add(
                        names[-1], context.environ[variable], origin
                    )
                except ValueError as error:
                    context.error(origin, str(error))


def _inner_section(tree: Section, names: list[str], origin: str) -> Section:
    section = tree
    if sum(not name.isdigit() for name in names) > DEPTH_MAX:
        raise ValueError(f"more than {DEPTH_MAX} sections inside each other")
    for name, follower in zip(names, [*names[1:], ""], strict=True):
        if name.isascii() and name.isdigit():
            continue
        if follower.isascii() and follower.isdigit():
            section = _numbered(section, name, follower, origin)
        else:
            section = section.section(name, origin)
    return section


def _numbered(section: Section, name: str, number: str, origin: str) -> Section:
    present = section.all(name)
    if number == str(len(present)):
        return section.new_section(name, origin)
    if len(number) > len(str(len(present))) or int(number) > len(present):
        raise ValueError(f"section {name} {number}: there are only {len(present)}, from 0")
    return present[int(number)]


BUILT_IN: Final[Mapping[str, Callable[[], Source]]] = {
    "aisparser": AisParser,
    "jsonconf": JsonConf,
    "tomlconf": TomlConf,
    "env": Environment,
}
