"""Knows nothing of Headway: what horovodrun's users have."""

import horovod.torch as hvd
import torch

hvd.init()
total = hvd.allreduce(torch.tensor([float(hvd.rank())]), op=hvd.Sum)
even = hvd.add_process_set([0])
gathered = hvd.allgather_object((hvd.rank(), hvd.local_rank(), hvd.cross_rank()))
print(f"rank {hvd.rank()} of {hvd.size()}: sum of ranks {total.item():g}, {gathered}")
hvd.remove_process_set(even)
again = hvd.add_process_set([0])
if hvd.rank() == 0:
    assert hvd.allreduce(torch.ones(2), process_set=again).tolist() == [1, 1]
hvd.shutdown()
