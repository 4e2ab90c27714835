"""The last rank stays away from an allreduce for some seconds."""

import os
import time

import horovod.torch as hvd
import torch

hvd.init()
hvd.allreduce(torch.ones(1), name="first")
if hvd.rank() == hvd.size() - 1:
    time.sleep(float(os.environ["AWAY_SECONDS"]))
hvd.allreduce(torch.ones(1), name="second")
print(f"rank {hvd.rank()} is through")
