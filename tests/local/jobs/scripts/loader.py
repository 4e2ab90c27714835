"""A loader process whose batches need 80 MB of shared memory each."""

import torch
from torch.utils.data import DataLoader, Dataset


class Large(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(5_000_000)


if __name__ == "__main__":
    for batch in DataLoader(Large(), batch_size=4, num_workers=1):
        print(batch.shape)
