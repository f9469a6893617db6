"""Scripts on several ranks without an agent: a rank that hangs prints where it waits."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


TIMEOUT = 280  # seconds, less than that of pytest


def run_on_ranks(script: Path, arguments: list, ranks: int, folder: Path) -> None:
    """Run a Python script on a number of ranks in a folder, and raise an error unless all of them exit with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    processes = []
    for rank in range(ranks):
        with (folder / f"stderr_{rank}.txt").open("wb") as errors:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, (script, *arguments))],
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd=folder,
                    env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                )
            )
    codes: list[int | None] = []
    for process in processes:
        try:
            codes.append(process.wait(TIMEOUT if not any(codes) else 5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # prints the stacks
            codes.append(process.wait())
    assert not any(codes), "\n".join(
        f"rank {rank} exited with {code}:\n{(folder / f'stderr_{rank}.txt').read_text()[-20_000:]}"
        for rank, code in enumerate(codes)
    )
