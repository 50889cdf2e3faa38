from __future__ import annotations

from pathlib import Path

import pytest

from tools import machine

CPUINFO = """processor\t: 0
model name\t: Some Processor @ 3 GHz
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine without limits."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/camera.service\n")
    (tmp_path / "sys/fs/cgroup/system.slice/camera.service").mkdir(parents=True)
    return tmp_path


def limit(root: Path, group: str, file: str, text: str) -> None:
    (root / "sys/fs/cgroup" / group / file).write_text(f"{text}\n")


def test_the_processor_s_instructions_are_those_that_matter(root: Path) -> None:
    found = machine.look(root)
    assert found.processor == "Some Processor @ 3 GHz"
    assert found.instructions == ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX INT8")
    assert 1 <= found.cores <= found.all_cores


def test_without_limits_the_whole_machine_may_be_used(root: Path) -> None:
    limit(root, "system.slice", "memory.max", "max")
    limit(root, "system.slice", "cpu.max", "max 100000")
    found = machine.look(root)
    assert (found.quota, found.limit_mb) == (None, None)
    assert found.room_mb == found.memory_mb


@pytest.mark.parametrize("group", ["", "system.slice", "system.slice/camera.service"])
def test_a_limit_counts_whichever_group_around_the_process_has_it(root: Path, group: str) -> None:
    limit(root, group, "cpu.max", "150000 100000")
    limit(root, group, "memory.max", "500000000")
    found = machine.look(root)
    assert (found.quota, found.limit_mb, found.room_mb) == (1.5, 500, 500)


def test_of_several_limits_the_least_counts(root: Path) -> None:
    limit(root, "", "memory.max", "500000000")
    limit(root, "system.slice", "memory.max", "400000000")
    limit(root, "system.slice/camera.service", "memory.max", "900000000")
    assert machine.look(root).limit_mb == 400


def test_in_a_container_the_group_is_the_mount_itself(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/\n")
    limit(root, "", "memory.max", "500000000")
    limit(root, "system.slice", "memory.max", "400000000")  # another container's
    assert machine.look(root).limit_mb == 500


def test_another_processor_and_older_control_groups_give_what_they_have(root: Path) -> None:
    (root / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    (root / "proc/self/cgroup").write_text("4:memory:/docker/abc\n")
    found = machine.look(root)
    assert found.processor
    assert found.instructions == ()
    assert found.limit_mb is None
