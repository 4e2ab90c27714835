"""Scripts of every kind, good and bad: how their jobs end, and what the status says of it."""

from __future__ import annotations

from local_runs import MakeJob, python, script


def test_a_plain_torch_distributed_script_runs_unchanged(job: MakeJob) -> None:
    run = job(script("plain_ddp.py"))
    ended = run.run(seconds=240)
    assert (ended.code, ended.phase) == (0, "Succeeded")
    for rank in (0, 1):
        assert f"rank {rank} of 2: sum of ranks 1" in run.logs(rank)


def test_a_script_that_crashes_fails_with_its_exit_code_and_last_lines(job: MakeJob) -> None:
    crash = python("import os\nif os.environ['RANK'] == '1': raise ValueError('no such shard')")
    run = job(crash, failurePolicy={"maxRestarts": 2})
    ended = run.run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert ended.restarts["counted"] == 2
    assert ended.restarts["last"]["exitCode"] == 1
    assert ended.restarts["last"]["worker"] == 1
    assert "ValueError: no such shard" in ended.status["message"]
    assert "restarts" in ended.status["message"]


def test_one_rank_that_ends_well_waits_for_the_others(job: MakeJob) -> None:
    """Exit 0 of one rank is not success while another one works, nor when that one fails."""
    code = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '0': sys.exit(0)\n"
        "time.sleep(1); sys.exit(3)"
    )
    ended = job(python(code), failurePolicy={"maxRestarts": 0}).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "exited with code 3" in ended.status["message"]


def test_a_script_that_hangs_is_ended_by_the_deadline(job: MakeJob) -> None:
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)"
    ended = job(python(code), activeDeadlineSeconds=4).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "DeadlineExceeded" in str(ended.status["conditions"])


def test_a_script_that_fills_memory_is_killed_and_named(job: MakeJob) -> None:
    code = "import os, time\nif os.environ['RANK'] == '1': x = bytearray(600 << 20)\ntime.sleep(60)"
    limits = {"memory": "300Mi"}
    ended = job(python(code), limits=limits, failurePolicy={"maxRestarts": 1}).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert ended.restarts["last"]["reason"] == "OOMKilled"
    assert ended.restarts["last"]["worker"] == 1
    assert "memory" in ended.status["message"]


def test_megabytes_of_output_are_kept_whole_and_stop_nothing(job: MakeJob) -> None:
    code = "import sys\nfor i in range(200_000): print(i, 'x' * 90)\nprint('the end')"
    run = job(python(code), replicas=1)
    ended = run.run()
    assert (ended.code, ended.phase) == (0, "Succeeded")
    log = run.logs(0)
    assert len(log) > 19_000_000
    assert "199999 xxx" in log
    assert "the end" in log
    assert "left out" in ended.shown


def test_output_that_is_no_text_and_has_no_lines(job: MakeJob) -> None:
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 4000)\nsys.exit(9)"
    ended = job(python(code), replicas=1, failurePolicy={"maxRestarts": 0}).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "code 9" in ended.status["message"]


def test_a_command_that_does_not_exist_fails_at_once(job: MakeJob) -> None:
    ended = job(["no-such-program"], failurePolicy={"maxRestarts": 5}).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "no-such-program" in ended.status["message"]
    assert not ended.restarts.get("counted")


def test_a_process_that_a_worker_leaves_behind_is_ended(job: MakeJob) -> None:
    code = "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)"
    ended = job(python(code), replicas=1).run()  # `finish` looks for what is left
    assert (ended.code, ended.phase) == (0, "Succeeded")


def test_several_processes_of_a_pod_have_ranks_of_their_own(job: MakeJob) -> None:
    code = (
        "import os\nprint(*(os.environ[n] for n in "
        "('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'GROUP_RANK')))"
    )
    run = job(python(code))
    run.manifest["spec"]["workers"]["processesPerWorker"] = 2
    assert run.run().phase == "Succeeded"
    assert {"[0] 0 0 4 2 0", "[1] 1 1 4 2 0"} <= set(run.logs(0).splitlines())
    assert {"[2] 2 0 4 2 1", "[3] 3 1 4 2 1"} <= set(run.logs(1).splitlines())
