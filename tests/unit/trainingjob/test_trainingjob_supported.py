"""Fields that this version takes and does not act on are said."""

from __future__ import annotations

import pytest

from headway_api.trainingjob import TrainingJobSpec
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.supported import check_supported


def spec(**fields: object) -> TrainingJobSpec:
    return TrainingJobSpec.model_validate({"image": "i", "command": ["c"], **fields})


def test_a_job_that_asks_for_nothing_new_passes() -> None:
    check_supported(spec(scheduling={"priorityClassName": "high"}, workers={"replicas": 2}))
    check_supported(spec(framework="Horovod"))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"model": {"name": "m"}}, "spec.model"),
    ],
)
def test_what_would_not_happen_is_named(fields: dict[str, object], names: str) -> None:
    with pytest.raises(Stuck, match=names) as stuck:
        check_supported(spec(**fields))
    assert stuck.value.reason == "NotSupported"
