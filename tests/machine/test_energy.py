"""RAPL from a made powercap folder, a counter that wraps, NVML that is not there; nothing is estimated."""

import pytest

from llmjobs.machine import energy
from llmjobs.machine.energy import Counter, EnergyMeter, Unreadable, nvml_counter, rapl_counters


@pytest.fixture
def powercap(tmp_path):
    """Two packages and a part of one, as Linux shows them."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core"}
    for name, kind in zones.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(f"{kind}\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
    return tmp_path


def test_packages_are_added_up_and_their_parts_are_not(powercap):
    with EnergyMeter("cpu", powercap=powercap) as meter:
        for zone, micro in (("intel-rapl:0", 3_500_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 9_000_000)):
            (powercap / zone / "energy_uj").write_text(f"{micro}\n")
    assert meter.joules.by_source == {"cpu": 3.5}
    assert meter.joules.total_j == 3.5
    assert meter.joules.reasons == {}


def test_a_counter_that_wraps():
    values = iter([90.0, 95.0, 3.0])
    counter = Counter(lambda: next(values), wraps_j=100.0)
    counter.start()
    counter.advance()
    counter.advance()
    assert counter.total_j == pytest.approx(13.0)


def test_no_counters_is_a_reason_and_not_a_number(tmp_path):
    with EnergyMeter("cpu", powercap=tmp_path) as meter:
        pass
    assert meter.joules.total_j is None
    assert "no RAPL counters" in meter.joules.reasons["cpu"]


def test_a_counter_for_root_alone(powercap, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(energy.Path, "read_text", lambda path: refuse() if path.name == "energy_uj" else "package-0")
    with pytest.raises(Unreadable, match="can only be read by root; run chmod a\\+r"):
        rapl_counters(powercap)


def test_a_counter_that_breaks_in_between(powercap):
    with EnergyMeter("cpu", powercap=powercap) as meter:
        (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules.total_j is None
    assert "stopped responding" in meter.joules.reasons["cpu"]


def test_apples_gpu_has_a_reason(tmp_path):
    with EnergyMeter("mps", powercap=tmp_path) as meter:
        pass
    assert "powermetrics" in meter.joules.reasons["mps"]


@pytest.mark.cuda
def test_nvml_counts():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: NVML's energy counter is not tried")
    counter = nvml_counter(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    counter.start()
    square = torch.randn(4096, 4096, device="cuda")
    for _ in range(200):
        square @ square
    torch.cuda.synchronize()
    counter.advance()
    assert counter.total_j > 1


def test_nvml_without_a_device_is_a_reason():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    with pytest.raises(Unreadable, match="NVML does not report|nvidia-ml-py is not installed"):
        nvml_counter()
