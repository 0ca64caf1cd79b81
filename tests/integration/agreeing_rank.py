"""One of two ranks that only agree: `python agreeing_rank.py FOLDER ROUNDS STEPS SEED`, with torchrun's variables.

In each round a stop reaches one of them, at one step, by the flag in that node's own run folder. Prints a line per
round: the step after which this rank stopped.
"""

import random
import sys
import time
from pathlib import Path

import torch.distributed as dist

from job.rundir import RunDir
from job.training.steps import Agreement


def main() -> None:
    folder, rounds, steps, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    dist.init_process_group("gloo")
    rank, agreement = dist.get_rank(), Agreement(dist.get_world_size())
    both, own = random.Random(seed), random.Random(f"{seed}-{rank}")
    for at in range(rounds):
        run = RunDir(folder / f"round-{at}-node-{rank}").make()
        reached, when = both.randrange(2), both.randrange(1, steps)
        stopped = 0
        for step in range(1, steps + 1):
            time.sleep(own.random() * 0.004)
            if rank == reached and step == when:
                run.request_stop("SIGTERM")
            if agreement.sum(run.stop_requested() is not None, False)[0] > 0:
                stopped = step
                break
        print(at, when, stopped, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
