"""What a rank needs of its device and its peers, tried one thing after the other, and written down as it is found.

Started by the supervisor as `python -m job.probe RUN_DIR`, as ranks are. The first check that fails ends it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from job.rundir import RunDir, write_atomically
from job.training.process import bind_to_parent, leave, show_stacks_when_asked

if __name__ == "__main__":
    bind_to_parent()  # before the import below, which takes seconds
    show_stacks_when_asked(RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0")))

import torch
import torch.distributed as dist

from job.errors import HardwareError

REQUEST = "probe.json"
EXACT = 1024  # sums of so many +1 and -1 stay well below 256, which bf16 still holds exactly
LARGE = {"cuda": 8192, "cpu": 512}  # rows of the matrices whose product is timed
REDUCED_BYTES = {"cuda": 256 << 20, "cpu": 4 << 20}
REPEATS = 10
SILENCE = timedelta(seconds=60)


class Findings:
    """In `probe-<rank>.json`: of each check its name, what was seen, and a figure to compare ranks by."""

    def __init__(self, file: Path) -> None:
        self._file, self._found = file, list[dict[str, object]]()

    def add(self, name: str, seen: str, figure: float | None = None) -> None:
        self._found.append({"name": name, "seen": seen, "figure": figure})
        write_atomically(self._file, json.dumps(self._found))


def probe(run: RunDir, rank: int) -> None:
    """Raises: HardwareError naming the check that failed, with a hint."""
    findings = Findings(run.path / f"probe-{rank}.json")
    device = chosen_device(findings)
    multiply(device, findings)
    if "RANK" not in os.environ:
        return
    asked = json.loads((run.path / REQUEST).read_text(encoding="utf-8"))
    meet(device, timedelta(seconds=asked["wait_seconds"]))
    findings.add(
        "the ranks meet", f"{os.environ['WORLD_SIZE']} at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    )
    reduce(device, "nccl" if device.type == "cuda" else "gloo", findings)
    if device.type == "cuda":
        reduce(torch.device("cpu"), "gloo", findings, dist.new_group(backend="gloo", timeout=SILENCE))


def chosen_device(findings: Findings) -> torch.device:
    if os.environ["SFT_JOB_DEVICE"] == "cpu":
        findings.add("torch", f"{torch.__version__}, on the CPU")
        return torch.device("cpu")
    built = torch.version.cuda or torch.version.hip
    if built is None:
        raise HardwareError(
            f"torch {torch.__version__} is built for CPUs only: install the build for this machine's GPUs"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise HardwareError(
            f"torch {torch.__version__} is built for {built}, and cannot use this machine's driver: "
            f"{first_line(error)}; bring the driver up to date, or install a torch for an older one"
        ) from error
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    major, minor = torch.cuda.get_device_capability(device)
    findings.add("torch", f"{torch.__version__} for {built}, {torch.cuda.get_device_name(device)} ({major}.{minor})")
    free, total = torch.cuda.mem_get_info(device)
    findings.add("memory that is free", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB", free / total)
    return device


def multiply(device: torch.device, findings: Findings) -> None:
    """A product that has to be exact, then the speed of a large one, in the precision that a run would take."""
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if bf16 else torch.float32
    if device.type == "cuda":
        findings.add("bf16", "computed" if bf16 else "not computed by this GPU", float(bf16))
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randint(0, 2, (EXACT, EXACT), generator=generator).mul(2).sub(1).float() for _ in range(2))
    try:
        product = (left.to(device, dtype) @ right.to(device, dtype)).float().cpu()
    except RuntimeError as error:
        built = " ".join(torch.cuda.get_arch_list()) or "no GPU"
        raise HardwareError(f"a matrix product fails: {first_line(error)}; this torch is built for {built}") from error
    if not torch.equal(product, left @ right):
        raise HardwareError("a matrix product is wrong: this device computes other numbers than the CPU; replace it")
    size = LARGE[device.type]
    operand = torch.ones(size, size, device=device, dtype=dtype)
    seconds = timed(device, lambda: operand @ operand)
    teraflops = 2 * size**3 / seconds / 1e12
    findings.add("matrix product", f"exact; {teraflops:.3g} TFLOP/s in {str(dtype).removeprefix('torch.')}", teraflops)


def meet(device: torch.device, wait: timedelta) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        dist.init_process_group(backend, timeout=wait, device_id=device if backend == "nccl" else None)
        dist.barrier()
    except (dist.DistError, RuntimeError) as error:
        raise HardwareError(
            f"the ranks do not meet at {place} over {backend}: {first_line(error)}; is it started on every node, and "
            "may they reach each other (SFT_JOB_LEADER, firewall, NetworkPolicy)? Where an address begins with 127, "
            f"set {backend.upper()}_SOCKET_IFNAME to the interface between them"
        ) from error


def reduce(device: torch.device, backend: str, findings: Findings, group: dist.ProcessGroup | None = None) -> None:
    """A sum that has to be exact, then the bus bandwidth of a large one: 2 (n - 1) / n of its bytes over its time
    (nccl-tests, PERFORMANCE.md)."""
    rank, size = dist.get_rank(), dist.get_world_size()
    try:
        one = torch.full((1024,), float(rank + 1), device=device)
        dist.all_reduce(one, group=group)
        wrong = bool((one != size * (size + 1) / 2).any())
        content = torch.zeros(REDUCED_BYTES[device.type] // 4, device=device)
        seconds = timed(device, lambda: dist.all_reduce(content, group=group))
    except (dist.DistError, RuntimeError) as error:
        raise HardwareError(
            f"an all-reduce over {backend} fails: {first_line(error)}; NCCL_DEBUG=INFO says more, NCCL_P2P_DISABLE=1 "
            "or NCCL_IB_DISABLE=1 tells which way between the GPUs is broken"
        ) from error
    if wrong:
        raise HardwareError(
            f"an all-reduce over {backend} gives a wrong sum: NCCL_P2P_DISABLE=1 tells whether the link does"
        )
    gigabytes = 2 * (size - 1) / size * content.nbytes / seconds / 1e9
    findings.add(f"all-reduce ({backend})", f"exact over {size} ranks; {gigabytes:.3g} GB/s", gigabytes)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one of several; the first one, which sets things up, does not count."""
    finished: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    work()
    finished()
    began = time.perf_counter()
    for _ in range(REPEATS):
        work()
    finished()
    return (time.perf_counter() - began) / REPEATS


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def main() -> None:
    run, rank = RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0"))
    code = leave(run, rank, lambda: probe(run, rank))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing of NCCL's shutdown may hang


if __name__ == "__main__":
    main()
