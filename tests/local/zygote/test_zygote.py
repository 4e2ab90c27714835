"""Forked workers are to their programs, and to people, what executed ones are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Start = Callable[..., "subprocess.Popen[str]"]
TELL = """
import json, os, sys, signal, threading
import helper
def tell():
    me = sys.modules["__main__"]
    print("told " + json.dumps({
        "name": __name__, "argv": sys.argv, "path": sys.path[0], "flags": sys.flags.optimize,
        "rank": os.environ.get("RANK"), "helper": helper.__file__, "main": tell.__module__,
        "file": getattr(me, "__file__", None), "parent": os.path.basename(
            open(f"/proc/{os.getppid()}/cmdline").read().split(chr(0))[-2]),
        "cmdline": open("/proc/self/cmdline").read().split(chr(0))[1:-1],
        "environ": [e for e in open("/proc/self/environ").read().split(chr(0)) if "RANK=" in e],
        "leader": os.getpid() == os.getsid(0),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "threads": threading.active_count(),
    }))
tell()
"""


def output(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    text, _ = process.communicate(timeout=seconds)
    return process.returncode, text


def until(process: subprocess.Popen[str], last: str) -> str:
    """Its output up to a line; a failing program is started again and again."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if last in line:
            return "".join(lines)
    raise AssertionError(f"it ended without {last!r}: {''.join(lines)}")


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.split("told ", 1)[1]) for line in text.splitlines() if "told {" in line]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").touch()
    (tmp_path / "lib" / "tell.py").write_text(TELL)
    return tmp_path / "lib" / "tell.py"


def test_a_script_finds_itself_as_python_would_have_started_it(start: Start, program: Path) -> None:
    code, text = output(start("-O", str(program), "a", "b"))
    assert code == 0, text
    (said,) = told(text)
    assert "RANK=0" in said.pop("environ")
    assert said == {
        "name": "__main__",
        "argv": [str(program), "a", "b"],
        "path": str(program.parent),
        "flags": 1,
        "rank": "0",
        "helper": str(program.parent / "helper.py"),
        "main": "__main__",
        "file": str(program),
        "parent": said["parent"],
        "cmdline": ["-O", str(program), "a", "b"],
        "leader": True,
        "interrupt": True,
        "term": True,
        "threads": 1,
    }
    assert said["parent"].isdigit(), "its parent is no zygote: it was not forked"


def test_a_module_and_a_piece_of_code_run_too(start: Start, program: Path) -> None:
    here = {"PYTHONPATH": str(program.parent)}
    code, text = output(start("-m", "tell", "x", **here))
    assert code == 0, text
    assert (told(text)[0]["argv"], told(text)[0]["name"]) == ([str(program), "x"], "__main__")
    code, text = output(start("-c", TELL, "y", **here))
    assert code == 0, text
    assert (told(text)[0]["argv"], told(text)[0]["path"]) == (["-c", "y"], "")


def test_people_see_a_workers_own_command_and_environment(start: Start, program: Path) -> None:
    """`pkill -f train.py`, `ps e` and py-spy must find a rank, and not its zygote."""
    _, text = output(start(str(program), processes=2))
    ranks = {said["rank"]: said for said in told(text)}
    assert ranks.keys() == {"0", "1"}
    assert all(f"RANK={rank}" in said["environ"] for rank, said in ranks.items())
    assert all(said["cmdline"] == [str(program)] for said in ranks.values())


