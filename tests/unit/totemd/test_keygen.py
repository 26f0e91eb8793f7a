"""ais-keygen and the checks of the key file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from totemd import keyfile, keygen


def test_a_new_key_is_random_whole_and_for_its_owner_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "conf" / "authkey"
    assert keygen.main(["-k", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert len(keyfile.read(path)) == 128
    output = capsys.readouterr().out.splitlines()
    assert output == [
        "openais authentication key generator.",
        "Gathering 1024 bits for key from the kernel.",
        f"Writing openais key to {path}.",
    ]


def test_an_existing_key_is_not_replaced_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "authkey"
    keygen.main(["-k", str(path)])
    before = path.read_bytes()
    assert keygen.main(["-k", str(path)]) == 1
    assert f"{path} exists (use --force)" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert keygen.main(["-k", str(path), "--force"]) == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize("size", ["31", "4097", "many"])
def test_a_bad_size_is_a_usage_error(tmp_path: Path, size: str) -> None:
    with pytest.raises(SystemExit) as caught:
        keygen.main(["-k", str(tmp_path / "k"), "-s", size])
    assert caught.value.code == 2


def test_fingerprints_tell_keys_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "authkey"
    keyfile.write(path, bytes(range(128)), force=False)
    assert keygen.main(["-k", str(path), "--fingerprint"]) == 0
    assert capsys.readouterr().out == "844c99c8e5c71dc8\n"


def test_a_source_that_gives_too_little_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "short"
    source.write_bytes(b"x" * 10)
    assert keygen.main(["-k", str(tmp_path / "k"), "-r", str(source)]) == 1
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("content", "mode", "rule"),
    [
        (os.urandom(31), 0o400, "31 bytes, at least 32 needed"),
        (os.urandom(4097), 0o400, "longer than 4096 bytes"),
        (b"ab" * 64, 0o400, "not random"),
        (os.urandom(128), 0o440, "permissions too open (0440, expected 0400)"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes, mode: int, rule: str
) -> None:
    path = tmp_path / "authkey"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(keyfile.KeyFileError) as caught:
        keyfile.read(path)
    assert caught.value.reason == f"key file {path}: {rule}"


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(keyfile.KeyFileError):
        keyfile.read(tmp_path)
