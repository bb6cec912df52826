"""What a figure depends on besides the code: the machine, the compiler, the versions of the peers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_FLAGS = (
    "avx2",
    "bmi2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vbmi",
    "avx512_vbmi2",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "gfni",
)
_PEERS = (
    "numpy", "ml_dtypes", "zstandard", "lz4", "zipnn", "pcodec", "blosc2", "torch", "onnxruntime", "onnx",
    "bitsandbytes", "ik-llama-cpp-python",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """Facts of this machine and build; no host name, user or path among them."""
    import tersor

    cpu = _cpuinfo()
    flags = set(cpu.get("flags", "").split())
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_family_model_stepping": [cpu.get(key) for key in ("cpu family", "model", "stepping")],
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "nominal_ghz": _nominal_ghz(cpu),
        "kernel": platform.release(),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
        "compiler": _compiler(),
        "tersor": tersor.show_config("dicts"),
        "peers": {name: version for name in _PEERS if (version := _version(name))} | _libraries(),
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpuinfo() -> dict[str, str]:
    text = _read("/proc/cpuinfo") or ""
    first = text.split("\n\n", 1)[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def _nominal_ghz(cpu: dict[str, str]) -> float | None:
    # The clock that a model's name states is its time stamp counter's on current Intel parts; boost is not in it.
    found = re.search(r"@ ([0-9.]+)GHz", cpu.get("model name", ""))
    return float(found[1]) if found else None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libraries() -> dict[str, str]:
    """Versions of the Debian packages that huff0 and htscodecs come from, where dpkg knows them."""
    found: dict[str, str] = {}
    for package in ("libzstd-dev", "libhtscodecs2"):
        try:
            done = subprocess.run(
                ["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False
            )
        except OSError:
            return found
        if done.returncode == 0 and done.stdout:
            found[package] = done.stdout
    return found


def _compiler() -> str | None:
    """The compilers that left their names in the native module."""
    import tersor._core

    found = re.findall(rb"(?:GCC: \([^)]*\)|clang version) [0-9.]+", Path(tersor._core.__file__).read_bytes())
    return ", ".join(sorted({name.decode() for name in found})) or None


def _commit() -> str | None:
    """The commit of the checkout that this runs in, "+" when it has changes, None outside one."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
        if head.returncode != 0:
            return None
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
