"""`torch.distributed.checkpoint`, through fsspec (s3fs) and through Amazon's connector."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from bench.contestants.base import Contestant, join_group


class Save(Contestant):
    """`dcp.save`: the training waits for all of it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        join_group()
        self._at: float | None = None

    def state(self) -> dict[str, Any]:
        """What DCP's tutorial saves."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def writer(self, key: str) -> Any:
        return FsspecWriter(self.uri(key), sync_files=False)

    def reader(self, key: str) -> Any:
        return FsspecReader(self.uri(key))

    def save(self, key: str) -> None:
        dcp.save(self.state(), storage_writer=self.writer(key))
        self._at = time.monotonic()

    def durable(self) -> float | None:
        return self._at

    def load(self, key: str) -> None:
        state = self.state()
        dcp.load(state, storage_reader=self.reader(key))
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )


class AsyncSave(Save):
    """`dcp.async_save` as it comes: a thread, and new memory for each copy."""

    stager: DefaultStager | None = None

    def save(self, key: str) -> None:
        self._at = None
        options: dict[str, Any] = {"async_stager": self.stager} if self.stager else {}
        answer = dcp.async_save(self.state(), storage_writer=self.writer(key), **options)
        done: Future[Any] = getattr(answer, "upload_completion", answer)
        done.add_done_callback(self._finished)

    def _finished(self, done: Future[Any]) -> None:
        done.result()  # a failed save is never durable, and says why
        self._at = time.monotonic()


class AsyncSaveReused(AsyncSave):
    """The same with one stager for all saves, which keeps its memory."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,  # needs CUDA, as do the two below
                use_shared_memory=True,
                use_async_staging=False,
                use_non_blocking_copy=False,
            )
        )


class S3Connector(AsyncSave):
    """`dcp.async_save` to `s3torchconnector.dcp.S3StorageWriter`."""

    def writer(self, key: str) -> Any:
        from s3torchconnector import S3ClientConfig  # noqa: PLC0415
        from s3torchconnector.dcp import S3StorageWriter  # noqa: PLC0415

        config = S3ClientConfig(force_path_style=True)
        return S3StorageWriter("us-east-1", self.uri(key), s3client_config=config)

    def reader(self, key: str) -> Any:
        from s3torchconnector import S3ClientConfig  # noqa: PLC0415
        from s3torchconnector.dcp import S3StorageReader  # noqa: PLC0415

        config = S3ClientConfig(force_path_style=True)
        return S3StorageReader("us-east-1", self.uri(key), s3client_config=config)
