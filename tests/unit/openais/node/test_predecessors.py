"""Files as they were written for the predecessors: they load, with warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.openais.node.configs import loaded

OPENAIS = """
# Please read the manual page
totem {
	version: 2
	secauth: off
	threads: 0
	vsftype: none
	token: 3000
	token_retransmits_before_loss_const: 10
	join: 60
	consensus: 4800
	max_messages: 20
	clear_node_high_bit: yes
	interface {
		ringnumber: 0
		bindnetaddr: 192.168.1.0
		mcastaddr: 226.94.1.1
		mcastport: 5405
	}
}
logging {
	fileline: off
	to_stderr: yes
	to_file: no
	to_syslog: yes
	syslog_facility: daemon
	debug: off
	timestamp: on
	logger {
		ident: AMF
		debug: off
		tags: enter|leave|trace1|trace2|trace3|trace4|trace6
	}
}
event {
	delivery_queue_size: 1000
}
amf {
	mode: disabled
}
aisexec {
	user: root
	group: root
}
service {
	name: openais_clm
	ver: 0
}
service {
	name: openais_tmr
	ver: 0
}
compatibility: whitetank
"""

COROSYNC_UNICAST = """
totem {
	version: 2
	crypto_cipher: aes256
	crypto_hash: sha256
	crypto_model: nss
	interface {
		ringnumber: 0
		bindnetaddr: 192.168.1.0
		mcastport: 5405
		member {
			memberaddr: 192.168.1.7
		}
		member {
			memberaddr: 192.168.1.8
		}
	}
	transport: udpu
}
logging {
	to_logfile: no
	logfile: /var/log/cluster/corosync.log
	logfile_priority: notice
	to_syslog: yes
	timestamp: hires
	logger_subsys {
		subsys: QUORUM
		debug: off
		syslog_priority: warning
	}
}
quorum {
}
system {
	move_to_root_cgroup: auto
	allow_knet_handle_fallback: yes
}
nozzle {
	name: noz01
}
"""

COROSYNC_LINKS = """
totem {
    version: 2
    cluster_name: hacluster
    config_version: 17
    token: 5000
    token_retransmits_before_loss_const: 10
    link_mode: passive
    knet_pmtud_interval: 30
    crypto_cipher: aes256
    crypto_hash: sha256
    interface {
        linknumber: 0
        knet_transport: udp
        knet_link_priority: 1
        bindport: 5405
    }
    interface {
        linknumber: 1
        knet_transport: udp
        knet_link_priority: 2
    }
}
nodelist {
    node {
        ring0_addr: 192.168.1.7
        ring1_addr: 10.0.0.7
        name: alpha
        nodeid: 1
    }
    node {
        ring0_addr: 192.168.1.8
        ring1_addr: 10.0.0.8
        name: beta
        nodeid: 2
    }
}
quorum {
    provider: corosync_votequorum
    two_node: 1
}
uidgid {
    uid: ais
}
resources {
    system {
        memory_used {
            recovery: reboot
        }
    }
}
"""


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        (
            OPENAIS,
            (
                "totem.secauth: off",
                "event is not supported yet and ignored",
                "amf is not supported yet and ignored",
                "aisexec is not supported yet and ignored",
                "compatibility is not supported and ignored",
                "service openais_tmr is not supported yet and ignored",
            ),
        ),
        (
            COROSYNC_UNICAST,
            (
                'totem.crypto_cipher: "aes256" is taken as aes256gcm',
                "totem.crypto_hash is not supported and ignored",
                "system.move_to_root_cgroup is not supported and ignored",
                "system.allow_knet_handle_fallback is not supported and ignored",
                "nozzle is not supported and ignored",
            ),
        ),
        (
            COROSYNC_LINKS,
            (
                "totem.knet_pmtud_interval is not supported and ignored",
                "totem.interface.bindport is not supported and ignored",
                "taken as totem.interface.link_priority",
                'quorum.provider: "corosync_votequorum" is taken as votequorum',
                "resources is not supported yet and ignored",
            ),
        ),
    ],
    ids=["openais", "corosync, unicast", "corosync, links"],
)
def test_cfg_033_a_predecessors_file_loads_and_what_has_no_effect_is_named(
    tmp_path: Path, text: str, warnings: tuple[str, ...]
) -> None:
    config = loaded(tmp_path, text)
    for expected in warnings:
        assert any(expected in warning for warning in config.warnings), config.warnings


def test_what_a_predecessors_file_says_is_taken_up(tmp_path: Path) -> None:
    config = loaded(tmp_path, COROSYNC_LINKS)
    assert config.totem.rrp_mode == "passive"
    assert [i.bind_address for i in config.interfaces] == ["192.168.1.7", "10.0.0.7"]
    assert [i.priority for i in config.interfaces] == [1, 2]
    assert config.quorum.two_node
    assert config.quorum.wait_for_all
    old = loaded(tmp_path, OPENAIS)
    assert (old.totem.consensus_ms, old.totem.max_messages) == (4800, 20)
    assert [(s.name, s.logging.debug) for s in old.logging.subsystems] == [("AMF", "off")]
    assert old.services.names == ("clm",)
