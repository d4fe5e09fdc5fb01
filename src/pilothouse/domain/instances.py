"""
GPU machines that the clouds rent out: hardware facts, and no price.

Compiled by hand on the date below from the vendors' public descriptions; it is not
fetched or kept up to date, it is not complete, and whether a region has a type is
not known here. Prices change weekly and differ by contract, so they come from the
user (`domain.prices`). A fact that was not certain is left out: so is its machine.
"""

from typing import Literal

from msgspec import Struct

COMPILED_ON = "2026-11-25"

Cloud = Literal["aws", "gcp", "azure"]
Link = Literal["none", "pcie", "nvlink"]


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    memory_gb: int
    """Nominal, in powers of 1000: what the driver shows is never less."""
    bandwidth_gb_per_s: int
    """Of its memory, the maker's figure: no real program reaches it."""


class Instance(Struct, frozen=True, kw_only=True):
    cloud: Cloud
    name: str
    """As the cloud's own interface spells it."""
    gpu: Gpu
    gpus: int
    link: Link
    """How its GPUs reach each other; `none` for a single one."""
    cpus: int
    memory_gib: int
    """Of the host, as the cloud states it."""


T4 = Gpu(name="T4", memory_gb=16, bandwidth_gb_per_s=320)
A10 = Gpu(name="A10", memory_gb=24, bandwidth_gb_per_s=600)
A10G = Gpu(name="A10G", memory_gb=24, bandwidth_gb_per_s=600)
L4 = Gpu(name="L4", memory_gb=24, bandwidth_gb_per_s=300)
L40S = Gpu(name="L40S", memory_gb=48, bandwidth_gb_per_s=864)
A100_40 = Gpu(name="A100 40GB", memory_gb=40, bandwidth_gb_per_s=1555)
A100_80 = Gpu(name="A100 80GB", memory_gb=80, bandwidth_gb_per_s=2039)
A100_80_PCIE = Gpu(name="A100 80GB PCIe", memory_gb=80, bandwidth_gb_per_s=1935)
H100 = Gpu(name="H100 80GB", memory_gb=80, bandwidth_gb_per_s=3350)
H100_NVL = Gpu(name="H100 NVL", memory_gb=94, bandwidth_gb_per_s=3900)
H200 = Gpu(name="H200", memory_gb=141, bandwidth_gb_per_s=4800)

_Row = tuple[Cloud, str, Gpu, int, Link, int, int]
_ROWS: tuple[_Row, ...] = (
    ("aws", "g4dn.xlarge", T4, 1, "none", 4, 16),
    ("aws", "g4dn.2xlarge", T4, 1, "none", 8, 32),
    ("aws", "g4dn.12xlarge", T4, 4, "pcie", 48, 192),
    ("aws", "g5.xlarge", A10G, 1, "none", 4, 16),
    ("aws", "g5.2xlarge", A10G, 1, "none", 8, 32),
    ("aws", "g5.12xlarge", A10G, 4, "pcie", 48, 192),
    ("aws", "g5.48xlarge", A10G, 8, "pcie", 192, 768),
    ("aws", "g6.xlarge", L4, 1, "none", 4, 16),
    ("aws", "g6.2xlarge", L4, 1, "none", 8, 32),
    ("aws", "g6.12xlarge", L4, 4, "pcie", 48, 192),
    ("aws", "g6.48xlarge", L4, 8, "pcie", 192, 768),
    ("aws", "g6e.xlarge", L40S, 1, "none", 4, 32),
    ("aws", "g6e.2xlarge", L40S, 1, "none", 8, 64),
    ("aws", "g6e.12xlarge", L40S, 4, "pcie", 48, 384),
    ("aws", "g6e.48xlarge", L40S, 8, "pcie", 192, 1536),
    ("aws", "p4d.24xlarge", A100_40, 8, "nvlink", 96, 1152),
    ("aws", "p4de.24xlarge", A100_80, 8, "nvlink", 96, 1152),
    ("aws", "p5.48xlarge", H100, 8, "nvlink", 192, 2048),
    ("aws", "p5e.48xlarge", H200, 8, "nvlink", 192, 2048),
    ("aws", "p5en.48xlarge", H200, 8, "nvlink", 192, 2048),
    ("gcp", "g2-standard-4", L4, 1, "none", 4, 16),
    ("gcp", "g2-standard-8", L4, 1, "none", 8, 32),
    ("gcp", "g2-standard-24", L4, 2, "pcie", 24, 96),
    ("gcp", "g2-standard-48", L4, 4, "pcie", 48, 192),
    ("gcp", "g2-standard-96", L4, 8, "pcie", 96, 384),
    ("gcp", "a2-highgpu-1g", A100_40, 1, "none", 12, 85),
    ("gcp", "a2-highgpu-2g", A100_40, 2, "nvlink", 24, 170),
    ("gcp", "a2-highgpu-4g", A100_40, 4, "nvlink", 48, 340),
    ("gcp", "a2-highgpu-8g", A100_40, 8, "nvlink", 96, 680),
    ("gcp", "a2-megagpu-16g", A100_40, 16, "nvlink", 96, 1360),
    ("gcp", "a2-ultragpu-1g", A100_80, 1, "none", 12, 170),
    ("gcp", "a2-ultragpu-2g", A100_80, 2, "nvlink", 24, 340),
    ("gcp", "a2-ultragpu-4g", A100_80, 4, "nvlink", 48, 680),
    ("gcp", "a2-ultragpu-8g", A100_80, 8, "nvlink", 96, 1360),
    ("gcp", "a3-highgpu-8g", H100, 8, "nvlink", 208, 1872),
    ("gcp", "a3-megagpu-8g", H100, 8, "nvlink", 208, 1872),
    ("azure", "Standard_NC4as_T4_v3", T4, 1, "none", 4, 28),
    ("azure", "Standard_NC8as_T4_v3", T4, 1, "none", 8, 56),
    ("azure", "Standard_NC64as_T4_v3", T4, 4, "pcie", 64, 440),
    ("azure", "Standard_NV36ads_A10_v5", A10, 1, "none", 36, 440),
    ("azure", "Standard_NV72ads_A10_v5", A10, 2, "pcie", 72, 880),
    ("azure", "Standard_NC24ads_A100_v4", A100_80_PCIE, 1, "none", 24, 220),
    ("azure", "Standard_NC48ads_A100_v4", A100_80_PCIE, 2, "nvlink", 48, 440),
    ("azure", "Standard_NC96ads_A100_v4", A100_80_PCIE, 4, "nvlink", 96, 880),
    ("azure", "Standard_ND96asr_v4", A100_40, 8, "nvlink", 96, 900),
    ("azure", "Standard_NC40ads_H100_v5", H100_NVL, 1, "none", 40, 320),
    ("azure", "Standard_NC80adis_H100_v5", H100_NVL, 2, "nvlink", 80, 640),
    ("azure", "Standard_ND96isr_H100_v5", H100, 8, "nvlink", 96, 1900),
)

INSTANCES = tuple(
    Instance(cloud=cloud, name=name, gpu=gpu, gpus=gpus, link=link, cpus=cpus, memory_gib=memory)
    for cloud, name, gpu, gpus, link, cpus, memory in _ROWS
)