def test_an_error_shows_the_programs_own_frames_only(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def inner():\n    raise ValueError('no such luck')\ninner()\n")
    text = until(start(str(file)), "ValueError: no such luck")
    assert "zygote" not in text.split("Traceback")[1]
    assert text.count("line 3, in <module>") >= 1


@pytest.mark.parametrize(
    "ending", ["sys.exit(78)", "sys.exit('told why')", "raise ValueError('told why')"]
)
def test_what_must_happen_before_a_failed_rank_is_gone(
    start: Start, tmp_path: Path, ending: str
) -> None:
    """Handlers run and open files are flushed, though the interpreter isn't taken apart."""
    file = tmp_path / "ends.py"
    file.write_text(
        "import atexit, os, sys, threading, time\n"
        "kept = open('kept.txt', 'w'); kept.write('flushed')\n"
        "atexit.register(lambda: open('handled', 'w').close())\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), open('joined', 'w').close())).start()\n"
        f"{ending}\n"
    )
    process = start(str(file))
    if "78" in ending:  # a code that ends the job
        assert process.wait(30) == 78
    else:
        until(process, "exited with code 1")
    assert (tmp_path / "handled").exists()
    assert (tmp_path / "joined").exists()
    assert (tmp_path / "kept.txt").read_text() == "flushed"


def test_ranks_that_seed_nothing_do_not_draw_alike(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "draws.py"
    file.write_text("import numpy, random\nprint('drew', numpy.random.rand(), random.random())\n")
    _, text = output(start(str(file), processes=2, HEADWAY_PRELOAD="numpy"))
    drawn = [line.split("drew ")[1].split() for line in text.splitlines() if "drew" in line]
    assert len({n for n, _ in drawn}) == len({r for _, r in drawn}) == 2


def test_a_module_that_starts_threads_makes_workers_start_by_exec(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "threads.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    file = tmp_path / "fine.py"
    file.write_text("print('done all the same')\n")
    code, text = output(start(str(file), HEADWAY_PRELOAD="threads"))
    assert code == 0
    assert "done all the same" in text
    assert "not forked" in text
    assert "1 Python threads" in text


def test_a_module_that_can_not_be_imported_is_named_and_forking_goes_on(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "fine.py"
    file.write_text("print('done all the same')\n")
    code, text = output(start(str(file), HEADWAY_PRELOAD="no_such_module"))
    assert code == 0
    assert "No module named 'no_such_module'" in text
    assert "not forked" not in text


def test_a_program_that_needs_no_torch_does_not_wait_for_it(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "plain.py"
    file.write_text("import sys\nprint('tor' + 'ch:', 'tor' + 'ch' in sys.modules)\n")
    _, text = output(start(str(file)))
    assert "torch: False" in text
    file.write_text("import sys\n# torch\nprint('found:', 'torch' in sys.modules)\n")
    _, text = output(start(str(file)))
    assert "found: True" in text


def wait_for_child(agent: subprocess.Popen[str], name: str) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(agent.pid).children(recursive=True):
            try:
                if child.status() != psutil.STATUS_ZOMBIE and name in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.05)
    raise AssertionError(f"no process {name}")


def test_killed_zygote_and_killed_worker_are_followed_by_another_generation(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "sleeps.py"
    file.write_text(
        "import os, time\n"
        "generation = os.environ['HEADWAY_GENERATION']\n"
        "print('gen', generation, flush=True)\n"
        "time.sleep(0 if generation == '3' else 600)\n"
    )
    agent = start(str(file))
    worker = wait_for_child(agent, "sleeps.py")
    wait_for_child(agent, "headway.zygote").kill()
    worker.wait(10)
    again = wait_for_child(agent, "sleeps.py")
    assert again.pid != worker.pid
    again.kill()
    code, text = output(agent)
    assert code == 0, text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("gen ")][-1] == "3"


def test_when_the_agent_is_killed_nothing_is_left(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "sleeps.py"
    file.write_text("import time\ntime.sleep(600)\n")
    agent = start(str(file))
    doomed = [wait_for_child(agent, "sleeps.py"), wait_for_child(agent, "headway.zygote")]
    os.kill(agent.pid, signal.SIGKILL)
    for process in doomed:
        process.wait(10)


def test_an_interpreter_without_headway_is_served_by_exec(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "fine.py"
    file.write_text("print('done all the same')\n")
    code, text = output(start("-I", "-S", str(file)))
    assert code == 0, text
    assert "done all the same" in text
    assert "not forked" in text
