"""The doors in a process: memory, forks, threads beside torch's."""

import os
import subprocess
import sys
import threading

import numpy as np
import torch

import tersor
import tersor.numpy
import tersor.torch

MEMORY = """
import resource, sys
import numpy as np
import tersor, tersor.numpy

def peak():  # MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000

values = np.full(60_000_000, 1.5, np.float32)
out = np.ones_like(values)
before = peak()
data = tersor.compress(values)
tersor.decompress(data, out)
tersor.compress(memoryview(values))
tersor.save_file({"values": values}, sys.argv[1])
with tersor.safe_open(sys.argv[1]) as file:
    part = file.get_slice("values")[::1000]
assert (out == values).all() and (part == 1.5).all()
print(peak() - before)
"""


def test_large_inputs_are_not_copied(tmp_path):
    """240 MB in and out, and the peak grows by scratch alone. (The comparison's own result is 60 MB.)"""
    command = [sys.executable, "-c", MEMORY, tmp_path / "values.tsr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60 + 90


def test_a_child_after_fork_compresses():
    weights = np.random.default_rng(0).standard_normal(1_000_000, np.float32)
    data = tersor.compress(weights)
    child = os.fork()
    if child == 0:
        same = tersor.compress(weights) == data and (tersor.decompress(data) == weights).all()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_beside_torchs_threads():
    weights = torch.randn(1_000_000)
    data, stop, failed = tersor.torch.compress(weights), threading.Event(), []

    def multiply():
        square = torch.randn(300, 300)
        while not stop.is_set():
            square = (square @ square).clamp(-1, 1)

    def decode():
        for _ in range(20):
            if not torch.equal(tersor.torch.decompress(data), weights):
                failed.append("decode")

    worker = threading.Thread(target=multiply)
    decoders = [threading.Thread(target=decode) for _ in range(3)]
    for thread in (worker, *decoders):
        thread.start()
    for thread in decoders:
        thread.join()
    stop.set()
    worker.join()
    assert failed == []
