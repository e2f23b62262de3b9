"""What this machine is: cores, instruction sets, memory, GPU; its fingerprint; pinning."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
)
_LIBRARIES = ("torch", "onnxruntime", "openvino", "nncf", "tokenizers", "ray")


def usable_cores() -> list[int]:
    """Core numbers that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin_to(cores: list[int]) -> None:
    """Keep every thread of this process on the given cores; nothing where the system cannot."""
    if hasattr(os, "sched_setaffinity"):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
                os.sched_setaffinity(int(thread.name), cores)


def has_cpu_quota() -> bool:
    """Whether this container is held to CPU time rather than to cores, which it then shares with others."""
    limit = Path("/sys/fs/cgroup/cpu.max")
    return limit.is_file() and not limit.read_text().startswith("max")


@lru_cache(maxsize=1)
def describe_hardware() -> dict[str, Any]:
    """CPU model and flags, cores, memory, GPUs, system, library versions; all JSON."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(usable_cores()),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def fingerprint(description: dict[str, Any]) -> str:
    """Short hash of a hardware description; figures of different ones are not comparable."""
    content = json.dumps(description, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AMX or AVX-512 BF16)."""
    return bool({"amx_bf16", "avx512_bf16"} & set(describe_hardware()["flags"]))


def has_fp16() -> bool:
    """Whether the CPU multiplies fp16 natively (AMX or AVX-512 FP16)."""
    return bool({"amx_fp16", "avx512_fp16"} & set(describe_hardware()["flags"]))


def has_int8() -> bool:
    """Whether the CPU multiplies int8 natively (AMX or VNNI)."""
    return bool({"amx_int8", "avx512_vnni", "avx_vnni"} & set(describe_hardware()["flags"]))


def has_compiler() -> bool:
    """Whether a C++ compiler is on the PATH."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def memory_bytes() -> int:
    """Memory of the machine, or of its cgroup where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file():
        text = limit.read_text().strip()
        if text.isdigit():
            return min(total, int(text))
    return total


def _cpu() -> tuple[str, set[str]]:
    model, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    return model, flags


def _gpus() -> list[str]:
    drivers = Path("/proc/driver/nvidia/gpus")
    if not drivers.is_dir():
        return []
    names = []
    for folder in sorted(drivers.iterdir()):
        for line in (folder / "information").read_text().splitlines():
            if line.startswith("Model:"):
                names.append(line.partition(":")[2].strip())
    return names


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
