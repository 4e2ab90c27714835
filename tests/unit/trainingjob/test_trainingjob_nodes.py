"""How a pod is got rid of."""

from dataclasses import replace

import pytest
from job_views import NOW, a_job, a_pod, a_view, at

from headway_operator.trainingjob.nodes import forced_removals, removal, removals
from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.view import Pod

SILENT = frozenset({"node-0"})
GRACEFUL = Deletion("digits-0", "uid-0")
FORCED = Deletion("digits-0", "uid-0", grace_seconds=0)


@pytest.mark.parametrize(
    ("pod", "lost", "expected"),
    [
        (a_pod(), frozenset(), GRACEFUL),
        (a_pod(phase="Failed"), frozenset(), GRACEFUL),
        # Asked for already: by us, or by somebody else.
        (replace(a_pod(), removal="asked"), frozenset(), None),
        (replace(a_pod(), deleting=NOW), frozenset(), None),
        (replace(a_pod(), deleting=at(-29)), frozenset(), None),
        # Nobody will ever confirm these.
        (replace(a_pod(), deleting=at(-30)), frozenset(), FORCED),
        (a_pod(), SILENT, FORCED),
        (replace(a_pod(), removal="asked"), SILENT, FORCED),
        (replace(a_pod(), removal="forced"), SILENT, None),
    ],
)
def test_a_pod_is_asked_to_go_once_and_forced_where_no_node_answers(
    pod: Pod, lost: frozenset[str], expected: Deletion | None
) -> None:
    assert removal(pod, a_view(a_job(), lost_nodes=lost), NOW) == expected


def test_only_this_very_pod_is_deleted() -> None:
    view = a_view(a_job())
    assert removals((a_pod(0), a_pod(1)), view, NOW)[1].uid == "uid-1"


def test_namesakes_are_left_to_the_garbage_collector_unless_their_node_is_gone() -> None:
    view = a_view(a_job(), lost_nodes=SILENT)
    pods = (a_pod(0), replace(a_pod(1), node="node-1"))
    assert forced_removals(pods, view, NOW) == (FORCED,)
