"""Facts of the machine the tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from openais.node import machine
from openais.node.machine import this_machine


def test_this_machine_has_a_loopback_address_with_an_mtu() -> None:
    here = this_machine()
    assert "127.0.0.1" in {str(address.ip) for address in here.addresses}
    mtu = here.mtu_bytes("127.0.0.1")
    assert mtu is not None
    assert mtu >= 1280
    assert here.mtu_bytes("192.0.2.1") is None


def test_names_are_looked_up_in_the_hosts_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(
        b"# none\n10.0.0.1 Alpha alpha.example # beta\nnonsense beta\n::1 alpha\n\xff"
    )
    monkeypatch.setattr(machine, "HOSTS_FILE", hosts)
    assert this_machine().listed("alpha") == ("10.0.0.1", "::1")
    assert this_machine().listed("beta") == ()


def test_a_name_that_no_server_could_know_is_unknown() -> None:
    # Encoding it raises an error of its own, not the one of an unknown name.
    assert this_machine().resolve("a..b") == ()


@pytest.mark.parametrize("name", ["4294967295", "9" * 64, "no-such-user-here"])
def test_a_number_that_is_no_identity_is_unknown(name: str) -> None:
    assert this_machine().user_id(name) is None
    assert this_machine().group_id(name) is None
