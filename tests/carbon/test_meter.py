"""The meter reads counters, fills what they do not cover, and says which is which."""

from pathlib import Path

import pytest

from criadero import config
from criadero.carbon.config import CarbonConfig
from criadero.carbon.meter import EnergyMeter, Machine, this_machine
from criadero.carbon.reading import EnergyReading, kgco2e
from criadero.errors import ConfigError


class Clock:
    """Monotonic seconds that move when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FakeNvml:
    """As much of pynvml as the meter calls; millijoules and milliwatts as there."""

    def __init__(self, num_gpus: int = 2) -> None:
        self.energy_mj = [5_000_000_000 + 7 * i for i in range(num_gpus)]
        self.broken = False

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.energy_mj)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"NVIDIA H200"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if self.broken:
            raise RuntimeError("GPU is lost")
        return self.energy_mj[handle]


class NoDriver:
    """NVML on a machine without a GPU."""

    def nvmlInit(self) -> None:
        raise RuntimeError("Driver Not Loaded")


def write_proc(proc: Path, *, busy_ticks: int, idle_ticks: int) -> None:
    proc.mkdir(parents=True, exist_ok=True)
    (proc / "stat").write_text(f"cpu  {busy_ticks} 0 0 {idle_ticks} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    (proc / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")


def write_zone(powercap: Path, folder: str, *, name: str, energy_uj: int, range_uj: int = 262_143_328_850):
    zone = powercap / folder
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text(name + "\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")


def part(reading: EnergyReading, name: str):
    (found,) = [component for component in reading.components if component.name == name]
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


def start_meter(tmp_path: Path, clock: Clock, *, nvml=None, **options) -> EnergyMeter:
    machine = Machine(powercap=tmp_path / "powercap", proc=tmp_path / "proc", nvml=nvml, num_cpus=3)
    values = CarbonConfig(**options.pop("config", {}))
    return EnergyMeter(values, machine=machine, clock=clock, **options).start()


def test_nvml_counters_of_all_gpus_are_summed_and_measured(tmp_path, clock):
    nvml = FakeNvml(num_gpus=3)
    meter = start_meter(tmp_path, clock, nvml=nvml, host=False)
    clock.seconds += 10
    nvml.energy_mj = [energy + 4_000_000 for energy in nvml.energy_mj]
    reading = meter.read()
    assert part(reading, "gpu").joules == pytest.approx(12_000)
    assert part(reading, "gpu").provenance == "measured"
    assert "3 x NVIDIA H200" in part(reading, "gpu").note
    assert part(reading, "overhead").joules == pytest.approx(1_200)
    assert part(reading, "overhead").provenance == "assumed"
    assert reading.joules_total == pytest.approx(13_200)
    assert reading.measured_fraction == pytest.approx(1 / 1.1)


def test_a_rank_meters_only_the_gpu_it_names_by_uuid_or_index(tmp_path, clock):
    for gpus in (["GPU-1"], [1]):
        nvml = FakeNvml()
        meter = start_meter(tmp_path, clock, nvml=nvml, host=False, gpus=gpus)
        nvml.energy_mj = [nvml.energy_mj[0] + 10_000_000, nvml.energy_mj[1] + 3_000]
        assert part(meter.read(), "gpu").joules == pytest.approx(3)


def test_a_gpu_that_falls_over_is_filled_at_its_power_limit_and_no_longer_called_measured(tmp_path, clock):
    nvml = FakeNvml(num_gpus=1)
    meter = start_meter(tmp_path, clock, nvml=nvml, host=False)
    clock.seconds += 1
    nvml.energy_mj[0] += 100_000
    meter.read()
    nvml.broken = True
    clock.seconds += 2
    gpu = part(meter.read(), "gpu")
    assert gpu.joules == pytest.approx(100 + 2 * 700)
    assert gpu.provenance == "modelled"
    assert "1400 J" in gpu.note


def test_a_gpu_counter_that_starts_anew_is_not_subtracted(tmp_path, clock):
    nvml = FakeNvml(num_gpus=1)
    meter = start_meter(tmp_path, clock, nvml=nvml, host=False)
    nvml.energy_mj[0] = 2_000
    assert part(meter.read(), "gpu").joules == pytest.approx(2)


def test_gpus_that_only_the_driver_lists_are_assumed_at_the_papers_400_watts(tmp_path, clock):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "proc/driver/nvidia/gpus" / name).mkdir(parents=True)
    meter = start_meter(tmp_path, clock, nvml=NoDriver(), host=False)
    clock.seconds += 5
    gpu = part(meter.read(), "gpu")
    assert (gpu.joules, gpu.provenance) == (pytest.approx(2 * 400 * 5), "assumed")
    assert "400 W" in gpu.note


def test_a_machine_without_gpus_has_no_gpu_component(tmp_path, clock):
    write_proc(tmp_path / "proc", busy_ticks=0, idle_ticks=0)
    meter = start_meter(tmp_path, clock, nvml=NoDriver())
    assert [component.name for component in meter.read().components] == ["cpu", "memory", "overhead"]


def test_rapl_counts_packages_and_memory_once(tmp_path, clock):
    powercap = tmp_path / "powercap"
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for folder, name in zones.items():
        write_zone(powercap, folder, name=name, energy_uj=1_000_000)
    meter = start_meter(tmp_path, clock)
    clock.seconds += 1
    for folder, name in zones.items():
        write_zone(powercap, folder, name=name, energy_uj=31_000_000)
    reading = meter.read()
    assert part(reading, "cpu").joules == pytest.approx(60)
    assert part(reading, "memory").joules == pytest.approx(30)
    assert {component.provenance for component in reading.components[:2]} == {"measured"}


def test_a_rapl_counter_that_wraps_goes_on_counting(tmp_path, clock):
    powercap = tmp_path / "powercap"
    write_zone(powercap, "intel-rapl:0", name="package-0", energy_uj=65_000_000_000, range_uj=65_532_610_987)
    meter = start_meter(tmp_path, clock)
    clock.seconds += 10
    write_zone(powercap, "intel-rapl:0", name="package-0", energy_uj=1_000_000, range_uj=65_532_610_987)
    cpu = part(meter.read(), "cpu")
    assert cpu.joules == pytest.approx(532.610987 + 1)
    assert cpu.provenance == "measured"


def test_a_pause_in_which_a_counter_may_have_wrapped_twice_is_modelled(tmp_path, clock):
    write_zone(tmp_path / "powercap", "intel-rapl:0", name="package-0", energy_uj=0, range_uj=65_532_610_987)
    meter = start_meter(tmp_path, clock, config={"cpu_tdp_watts": 90})
    clock.seconds += 3600
    cpu = part(meter.read(), "cpu")
    assert (cpu.joules, cpu.provenance) == (pytest.approx(3600 * 90), "modelled")


def test_a_rapl_counter_that_may_not_be_read_is_replaced_by_the_model(tmp_path, clock):
    zone = tmp_path / "powercap/intel-rapl:0"
    write_zone(tmp_path / "powercap", "intel-rapl:0", name="package-0", energy_uj=5)
    (zone / "energy_uj").unlink()
    (zone / "energy_uj").mkdir()  # reading it raises OSError for every user, root too
    write_proc(tmp_path / "proc", busy_ticks=100, idle_ticks=100)
    meter = start_meter(tmp_path, clock)
    assert part(meter.read(), "cpu").provenance == "modelled"


def test_the_modelled_cpu_is_its_tdp_times_the_busy_ticks(tmp_path, clock):
    write_proc(tmp_path / "proc", busy_ticks=1000, idle_ticks=5000)
    meter = start_meter(tmp_path, clock, config={"cpu_tdp_watts": 65})
    clock.seconds += 10
    write_proc(tmp_path / "proc", busy_ticks=1250, idle_ticks=5750)
    cpu = part(meter.read(), "cpu")
    assert (cpu.joules, cpu.provenance) == (pytest.approx(65 * 10 * 0.25), "modelled")
    assert "65 W (configured)" in cpu.note


def test_without_a_configured_tdp_each_cpu_is_taken_to_have_4_watts_and_the_note_says_so(tmp_path, clock):
    write_proc(tmp_path / "proc", busy_ticks=0, idle_ticks=0)
    meter = start_meter(tmp_path, clock)
    clock.seconds += 10
    write_proc(tmp_path / "proc", busy_ticks=30, idle_ticks=0)
    cpu = part(meter.read(), "cpu")
    assert cpu.joules == pytest.approx(3 * 4 * 10)
    assert "12 W (assumed, 4 W x 3 CPUs)" in cpu.note


def test_an_unknown_machine_is_assumed_at_full_power_never_at_zero(tmp_path, clock):
    meter = start_meter(tmp_path, clock)
    clock.seconds += 10
    reading = meter.read()
    assert part(reading, "cpu").joules == pytest.approx(120)
    assert part(reading, "memory").joules == pytest.approx(16 * 0.375 * 10)
    assert {component.provenance for component in reading.components} == {"assumed"}
    assert "size unknown" in part(reading, "memory").note


def test_memory_is_assumed_by_its_installed_size(tmp_path, clock):
    write_proc(tmp_path / "proc", busy_ticks=0, idle_ticks=0)
    meter = start_meter(tmp_path, clock)
    clock.seconds += 8
    assert part(meter.read(), "memory").joules == pytest.approx(16.384 * 0.375 * 8)


def test_start_begins_again_at_zero(tmp_path, clock):
    meter = start_meter(tmp_path, clock)
    clock.seconds += 10
    assert meter.read().joules_total > 0
    assert meter.start().read().joules_total == 0


def test_the_meter_of_this_machine_gives_a_growing_figure():
    meter = EnergyMeter(CarbonConfig(), machine=this_machine()).start()
    first = meter.read()
    while meter.read().seconds < first.seconds + 0.03:
        pass
    second = meter.read()
    assert second.joules_total > first.joules_total
    assert second.kwh == pytest.approx(second.joules_total / 3.6e6)


def test_a_kilowatt_hour_at_the_us_average_is_385_grams():
    assert kgco2e(3_600_000, 0.385) == pytest.approx(0.385)


def test_a_pue_below_one_is_refused():
    with pytest.raises(ConfigError, match="pue"):
        config.validate(CarbonConfig, {"pue": 0.9, "grid_kgco2e_per_kwh": -1}, where="test")
