"""What is measured: seconds, floating-point operations, bytes moved, peak memory, and what the machine can do at best."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

# rows x inner x columns of products that the towers make: the MLPs of text and ViT, and a large square one
GEMMS = ((2048, 512, 2048), (1576, 768, 3072), (2048, 2048, 2048))
aten = torch.ops.aten


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call; on a GPU until it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def gemm_peaks(device: torch.device, dtype: torch.dtype, tries: int = 12) -> dict[str, float]:
    """FLOP/s of each product in GEMMS, the best of `tries`."""
    found = {}
    for m, k, n in GEMMS:
        a, b = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)
        best = min(seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(tries))  # noqa: B023
        found[f"{m}x{k}x{n}"] = 2 * m * k * n / best
    return found


def bandwidth(device: torch.device, tries: int = 8) -> float:
    """Bytes per second of a copy (read and written) that no cache holds, the best of `tries`."""
    a = torch.ones(64 * 2**20, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / min(seconds(lambda: b.copy_(a), device) for _ in range(tries))


class Traffic(TorchDispatchMode):
    """Bytes of all tensors that operators read and write: what would move if no cache kept anything between two of them."""

    VIEWS = set(
        "view _unsafe_view t transpose expand slice select unsqueeze squeeze detach alias split split_with_sizes chunk unbind "
        "permute as_strided reshape _reshape_alias".split()
    )

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in self.VIEWS:
            moved = tree_leaves((args, kwargs, out))
            self.bytes += sum(t.nbytes for t in moved if isinstance(t, torch.Tensor))
        return out


def _attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop(query, key, value)


def _attention_backward(grad_out, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop(grad_out, query, key, value)


# torch's table of operators lacks the attention kernel of its CPU build
CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count(work: Callable[[], object]) -> tuple[int, int, object]:
    """Operations of matrix products and attention (a multiplication and an addition are two), bytes, and the result."""
    with Traffic() as traffic, FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        result = work()
    return counter.get_total_flops(), traffic.bytes, result


class Memory:
    """Peak memory in bytes of what happens inside `with`, above what was held before; None where it cannot be seen.

    GPU: the allocator's high-water mark. CPU: that of the process (Linux), set back before; freed pages go back first.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, None

    def __enter__(self) -> Memory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        elif sys.platform.startswith("linux"):
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes the present size
            self.before = _status("VmRSS")
        return self

    def __exit__(self, *_) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.peak = torch.cuda.max_memory_allocated(self.device) - self.before
        elif sys.platform.startswith("linux"):
            self.peak = max(0, _status("VmHWM") - self.before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def spread(times: list[float]) -> dict:
    """Median, least and largest of repeated measurements, and all of them."""
    return {
        "seconds": statistics.median(times),
        "fastest": min(times),
        "slowest": max(times),
        "repeats": len(times),
        "times": [round(t, 6) for t in times],
    }
