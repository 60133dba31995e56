"""The training that is attacked: PyTorch, with all that trainers write beside it.

Small, and paced as by a slow data source, so that several of them fit on a small machine. It logs
into scratch and rotates its log, keeps a cache there as compilers do, appends to a file of events
as TensorBoard does, and completes checkpoints by renaming: the steady noise in which a change
must be found, and none of it a finding.
"""

from __future__ import annotations

from tests.e2e.lab import Lab, Object
from tests.stage.jobs import trainer
from tests.stage.signing import signed

CODE = {
    "train.py": '''\
import itertools, json, os, pathlib, signal, time

import torch
from torch.utils.data import DataLoader, IterableDataset

signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
config = json.loads(pathlib.Path("/etc/training/config.json").read_text())
checkpoints, scratch = pathlib.Path("/checkpoints"), pathlib.Path("/tmp")


class Lines(IterableDataset):
    """A slow source: read by a process of its own, as data loaders do."""

    def __iter__(self):
        for seed in itertools.count():
            time.sleep(0.2)
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(16, 32, generator=generator)
            yield x, x.roll(1, dims=1)


torch.manual_seed(1906)
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32))
optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
for step, (x, y) in enumerate(DataLoader(Lines(), batch_size=None, num_workers=1)):
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log = scratch / "train.log"
    if log.exists() and log.stat().st_size > 4096:
        log.rename(scratch / "train.log.1")
    with log.open("a") as file:
        file.write(f"step {step} loss {loss.item():.6f}\\n")
    with (checkpoints / "events.out.tfevents").open("ab") as file:
        file.write(step.to_bytes(8, "little"))
    if step % 25 == 0:
        part = checkpoints / "latest.pt.part"
        torch.save({"step": step, "model": model.state_dict()}, part)
        part.rename(checkpoints / "latest.pt")
        cache = scratch / "torchinductor_root" / f"{step % 100:02}"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "kernel.py").write_text(f"# compiled for step {step}\\n")
    if step in (0, 25):
        torch.save({"step": step, "model": model.state_dict()}, checkpoints / f"step-{step}.pt")
    if step == 0:
        print("training", flush=True)
''',
    "startup.py": "import sys\n",
}


def training(lab: Lab, name: str, code: str, namespace: str, *, probed: bool) -> Object:
    """One worker of this training, signed by alice; ``code`` is CODE as pods name it."""
    job = lab.job(name, "train.py", namespace)
    job["spec"]["code"][0]["oci"]["reference"] = code
    if probed:  # the kubelet comes in every few seconds
        trainer(job)["livenessProbe"] = {
            "exec": {"command": ["cat", "/checkpoints/latest.pt"]},
            "initialDelaySeconds": 60,
            "periodSeconds": 10,
            "timeoutSeconds": 30,
            "failureThreshold": 10,
        }
    return signed(job, lab.alice)
