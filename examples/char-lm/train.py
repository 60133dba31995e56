"""Train a character-level language model on one or more workers.

    python train.py --config config.json --data TEXT --checkpoints DIR

Alone it is one process. With WORLD_SIZE above 1, RANK, MASTER_ADDR and MASTER_PORT in the
environment the workers find each other through torch.distributed (gloo) and average gradients.
The same configuration, text and number of workers give the same model, also across a restart.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import checkpoints
import torch
import torch.distributed as dist
from model import CharModel, Vocabulary
from torch import nn
from torch.nn.parallel import DistributedDataParallel

RENDEZVOUS_SECONDS = 180
DEFAULT_TEXT = Path("/usr/share/trainseal/devils-dictionary.txt")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the signed configuration may set."""

    learning_rate: float = 0.003
    batch_size: int = 16  # sequences a worker a step
    sequence_length: int = 64  # characters
    hidden_size: int = 128
    steps: int = 80
    seed: int = 1906
    checkpoint_every: int = 20  # steps
    log_every: int = 5  # steps

    @classmethod
    def load(cls, path: Path) -> Parameters:
        """Read a JSON or, where PyYAML is installed, a YAML mapping; refuse unknown names."""
        if path.suffix in {".yaml", ".yml"}:
            import yaml  # only here: JSON needs no package

            raw = yaml.safe_load(path.read_text())
        else:
            raw = json.loads(path.read_text())
        known = {field.name: type(field.default) for field in dataclasses.fields(cls)}
        if not isinstance(raw, dict) or (unknown := set(raw) - set(known)):
            wrong = sorted(unknown) if isinstance(raw, dict) else type(raw).__name__
            sys.exit(f"{path}: found {wrong}, expected parameters among {sorted(known)}")
        return cls(**{name: known[name](value) for name, value in raw.items()})


@dataclasses.dataclass(frozen=True)
class Place:
    """Which worker this is, of how many."""

    rank: int
    size: int

    @classmethod
    def find(cls) -> Place:
        """From RANK and WORLD_SIZE; alone where they are not set."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def say(self, text: str) -> None:
        """One line of the log, written out at once."""
        print(f"[{self.rank}/{self.size}] {text}", flush=True)  # noqa: T201


def join(place: Place) -> None:
    """Meet the other workers."""
    if place.size == 1:
        return
    master = os.environ["MASTER_ADDR"]
    deadline = time.monotonic() + RENDEZVOUS_SECONDS
    while True:
        # The first worker's name appears in DNS once its pod has an address.
        try:
            address = socket.getaddrinfo(master, None, type=socket.SOCK_STREAM)[0][4][0]
            break
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                sys.exit(f"{master} has no address after {RENDEZVOUS_SECONDS} s: {error}")
            time.sleep(0.2)
    place.say(f"meeting at {master} ({address}) port {os.environ['MASTER_PORT']}")
    dist.init_process_group(
        "gloo",
        rank=place.rank,
        world_size=place.size,
        timeout=timedelta(seconds=RENDEZVOUS_SECONDS),
    )
    place.say(f"{place.size} workers met")


def batch(
    text: torch.Tensor, parameters: Parameters, step: int, place: Place
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of one step: a function of seed, step and rank alone."""
    chance = torch.Generator().manual_seed(
        (parameters.seed * 1_000_003 + step) * place.size + place.rank
    )
    last = len(text) - parameters.sequence_length - 1
    starts = torch.randint(0, last, (parameters.batch_size,), generator=chance)
    rows = torch.stack([text[start : start + parameters.sequence_length + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def mean_over_workers(value: torch.Tensor, place: Place) -> float:
    """The mean of a number over all workers."""
    value = value.detach().clone()
    if place.size > 1:
        dist.all_reduce(value)
    return float(value) / place.size


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of all weights: equal on every worker, and in every run of one configuration."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.numpy().tobytes())
    return whole.hexdigest()


def train(parameters: Parameters, data: Path, directory: Path, place: Place) -> None:
    """All steps from the last checkpoint on."""
    torch.manual_seed(parameters.seed)
    raw = data.read_text(errors="replace")
    vocabulary = Vocabulary.of(raw)
    text = vocabulary.encode(raw)
    model = CharModel(len(vocabulary), parameters.hidden_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=parameters.learning_rate)
    # Every worker reads the checkpoint; agree_on_start finds out where volumes differ.
    done = checkpoints.restore(directory, model, optimizer)
    if place.rank == 0:
        size = sum(weight.numel() for weight in model.parameters())
        place.say(f"{len(text)} characters of {len(vocabulary)} kinds, {size} weights")
        place.say(f"resumed after step {done}" if done else "starting at step 1")
    done = agree_on_start(done, place)
    trained = DistributedDataParallel(model) if place.size > 1 else model
    since, tokens = time.monotonic(), 0
    for step in range(done + 1, parameters.steps + 1):
        inputs, targets = batch(text, parameters, step, place)
        scores = trained(inputs)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tokens += targets.numel() * place.size
        last = step == parameters.steps
        if step == done + 1 or step % parameters.log_every == 0 or last:
            value = mean_over_workers(loss, place)
            if not math.isfinite(value):
                sys.exit(f"loss is {value} at step {step}")
            if place.rank == 0:
                rate = tokens / (time.monotonic() - since)
                place.say(f"step {step} loss {value:.4f} tokens/s {rate:.0f}")
            since, tokens = time.monotonic(), 0
        if place.rank == 0 and (step % parameters.checkpoint_every == 0 or last):
            path = checkpoints.save(directory, step, model, optimizer)
            place.say(f"checkpoint {path.name}")
    place.say(f"finished, weights sha256:{fingerprint(model)}")
    if place.rank == 0:
        place.say("sample: " + repr(model.sample(vocabulary, "A", 120, parameters.seed)))


def agree_on_start(done: int, place: Place) -> int:
    """Start where every worker can: checkpoints may lie on volumes that not all of them share."""
    if place.size == 1:
        return done
    least, most = torch.tensor(done), torch.tensor(done)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if least != most:
        sys.exit(
            f"worker {place.rank} has checkpoints up to step {done}, others differ: "
            "use one volume for all workers, or remove the checkpoints"
        )
    return done


def end_when_told() -> None:
    """End at once on SIGTERM: the last checkpoint is where the next run starts.

    As process 1 of a container it would otherwise ignore the signal. A thread waits for it, since
    a handler runs only once the main thread is back from gloo, which waits for minutes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(
        target=lambda: os._exit(128 + signal.sigwait({signal.SIGTERM})), daemon=True
    ).start()


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--config", type=Path, required=True, help="JSON or YAML parameters")
    options.add_argument("--data", type=Path, default=DEFAULT_TEXT, help="the text to learn")
    options.add_argument("--checkpoints", type=Path, required=True, help="directory")
    given = options.parse_args()
    end_when_told()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    place = Place.find()
    parameters = Parameters.load(given.config)
    if place.rank == 0:
        place.say(f"parameters {json.dumps(dataclasses.asdict(parameters))}")
    join(place)
    train(parameters, given.data, given.checkpoints, place)
    if place.size > 1:
        # Nobody leaves, and closes connections, while another still averages.
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
