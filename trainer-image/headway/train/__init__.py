"""The training library: `headway.init()` and what the `Run` it returns can do."""

from headway.train.data import Loader
from headway.train.run import Run, init

__all__ = ["Loader", "Run", "init"]
