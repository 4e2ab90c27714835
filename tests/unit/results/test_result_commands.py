"""`headway sweep show|compare|export|plot|report` as a person types them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from result_worlds import a_job, a_sweep, course, trained, written
from typer.core import TyperGroup
from typer.testing import CliRunner

from headway_operator.sweep_command import app

PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with the objects of two sweeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    sweep, other = a_sweep(), a_sweep("other", "u-2")
    written(tmp_path, sweep, *trained(sweep, 12), other, *trained(other, 6))

    def call(*words: str, **more: Any) -> Any:
        return CliRunner().invoke(app, list(words), env={"COLUMNS": "80"}, **more)

    return call


FILE = ("-f", "objects.json")


def test_show_reads_json_yaml_and_stdin_alike(run: Run, tmp_path: Path) -> None:
    told = run("show", "digits", *FILE).stdout
    assert told.startswith("digits  Running  12 of 12 trials have ended")
    items = json.loads((tmp_path / "objects.json").read_text())["items"]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump_all(items))
    assert run("show", "digits", "-f", "x.yaml").stdout == told
    assert run("show", "digits", "-f", "-", input=(tmp_path / "x.yaml").read_text()).stdout == told


def test_programs_read_json_and_yaml(run: Run) -> None:
    told = json.loads(run("show", "digits", "-o", "json", *FILE).stdout)
    same = yaml.safe_load(run("show", "digits", "-o", "yaml", *FILE).stdout)
    assert {**same, "activeSeconds": 0} == {**told, "activeSeconds": 0}  # it goes on
    assert [trial["index"] for trial in told["trials"]] == list(range(12))


def test_nothing_is_cut_off_in_a_pipe(run: Run, tmp_path: Path) -> None:
    sweep = a_sweep(parameters=[{"name": "x", "choice": ["long " * 50, "b"]}])
    written(tmp_path, sweep, a_job(sweep, 0, {"x": "long " * 50}, {"loss": course(1.0)}))
    assert ("long " * 50).strip() in run("show", "digits", *FILE).stdout


def test_the_best_trial_comes_as_a_manifest(run: Run) -> None:
    job = yaml.safe_load(run("show", "digits", "-o", "job", *FILE).stdout)
    assert job["kind"] == "TrainingJob"


def test_sweeps_and_trials_are_compared(run: Run, tmp_path: Path) -> None:
    assert re.match(r"loss +digits +other", run("compare", "digits", "other", *FILE).stdout)
    assert re.match(r"trial +3 +1", run("compare", "digits", "--trials", "3,1", *FILE).stdout)
    run("compare", "digits", "other", *FILE, "--out", "both.html")
    assert "Best Value of other" in (tmp_path / "both.html").read_text()


def test_exports_go_to_stdout_or_into_files(run: Run, tmp_path: Path) -> None:
    text = run("export", "digits", "--to", "csv", *FILE).stdout
    assert len(text.splitlines()) == 13
    run("export", "digits", "--to", "csv", "--out", "x.csv", *FILE)
    assert (tmp_path / "x.csv").read_text() == text
    assert (
        "points" in json.loads(run("export", "digits", "--to", "json", *FILE).stdout)["trials"][0]
    )
    first = run("export", "digits", "--to", "optuna", "--out", "sqlite:///x.db", *FILE)
    assert "wrote 12 trials to sqlite:///x.db" in first.stderr
    again = run("export", "digits", "--to", "optuna", "--out", "sqlite:///x.db", *FILE)
    assert "wrote 0 trials to sqlite:///x.db; 12 were there" in again.stderr


def test_plots_and_reports_say_where_they_are(run: Run, tmp_path: Path) -> None:
    assert "wrote digits-history.html" in run("plot", "digits", "history", *FILE).stderr
    assert (tmp_path / "digits-history.html").stat().st_size > 1_000_000
    plotted = run("plot", "digits", "slice", "--params", "lr", "--out", "x.svg", *FILE)
    assert "wrote x.svg" in plotted.stderr
    assert "<svg" in (tmp_path / "x.svg").read_text()
    assert "wrote digits.html" in run("report", "digits", *FILE).stderr
    assert "<h1>Sweep digits</h1>" in (tmp_path / "digits.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "none", *FILE), "there is no Sweep none; there are digits, other"),
        (("show", "digits", "-f", "nosuch.yaml"), "can't read nosuch.yaml: No such file"),
        (
            ("show", "digits", "--state", "nosuch"),
            "nosuch is no state folder of `headway sweep run`",
        ),
        (("show", "digits"), "no cluster: .* read what a local run keeps .--state., or a file"),
        (("compare", "digits", *FILE), "name two sweeps or more"),
        (("compare", "digits", "--trials", "a", *FILE), "--trials a: write numbers, such as 3,7,9"),
        (("compare", "digits", "--trials", "99", *FILE), "digits has no trial 99"),
        (("compare", "digits", "other", "--trials", "1", *FILE), "--trials are those of one sweep"),
        (("export", "digits", "--to", "optuna", *FILE), "--to optuna needs --out, such as"),
        (("export", "digits", "--to", "csv", "--out", "no/x", *FILE), "can't write no/x: No such"),
        (("plot", "digits", "pareto", *FILE), "has one objective and a best trial"),
        (
            ("plot", "digits", "history", "--objective", "x", *FILE),
            "has no objective x: it has loss",
        ),
    ],
)
def test_what_the_user_can_mend_is_a_sentence(run: Run, words: tuple[str, ...], said: str) -> None:
    ended = run(*words)
    assert ended.exit_code == 2
    assert re.search(f"headway: .*{said}", ended.stderr), ended.output
    assert "Traceback" not in ended.output


def test_a_file_that_is_no_yaml_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: [")
    assert "kubectl get sweeps" in run("show", "digits", "-f", "x.yaml").stderr


def test_a_library_that_is_missing_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "headway_operator.results.report", None)
    ended = run("report", "digits", *FILE)
    assert ended.exit_code == 2
    assert "pip install 'headway[results]'" in ended.stderr


def saved(folder: Path, *items: Mapping[str, Any]) -> Path:
    """What local mode keeps of objects."""
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_text(json.dumps({"collections": [{"objects": items}]}))
    return folder


def test_without_a_word_what_a_local_run_keeps_here_is_read(run: Run, tmp_path: Path) -> None:
    sweep = a_sweep()
    saved(tmp_path / ".headway" / "digits", sweep, *trained(sweep, 3))
    ended = run("show", "digits")
    assert "3 of 10 trials" in ended.stdout
    assert "read from .headway/digits" in ended.stderr
    # With a word about a cluster it is the cluster's.
    assert "no cluster" in run("show", "digits", "-n", "lab").stderr


@pytest.mark.parametrize("command", ["run", "show", "compare", "export", "plot", "report"])
def test_every_help_has_examples(command: str) -> None:
    told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120"}).stdout
    assert f"headway sweep {command} " in told


def test_loading_the_commands_loads_nothing_that_draws_or_searches() -> None:
    code = (
        "import sys, headway_operator.sweep_command\n"
        "heavy = {'optuna', 'plotly', 'matplotlib', 'jinja2', 'numpy', 'pandas', 'mlflow'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_command_and_option_of_headway_sweep_that_a_page_shows_exists() -> None:
    root = Path(__file__).parents[3]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    shown = [
        found
        for page in pages
        for found in re.findall(r"headway sweep ([a-z]+)([^|#`\n]*)", page.read_text())
    ]
    assert len(shown) > 10
    for name, rest in shown:
        assert name in group.commands, name
        options = {each for param in group.commands[name].params for each in param.opts}
        for option in re.findall(r"(?<=\s)--?[a-z]+", rest):
            assert option in options, f"headway sweep {name} has no {option}"
