"""Memory belongs to the model that took it, and what the system can take back is counted apart."""

import mmap
import os
import platform
import subprocess
import sys
import time

import pytest

from llmjobs import memory
from llmjobs.clocks import measured
from llmjobs.memory import PeakWatch, needed_bytes, resident

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def watch():
    found = PeakWatch()
    yield found
    found.end()


def touch(size: int) -> bytearray:
    data = bytearray(size)
    data[:: mmap.PAGESIZE] = b"x" * len(range(0, size, mmap.PAGESIZE))
    return data


@linux
@pytest.mark.parametrize("allowed", [True, False], ids=["mark set back", "not allowed"])
def test_a_small_model_after_a_large_one_has_its_own_peak(watch, monkeypatch, allowed):
    if not allowed:
        monkeypatch.setattr(memory, "_set_back", lambda: False)
    watch.begin()
    large = touch(300 * MIB)
    first = watch.peaks()
    del large
    watch.begin()
    small = touch(20 * MIB)
    second = watch.peaks()
    del small
    assert first.rss_bytes - second.rss_bytes > 250 * MIB
    assert first.anon_bytes - second.anon_bytes > 250 * MIB


@linux
def test_a_peak_between_two_readings_is_seen(watch):
    watch.begin()
    before = watch.peaks().anon_bytes
    data = touch(100 * MIB)
    time.sleep(4 * memory.LOOK_S)
    del data
    assert watch.peaks().anon_bytes - before > 90 * MIB


@linux
def test_pages_of_a_mapped_file_are_no_memory_that_must_stay(watch, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(MIB) * 100)
    watch.begin()
    before = watch.peaks()
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        after = watch.peaks()
        assert after.rss_bytes - before.rss_bytes > 90 * MIB
        assert after.anon_bytes - before.anon_bytes < 20 * MIB


@linux
def test_weights_that_are_used_from_a_file_are_found(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    from llmjobs.memory import mapped_weight_bytes

    save_file({"a": torch.ones(1 << 20)}, tmp_path / "m.safetensors")
    mapped = load_file(tmp_path / "m.safetensors")["a"]
    made = torch.ones(1 << 20)
    assert mapped_weight_bytes([made]) == 0
    assert mapped_weight_bytes([mapped, made, mapped]) == 4 << 20, "a tensor that is tied counts once"


def test_what_is_needed_is_unknown_where_a_part_is():
    assert needed_bytes(3, 4) == 7
    assert needed_bytes(None, 4) is None and needed_bytes(3, None) is None


def test_without_proc_there_is_one_figure(watch, monkeypatch, tmp_path):
    for name in ("_STATUS", "_CLEAR", "_MAPS"):
        monkeypatch.setattr(memory, name, tmp_path / "none" / name)
    watch.begin()
    found = watch.peaks()
    assert found.rss_bytes > MIB and found.anon_bytes is None
    assert resident().anon_bytes is None and memory.mapped_files() is None


@linux
def test_a_fork_does_not_take_the_parents_peaks_for_its_own(watch):
    watch.begin()
    process = os.fork()
    if not process:
        os._exit(watch.peaks().anon_bytes is not None)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_cpu_seconds_are_finer_than_the_kernels_ticks():
    spans = []
    for _ in range(20):
        with measured() as span:
            sum(range(60_000))
        spans.append(span.user_s + span.system_s)
    assert any(0 < seconds < 0.009 for seconds in spans)


class TwoGpus:
    def start(self):
        pass

    def stop(self):
        return 3.0, 30

    def each(self):
        return ((1.0, 10), (2.0, 20))


def test_several_devices_are_summed_and_listed():
    with measured(TwoGpus()) as span:
        pass
    record = span.to_record()
    assert (record["gpu_s"], record["peak_device_bytes"]) == (3.0, 30)
    assert (record["gpu_s_each"], record["peak_device_bytes_each"]) == ([1.0, 2.0], [10, 20])


FREED_BETWEEN = """
import ctypes, sys
from contextlib import nullcontext
from llmjobs.memory import blocks_given_back, current_anon_bytes
libc, size = ctypes.CDLL(None), 4 << 20
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.free(libc.malloc(24 << 20))  # from here on, glibc by itself takes blocks of this size from the heap
before = current_anon_bytes()
with blocks_given_back() if sys.argv[1] == "back" else nullcontext():
    blocks = []
    for _ in range(40):
        blocks.append(libc.malloc(size))
        ctypes.memset(blocks[-1], 1, size)
    for block in blocks[:-1]:
        libc.free(block)
    print((current_anon_bytes() - before) // size)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries return memory in another way")
def test_blocks_that_are_freed_below_one_that_stays_are_returned() -> None:
    kept = {
        how: int(subprocess.run([sys.executable, "-c", FREED_BETWEEN, how], capture_output=True, check=True).stdout)
        for how in ("usual", "back")
    }
    assert kept["usual"] > 30 and kept["back"] <= 3
