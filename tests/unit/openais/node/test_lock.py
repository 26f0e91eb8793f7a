"""The instance lock. A second process on one run directory would steal the first one's sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openais.node.exits import Exit, ExitError
from openais.node.lock import InstanceLock, holder


def test_cfg_026_a_second_instance_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path, "ckpt")
    assert holder(tmp_path, "ckpt") == os.getpid()
    with pytest.raises(ExitError) as caught:
        InstanceLock(tmp_path, "ckpt")
    assert caught.value.status is Exit.ALREADY_RUNNING
    assert caught.value.reason == f"already running (pid {os.getpid()})"
    first.release()
    InstanceLock(tmp_path, "ckpt").release()


def test_programs_do_not_exclude_each_other(tmp_path: Path) -> None:
    locks = [InstanceLock(tmp_path, name) for name in ("ckpt", "clm")]
    for lock in locks:
        lock.release()
        lock.release()  # the second time does nothing


def test_nobody_holds_a_lock_that_was_never_taken_or_given_back(tmp_path: Path) -> None:
    assert holder(tmp_path, "ckpt") is None
    InstanceLock(tmp_path, "ckpt").release()
    assert holder(tmp_path, "ckpt") is None


def test_a_forked_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    # A child that writes a snapshot must not keep the restarted service out.
    lock = InstanceLock(tmp_path, "ckpt")
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready_write, b"x")
        os.read(go_read, 1)  # lives until the test has looked
        os._exit(0)
    try:
        os.read(ready_read, 1)
        assert holder(tmp_path, "ckpt") == os.getpid(), "the child gave its parent's lock up"
        lock._close()  # as when the parent is killed
        InstanceLock(tmp_path, "ckpt").release()
    finally:
        os.write(go_write, b"x")
        os.waitpid(child, 0)
        for descriptor in (go_read, go_write, ready_read, ready_write):
            os.close(descriptor)


def test_a_missing_directory_ends_with_status_17(tmp_path: Path) -> None:
    with pytest.raises(ExitError) as caught:
        InstanceLock(tmp_path / "absent", "ckpt")
    assert caught.value.status is Exit.LOCK_FILE
