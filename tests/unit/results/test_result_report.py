"""The report: one page that needs nothing else and shows nothing but text of its own."""

import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from result_worlds import NOW, a_job, a_record, a_sweep, course, found, trained

from headway_api.kinds import KINDS
from headway_api.validation import admit
from headway_operator.results.findings import Findings
from headway_operator.results.report import page

EVIL = "</script><script>alert(1)</script>"
PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}


class Page(HTMLParser):
    """The texts, elements and plots of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        (self.scripts if self._script else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def plots(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.scripts if each.startswith("{")]


def searched(count: int = 20, **spec: Any) -> Findings:
    sweep = a_sweep(maxTrials=max(count, 1), **spec)
    return found(sweep, *trained(sweep, count))


@pytest.fixture(scope="module")
def html() -> str:
    return page(
        searched(stopping={"asha": {"minSteps": 10, "maxSteps": 180}}, timeBudgetSeconds=7200)
    )


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    for tag, attrs in Page(html).tags:
        assert not {"src", "href", "srcset", "data"} & attrs.keys(), (tag, attrs)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_is_there_once(html: str) -> None:
    assert len(re.findall(r"plotly\.js v\d", html)) == 1


def test_it_tells_what_was_searched_how_and_what_came_of_it(html: str) -> None:
    text = Page(html).text
    here = searched()
    assert here.best is not None
    for said in (
        "To minimize loss.",
        "lr number from 0.0001 to 0.1, on a log scale",
        "momentum number from 0 to 0.9, in steps of 0.1; only when optimizer is sgd",
        "algorithm tpe, after 10 random trials",
        "stopping asha: minSteps 10, maxSteps 180, reductionFactor 3",
        "of 2 h 0 min",
        "20 of 20",
        f"trial {here.best.index}",
        here.best.checkpoint,
        "exit code 1: no GPU",
    ):
        assert said in text, said
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert titles == [
        "History",
        "What matters",
        "Slices",
        "Contours",
        "On the way",
        "Parallel coordinates",
        "Distribution of values",
        "Timeline",
    ]
    assert len(Page(html).plots) == len(titles)


def test_the_best_trial_is_there_as_a_job_that_the_api_server_takes(html: str) -> None:
    job = yaml.safe_load(re.sub("&#39;", "'", html.partition("<pre>")[2].partition("</pre>")[0]))
    admit({kind.kind: kind for kind in KINDS}["TrainingJob"], job, None)
    here = searched()
    assert here.best is not None
    assert job["metadata"]["name"] == f"{here.best.name}-again"
    assert float(job["spec"]["parameters"]["lr"]) == here.best.params["lr"]
    assert not {"ownerReferences", "labels"} & job["metadata"].keys()


def test_texts_of_users_are_text_wherever_they_come_from() -> None:
    sweep = a_sweep(
        parameters=[
            {"name": "x", "choice": [EVIL, "<img src=x onerror=alert(1)>", "b"]},
            {"name": "y", "float": {"min": 0, "max": 1}},
        ],
        objectives=[{"metric": EVIL}],
        warmStart=[{"name": "other"}],
    )
    sweep["status"]["message"] = EVIL
    choices = [EVIL, "<img src=x onerror=alert(1)>", "b"]
    jobs = [
        a_job(sweep, i, {"x": choices[i % 3], "y": 0.1 * i}, {EVIL: [(1, float(i * i))]})
        for i in range(6)
    ]
    jobs.append(a_job(sweep, 6, {"x": EVIL, "y": 0.5}, phase="Failed", message=EVIL))
    jobs.append(
        a_job(sweep, 7, {"x": "b", "y": 0.6}, {EVIL: [(1, 9.0)]}, phase="Suspended", stopped=EVIL)
    )
    parsed, plain = Page(page(found(sweep, *jobs))), Page(page(searched()))
    assert EVIL in parsed.text
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert not any("alert(1)" in script for script in parsed.scripts if not script.startswith("{"))
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    scripts = [attrs for tag, attrs in plain.tags if tag == "script"]
    theirs = [attrs for tag, attrs in parsed.tags if tag == "script"]
    own = {"type": "application/json"}
    assert [each for each in theirs if each != own] == [each for each in scripts if each != own]


@pytest.mark.parametrize(
    "here",
    [
        searched(0),
        searched(1),
        searched(2),
        searched(12, objectives=[{"metric": "loss"}, {"metric": "time", "direction": "Maximize"}]),
        searched(12, objectives=[{"metric": metric} for metric in "abcd"]),
        searched(6, repeats={"count": 3, "spreadWeight": 1}),
        found(a_sweep(), *(a_job(a_sweep(), i, PARAMS, phase="Failed") for i in range(3))),
        found(
            a_sweep(),
            *(
                a_job(a_sweep(), i, PARAMS, {"loss": [(1, value)]})
                for i, value in enumerate([math.inf, -math.inf, math.nan, 1.0])
            ),
        ),
        found(a_sweep(), a_record(a_sweep(), trained(a_sweep(), 9))),
    ],
    ids=["none", "one", "two", "front", "four", "repeats", "failed", "infinite", "recorded"],
)
def test_any_sweep_has_a_report(here: Findings) -> None:
    parsed = Page(page(here))
    rows = [attrs for tag, attrs in parsed.tags if tag == "td" and "data-key" in attrs]
    columns = 3 + len(here.spec.objectives) + len(here.varying)
    assert len(rows) == columns * len(here.results)
    assert ("There are no trials yet." in parsed.text) == (not here.results)


def test_a_template_that_makes_no_job_leaves_only_the_manifest_out() -> None:
    sweep = a_sweep(template={"spec": {"command": ["${params.gone}"]}})
    parsed = Page(page(found(sweep, a_job(sweep, 0, PARAMS, {"loss": course(1.0)}))))
    assert "The best trial" in parsed.text
    assert "Train it again" not in parsed.text


def test_the_report_of_a_thousand_trials_stays_a_file_that_can_be_mailed() -> None:
    sweep = a_sweep(maxTrials=1000)
    jobs = trained(sweep, 1000, points=20)
    html = page(found(sweep, a_record(sweep, jobs[:250]), *jobs[250:]))
    assert len(html) < 9_000_000  # of which plotly is half
    assert f"as of {NOW:%Y-%m-%dT%H:%M:%SZ}" in html
