"""The shipped catalogues: every entry reads, is named as its file, and says where its numbers are from."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.engine.catalogue import Hardware, Kind, find, gpu_named, hardware, link, names
from planner.spec import SpecError, config_root
from planner.spec.faults import validate
from planner.spec.strict_yaml import read_mapping, read_text


@pytest.mark.parametrize("name", names("hardware"))
def test_hardware_reads(name: str) -> None:
    entry = hardware(name)
    assert entry.name == name
    assert all(text.strip() for text in entry.sources.values())
    # nvidia-smi's MiB and the vendor's GB are the same memory: 141 "GB" of an H200 are 140.4 GiB.
    assert 0.93 < (entry.memory_mib * 2**20) / (entry.memory_gb * 2**30) < 1.03
    assert entry.usable_bytes <= entry.memory_mib << 20
    assert entry.flops("bf16") >= entry.flops("fp32")
    assert entry.flops("fp8") >= entry.flops("bf16")


@pytest.mark.parametrize("name", names("links"))
def test_links_read(name: str) -> None:
    entry = link(name)
    assert entry.name == name
    assert len(entry.source) > 20


def test_the_promised_entries_are_there() -> None:
    gpus = {
        "a100-40g",
        "a100-80g",
        "a100-80g-pcie",
        "h100",
        "h100-pcie",
        "h100-nvl",
        "h20",
        "h200",
        "b200",
        "b300",
        "gb200",
    }
    gpus |= {"l4", "l40s", "rtx-4090", "rtx-5090", "rtx-pro-6000", "mi300x", "mi355x", "cpu"}
    assert gpus <= set(names("hardware"))
    assert {"nvlink", "pcie5", "roce_400gbe", "ib_400", "tcpx", "nixl_pull_no_rdma", "cpu_shm"} <= set(names("links"))


def test_figures_of_the_h200() -> None:
    h200 = hardware("h200")
    assert (h200.memory_mib, h200.bandwidth_gb_s, h200.tflops["bf16"]) == (143_771, 4800, 989.4)
    assert h200.memory_bandwidth == 4.8e12
    assert h200.flops("bf16") == pytest.approx(989.4e12)
    assert hardware("a100-80g").flops("fp8") == hardware("a100-80g").flops("bf16")  # no fp8 units


def test_a_path_works_as_well(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(read_text(config_root() / "hardware/h100.yaml").replace("name: h100", "name: mine"))
    assert hardware(str(file)).name == "mine"


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("hardware", "h210", "hardware: 'h210' is unknown; did you mean 'h20'? allowed: a100-40g, a100-80g, "),
        ("links", "nvlinc", "deployment.link.preset: 'nvlinc' is unknown; did you mean 'nvlink'? allowed: "),
        ("models", "zzz", "model: 'zzz' is unknown; allowed: "),
        ("hardware", "no/such.yaml", "hardware: 'no/such.yaml' is unknown; allowed: "),
    ],
)
def test_unknown_entries_get_one_line(kind: Kind, name: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        find(kind, name)
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith(", or a path")


def test_a_number_without_a_source_is_refused() -> None:
    path = config_root() / "hardware/l4.yaml"
    data = read_mapping(read_text(path), str(path))
    del data["sources"]["tdp_w"]
    with pytest.raises(SpecError, match=r"^l4\.yaml: sources: no source for tdp_w; allowed: one line of text each$"):
        validate(Hardware, data, "l4.yaml")


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("NVIDIA-H100-80GB-HBM3", "h100"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA-A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-80g-pcie"),
        ("nvidia-a100", "a100-80g"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA RTX 3060", None),
        ("Tesla T4", None),
    ],
)
def test_a_gpu_is_known_by_its_own_name(text: str, entry: str | None) -> None:
    assert gpu_named(text) == entry


@pytest.mark.parametrize(
    ("kind", "said", "meant"),
    [
        ("hardware", "RTX 4090", "rtx-4090"),
        ("hardware", "A100", "a100-80g"),  # not h100, which differs by a letter
        ("hardware", "NVIDIA H100 80GB HBM3", "h100"),
        ("models", "qwen3:8b", "qwen3-8b"),
        ("models", "mistral-7b", "mistral-7b-v0.1"),
    ],
)
def test_other_ways_to_write_a_name_are_understood(kind: Kind, said: str, meant: str) -> None:
    with pytest.raises(SpecError, match=f"did you mean '{meant}'"):
        find(kind, said)
