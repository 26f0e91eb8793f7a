"""What the tests of SAI-AIS-CKPT share: attributes, flags, questions.

D are attributes with several sections, S with the default section only, A asynchronous, AC
collocated.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from openais import ckpt, errors
from openais.ckpt import Attributes, CreationFlags, OpenFlags
from openais.wire.ckpt import CheckpointInfo
from openais.wire.status import ONE_MILLISECOND_NS, ONE_SECOND_NS

R, W, C = OpenFlags.READ, OpenFlags.WRITE, OpenFlags.CREATE
RW, RWC = R | W, R | W | C
D = Attributes(CreationFlags.WR_ALL_REPLICAS, 10_000, 5 * ONE_SECOND_NS, 5, 2_000, 20)
S = dataclasses.replace(D, max_sections=1, checkpoint_size=2_000)
A = dataclasses.replace(D, creation_flags=CreationFlags.WR_ACTIVE_REPLICA)
AC = dataclasses.replace(
    D, creation_flags=CreationFlags.WR_ACTIVE_REPLICA | CreationFlags.COLLOCATED
)
SHORT = dataclasses.replace(D, retention_duration=200 * ONE_MILLISECOND_NS)
NOTHING: Any = None  # where the C interface takes a null pointer
serial = itertools.count()


def changed(attributes: Attributes, **fields: int) -> Attributes:
    return dataclasses.replace(attributes, **fields)


def exists(client: ckpt.Client, name: str) -> bool:
    return name.encode() in [i.name for i in client.checkpoints() if i.linked]


def info(client: ckpt.Client, name: str) -> CheckpointInfo:
    return next(i for i in client.checkpoints() if i.name == name.encode() and i.linked)


def refused(kind: type[errors.AisError], call: Callable[[], Any]) -> errors.AisError:
    with pytest.raises(kind) as caught:
        call()
    return caught.value
