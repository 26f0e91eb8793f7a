"""Whatever a file contains: a configuration, or an error of ours."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from openais.node import formats
from openais.node.config import ConfigError, load
from openais.node.directives import SECTIONS
from openais.node.rules import Treatment
from tests.unit.openais.node.configs import MACHINE, MINIMAL, in_totem, nodelist

SERVED = [r for r in SECTIONS if r.treatment is Treatment.SERVED and r.path and r.directives]
RUNS = 20_000  # of all kinds together
BATCH = 2_000
SEEDS = (
    MINIMAL,
    in_totem("token: 1.5s\nkey_accept: /a /b\nip_dscp: ef", "ttl: 3\nbroadcast: no") + nodelist(3),
    "logging {\nlogger_subsys {\nsubsys: CKPT\ntags: enter|trace1\n}\n}\nuidgid {\nuid: ais\n}\n",
    "quorum {\nprovider: votequorum\nauto_tie_breaker_node: 1 2\n}\nipc {\nmode: 0660\n}\n",
)
VALUES = (
    *("0", "1", "-1", "2", "30", "99999999999999999999", "1e9", "1.5s", "0x10", "007", "٣", "²"),
    *("yes", "off", "lan", "fast", "udpu", "none", "trace", "enter|leave", "a..b", "x" * 70),
    *("127.0.0.1", "239.1.1.1", "::1", "fe80::1%eth0", "ff15::1", "224.0.0.1", "0.0.0.0"),
    *("255.255.255.255", "999.1.1.1", "beta", "six", "/", "/a/../b", "/x\u00e9", "/a /b", ",", "|"),
    *("64M", "9G", "9" * 400, "\ufffd", "\u2028", "%s", "{", "}", ":", "#"),
)
BYTES = b"{}:#\n\r\t \0\xc2\xa0\xff\xef\xbb\xbf0123456789abcxyz_.-/"


def some_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


def some_syntax(rng: random.Random) -> bytes:
    return bytes(rng.choices(BYTES, k=rng.randrange(300)))


def mutated(rng: random.Random) -> bytes:
    data = bytearray("".join(rng.sample(SEEDS, rng.randint(1, 4))).encode())
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case 2:
                data[at:at] = bytes(rng.choices(BYTES, k=rng.randrange(8)))
            case _:
                data[at:at] = data[at // 2 : at // 2 + rng.randrange(60)]
    return bytes(data) or b"x"


def plausible(rng: random.Random) -> bytes:
    """Write directives that exist, with values that often fit."""
    text = MINIMAL + (nodelist(rng.randint(2, 5)) if rng.random() < 0.3 else "")
    for rule in rng.sample(SERVED, rng.randint(1, 3)):
        lines = []
        for directive in rng.sample(rule.directives, min(len(rule.directives), rng.randint(1, 4))):
            name = rng.choice((directive.key, *directive.aliases))
            fitting = directive.default or rng.choice(VALUES)
            lines.append(f"{name}: {fitting if rng.random() < 0.85 else rng.choice(VALUES)}")
        if rule.path == "totem":
            text = text.replace("version: 2", "\n".join(["version: 2", *lines]))
        else:
            names = rule.path.split(".")
            opened = [f"{name} {{" for name in names]
            text += "\n".join([*opened, *lines, *("}" for _ in names), ""])
    return text.encode()


KINDS: tuple[Callable[[random.Random], bytes], ...] = (some_bytes, some_syntax, mutated, plausible)


def outcome(data: bytes, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Load a file with this content; True: it is a configuration."""
    monkeypatch.setattr(formats, "read_file", lambda _: data)
    lenient, testing = rng.random() < 0.5, rng.random() < 0.5
    path = Path("/nowhere/openais.conf")
    try:
        load(path, {}, lenient=lenient, testing=testing, machine=MACHINE)
    except ConfigError as error:
        return not error.errors
    return True


@pytest.mark.parametrize("batch", range(RUNS // BATCH))
def test_no_bytes_raise_anything_but_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    accepted = 0
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(seed)
        data = KINDS[seed % len(KINDS)](rng)
        try:
            accepted += outcome(data, rng, monkeypatch)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data!r}") from error
    assert accepted >= BATCH // 100, "too few of them get as far as a configuration"


@pytest.mark.parametrize("source", ["jsonconf", "tomlconf"])
def test_no_document_raises_anything_but_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    environ = {"OPENAIS_DEFAULT_CONFIG_IFACE": source}
    seeds = (b'{"totem": {"version": 2, "interface": [{}], "x": [1, [2]]}}', b'[[a.b]]\nc = "d"\n')
    for seed in range(BATCH):
        rng = random.Random(seed)
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(2)] = bytes(rng.choices(b'{}[]",:=.1ex\\\n\xff ', k=2))
        monkeypatch.setattr(formats, "read_file", lambda _, data=bytes(data): data)
        with contextlib.suppress(ConfigError):
            load(Path("/nowhere/openais.conf"), environ, machine=MACHINE)


@pytest.mark.parametrize("source", ["aisparser", "env"])
def test_no_environment_raises_anything_but_an_error_of_the_configuration(
    tmp_path: Path, source: str
) -> None:
    path = tmp_path / "openais.conf"
    path.write_text(MINIMAL)
    for seed in range(BATCH):
        rng = random.Random(seed)
        name = "".join(rng.choices(("totem", "interface", "__", "0", "1", "token", "_", "9"), k=6))
        value = rng.choice((*VALUES, "\udcff", "a\nb"))
        environ = {
            "OPENAIS_DEFAULT_CONFIG_IFACE": f"{source}:env",
            f"OPENAIS_CFG_{name}": value,
        }
        with contextlib.suppress(ConfigError):
            load(path, environ, machine=MACHINE)
