"""CPU counters: values if the kernel gives them, otherwise a reason."""

import errno

import pytest

from llmjobs.machine import cpu_counters
from llmjobs.machine.cpu_counters import CpuCounters


def test_counts_or_a_reason():
    with CpuCounters() as counters:
        sum(range(200_000))
        found = counters.read()
    if found.reason:
        assert found.cycles is None and found.instructions is None
    else:
        assert found.instructions > 200_000 and found.cycles > 10_000


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EACCES, "may not read CPU counters"),
        (errno.ENOENT, "has no CPU counters"),
        (errno.ENOSYS, "no perf events"),
        (errno.EMFILE, "cannot be opened"),
    ],
)
def test_every_refusal_is_told(monkeypatch, code, says):
    def refuse(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(cpu_counters, "_open", refuse)
    with CpuCounters() as counters:
        assert says in counters.read().reason


def test_without_the_right_for_the_kernel_user_mode_is_counted(monkeypatch):
    def only_user(_config, flags):
        if not flags & cpu_counters._EXCLUDE_KERNEL:
            raise PermissionError(errno.EACCES, "no")
        raise OSError(errno.ENOENT, "no")

    monkeypatch.setattr(cpu_counters, "_open", only_user)
    with CpuCounters() as counters:
        assert "has no CPU counters" in counters.read().reason


def test_a_shared_counter_is_no_figure():
    import struct

    assert cpu_counters._value(struct.pack("QQQ", 10, 100, 100)) == 10
    assert cpu_counters._value(struct.pack("QQQ", 10, 100, 60)) is None
    assert cpu_counters._value(struct.pack("QQQ", 0, 100, 0)) is None
