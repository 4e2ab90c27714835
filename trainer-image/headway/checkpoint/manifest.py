"""What is written down about a checkpoint: receipts of what was sent, and the commit over them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from .checksum import ALGORITHM, crc64
from .jsontree import JsonTree, canonical
from .layout import CheckpointId
from .state import TensorSpec


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FragmentReceipt(_Record):
    """One fragment as it lies in a part.

    Attributes:
        name: the tensor.
        start: first element, row-major.
        count: elements.
        offset: byte in the object at which the fragment starts.
        nbytes: its length in bytes.
        crc: CRC-64/NVME of these bytes, 16 hexadecimal digits.
    """

    name: str
    start: NonNegativeInt
    count: NonNegativeInt
    offset: NonNegativeInt
    nbytes: NonNegativeInt
    crc: str


class ObjectReceipt(_Record):
    """A small object that is read whole: its key under the root, its bytes and their CRC."""

    key: str
    size: NonNegativeInt
    crc: str


class PartReceipt(_Record):
    """What one rank sent; all receipts of a world together make a commit.

    Attributes:
        id: the checkpoint this belongs to.
        rank: who wrote it.
        world_size: how many ranks write this checkpoint.
        key: key of the part under the root.
        size: bytes of the part.
        header_nbytes: bytes before the data.
        header_crc: CRC of these.
        fragments: in the order in which they lie in the part.
        state: the object that holds what belongs to this rank alone.
        tensors: specs of the whole state; given by rank 0 alone.
        objects: the state outside tensors that all ranks share; given by rank 0 alone.
    """

    id: CheckpointId
    rank: NonNegativeInt
    world_size: PositiveInt
    key: str
    size: NonNegativeInt
    header_nbytes: NonNegativeInt
    header_crc: str
    fragments: tuple[FragmentReceipt, ...]
    state: ObjectReceipt
    tensors: tuple[TensorSpec, ...] | None = None
    objects: JsonTree = None

    @model_validator(mode="after")
    def _adds_up(self) -> PartReceipt:
        _check_keys(self.id, self.world_size, (self,))
        _check_offsets(self)
        return self


class Part(_Record):
    """A part as the commit knows it; see `PartReceipt` for its fields."""

    rank: NonNegativeInt
    key: str
    size: NonNegativeInt
    header_nbytes: NonNegativeInt
    header_crc: str
    fragments: tuple[FragmentReceipt, ...]
    state: ObjectReceipt

    @classmethod
    def of(cls, receipt: PartReceipt) -> Part:
        """Keep of a receipt what is not the same for all ranks."""
        return cls(**{name: getattr(receipt, name) for name in cls.model_fields})


class Commit(_Record):
    """COMMIT.json: a checkpoint exists when, and only when, this does.

    Building one checks that it is complete: every rank is there once, every key is the one that
    its place demands, and the fragments hold every element of every tensor exactly once.

    Attributes:
        format: version of this record.
        generation: the worker group that wrote the checkpoint.
        step: training steps done.
        world_size: number of ranks that wrote it; any other number can restore it.
        created: when the commit was made.
        crc_algorithm: of every `crc` in here.
        tensors: the whole state, in the order of names.
        parts: one per rank, in the order of ranks.
        objects: state outside tensors that all ranks share.
        metrics: finite values at this step, for keeping the best.
        resumed_from: the checkpoint that the writing group itself had restored.
        code_version: what was running, in the words of the user's build.
    """

    format: Literal[1] = 1
    generation: NonNegativeInt
    step: NonNegativeInt
    world_size: PositiveInt
    created: AwareDatetime
    crc_algorithm: Literal["crc64nvme"] = ALGORITHM
    tensors: tuple[TensorSpec, ...]
    parts: tuple[Part, ...]
    objects: JsonTree = None
    metrics: dict[str, FiniteFloat] = {}
    resumed_from: CheckpointId | None = None
    code_version: str = ""

    @property
    def id(self) -> CheckpointId:
        """Which checkpoint this is."""
        return CheckpointId(generation=self.generation, step=self.step)

    @model_validator(mode="after")
    def _is_complete(self) -> Commit:
        if [part.rank for part in self.parts] != list(range(self.world_size)):
            raise ValueError(f"the parts are not those of ranks 0 to {self.world_size - 1}")
        _check_keys(self.id, self.world_size, self.parts)
        for part in self.parts:
            _check_offsets(part)
        check_coverage(self.tensors, [f for part in self.parts for f in part.fragments])
        return self


def encode_commit(commit: Commit) -> bytes:
    """Return the bytes of COMMIT.json, which end in a CRC over everything else."""
    body = commit.model_dump(mode="json")
    return canonical({**body, "crc": crc64(canonical(body))})


def decode_commit(data: bytes) -> Commit:
    """Read COMMIT.json.

    Raises:
        ValueError: it is torn, was changed after it was written, or is of a newer format.
    """
    try:
        body = json.loads(data)
    except ValueError:
        raise ValueError("COMMIT.json is torn: it is not JSON") from None
    crc = body.pop("crc", None) if isinstance(body, dict) else None
    if crc is None or crc64(canonical(body)) != crc:
        raise ValueError("COMMIT.json does not match its own checksum: it was torn or edited")
    try:
        return Commit.model_validate(body)
    except ValidationError as error:
        raise ValueError(f"COMMIT.json is not readable: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Say in one line what pydantic found first."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


def check_coverage(tensors: Sequence[TensorSpec], fragments: Iterable[FragmentReceipt]) -> None:
    """Check that fragments hold every element of every tensor exactly once.

    Raises:
        ValueError: an element is missing, is there twice, or belongs to no known tensor.
    """
    specs = {spec.name: spec for spec in tensors}
    if len(specs) != len(tensors):
        raise ValueError("two tensors have the same name")
    runs: dict[str, list[FragmentReceipt]] = defaultdict(list)
    for fragment in fragments:
        runs[fragment.name].append(fragment)
    if unknown := runs.keys() - specs.keys():
        raise ValueError(f"fragments of unknown tensors: {', '.join(sorted(unknown)[:3])}")
    for name, spec in specs.items():
        _check_runs(spec, runs.get(name, []))


def _check_runs(spec: TensorSpec, runs: list[FragmentReceipt]) -> None:
    if not runs:
        raise ValueError(f"no part holds tensor {spec.name!r}")
    if spec.count == 0 and len(runs) > 1:
        raise ValueError(f"tensor {spec.name!r} is in more than one part")
    reached = 0
    for run in sorted(runs, key=lambda run: run.start):
        if run.start != reached:
            what = "twice" if run.start < reached else "in no part"
            raise ValueError(f"elements of tensor {spec.name!r} are {what}, near {run.start}")
        if run.nbytes != run.count * spec.item_size:
            raise ValueError(f"a fragment of tensor {spec.name!r} has a wrong length")
        reached += run.count
    if reached != spec.count:
        raise ValueError(f"tensor {spec.name!r} ends at element {reached} of {spec.count}")


def _check_keys(
    checkpoint: CheckpointId, world_size: int, parts: Iterable[Part | PartReceipt]
) -> None:
    for part in parts:
        expected = (checkpoint.part_key(part.rank, world_size), checkpoint.rank_key(part.rank))
        if (part.key, part.state.key) != expected:
            raise ValueError(f"rank {part.rank} names objects that do not belong to {checkpoint}")


def _check_offsets(part: Part | PartReceipt) -> None:
    reached = part.header_nbytes
    for fragment in part.fragments:
        if fragment.offset != reached:
            raise ValueError(f"the fragments of {part.key} do not follow each other")
        reached += fragment.nbytes
    if reached != part.size:
        raise ValueError(f"the fragments of {part.key} do not add up to its size")
