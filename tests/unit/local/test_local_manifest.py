"""Reading manifests for local mode."""

import pytest

from headway_operator.local.manifest import ManifestError, parse
from headway_operator.resources import SWEEP


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1.0e+400"])
def test_numbers_that_json_has_no_word_for_are_refused_as_a_cluster_would(number: str) -> None:
    text = (
        "{apiVersion: headway.dev/v1alpha1, kind: Sweep, metadata: {name: s}, spec: "
        f"{{parameters: [{{name: x, float: {{min: 0, max: {number}}}}}]}}}}"
    )
    with pytest.raises(ManifestError, match="write a number"):
        parse(text, SWEEP)
