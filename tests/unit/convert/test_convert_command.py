"""`headway convert` as people call it."""

from pathlib import Path

import pytest
import typer
import yaml
from converting import mpijob, one, pytorchjob, template
from typer.testing import CliRunner

from headway.convert.command import run
from headway.convert.writing import dump

APP = typer.Typer()
APP.command()(run)
CONFIG_MAP = "# kept as it is\napiVersion: v1\nkind: ConfigMap\nmetadata: {name:  a}   # too\n"
PLAIN = yaml.safe_dump(pytorchjob(template(["python", "t.py"])))
GPUS = yaml.safe_dump(
    pytorchjob(template(["torchrun", "t.py"], resources={"limits": {"nvidia.com/gpu": 1}}))
)


def invoke(*arguments: str, text: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(APP, list(arguments), input=text)
    return result.exit_code, result.stdout, result.stderr


def test_all_that_can_be_carried_over_exits_with_0() -> None:
    code, out, err = invoke("-", text=PLAIN)
    assert code == 0
    assert yaml.safe_load(out)["kind"] == "TrainingJob"
    assert "check" not in err


def test_what_needs_a_decision_exits_with_3_and_says_so() -> None:
    code, out, err = invoke("-", text=GPUS)
    assert code == 3
    assert "check PyTorchJob/a spec.pytorchReplicaSpecs.Worker.template" in err
    assert "# name the GPU pools" in out


def test_pools_that_are_named_need_no_decision() -> None:
    code, out, _ = invoke("-", "--pool", "a100", "--pool", "l4", text=GPUS)
    assert code == 0
    assert yaml.safe_load(out)["spec"]["gpu"] == {"pools": ["a100", "l4"], "perWorker": 1}


def test_other_documents_pass_through_as_they_are_written() -> None:
    code, out, err = invoke("-", text=f"---\n{CONFIG_MAP}---\n{PLAIN}---\n")
    assert code == 0
    assert out.startswith(f"{CONFIG_MAP}---\napiVersion: headway.dev/v1alpha1\n")
    assert "note  ConfigMap/a ConfigMap (v1) passes through unchanged" in err


def test_a_list_of_kubectl_is_taken_apart() -> None:
    items = [yaml.safe_load(PLAIN), yaml.safe_load(CONFIG_MAP)]
    code, out, _ = invoke("-", text=yaml.safe_dump({"kind": "List", "items": items}))
    assert code == 0
    assert [each["kind"] for each in yaml.safe_load_all(out)] == ["TrainingJob", "ConfigMap"]


def test_files_are_read_and_written(tmp_path: Path) -> None:
    source, target = tmp_path / "a.yaml", tmp_path / "b.yaml"
    source.write_text(PLAIN)
    code, out, _ = invoke(str(source), "-o", str(target))
    assert (code, out) == (0, "")
    assert yaml.safe_load(target.read_text())["kind"] == "TrainingJob"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no job to convert: there is nothing"),
        (CONFIG_MAP, "no job to convert: there is ConfigMap/a; known kinds are MPIJob"),
        ("a: [", "this is not valid YAML"),
        ("- a", "a document is not an object"),
        (PLAIN.replace("kubeflow.org/v1", "kubeflow.org/v1alpha2"), "known kinds are"),
        (PLAIN.replace("Worker:", "Chief:"), "PyTorchJob/a: spec.pytorchReplicaSpecs has no"),
        (PLAIN.replace("replicas: 3", "replicas: three"), "Worker.replicas should be a number"),
        (PLAIN.replace("replicas: 3", "replicas: 0"), "needs one replica at least"),
        (PLAIN.replace("name: a\n", "x: a\n"), "metadata.name is missing"),
        (yaml.safe_dump(mpijob([])).replace("Launcher", "X"), "Launcher is missing"),
        (GPUS.replace("gpu: 1", "gpu: many"), "should be a number of GPUs, not many"),
    ],
)
def test_bad_input_exits_with_2_and_one_sentence(text: str, why: str) -> None:
    code, out, err = invoke("-", text=text)
    assert (code, out) == (2, "")
    assert why in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_exits_with_2(tmp_path: Path) -> None:
    assert invoke(str(tmp_path / "none.yaml"))[0] == 2


def test_comments_before_a_job_stay() -> None:
    text = one(f"# First line.\n\n# Second.\n{PLAIN}").text
    assert text.startswith("# First line.\n# Second.\napiVersion: headway.dev/v1alpha1\n")


@pytest.mark.parametrize(
    "value",
    ["yes", "8", "1e3", "1e-4", "a: b", "# no", "a #b", "it's", 'say "x"', "C:\\x", "two\nlines\n",
     "", " a", "a, b", "[x]", "${params.lr}", "^openib", "null", "2024-01-01", "tab\t", "\u2028"],
)  # fmt: skip
def test_any_text_is_read_back_as_it_was(value: str) -> None:
    written = {"block": {"key": value}, "short": [value, "b"], "nested": [{"name": value}]}
    assert yaml.safe_load(dump(written)) == written


@pytest.mark.parametrize("value", ["1e-4", "0o17", "1_000", "1.", ".5", "+.inf", "y", "N", "0x1F"])
def test_what_kubectl_would_take_for_a_number_or_a_truth_is_quoted(value: str) -> None:
    assert dump({"a": value}) == f'a: "{value}"\n'
    assert dump({"a": [value]}) == f'a: ["{value}"]\n'


def test_help_shows_examples() -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    assert "kubectl get pytorchjob" in out
