"""Finding the program behind mpirun, horovodrun and torchrun."""

import shlex

import pytest

from headway.convert.program import find
from headway.convert.shell import commands

MPI = """
mpirun --allow-run-as-root -np 4 -bind-to none -map-by slot -x A=1 -x PATH -mca pml ob1 python t.py
mpirun -n 4 --hostfile /etc/mpi/hostfile --mca btl ^openib,tcp python t.py
/usr/bin/mpirun -np 4 -H host1:2,host2:2 --tag-output -- python t.py
mpiexec -ppn 2 -n 4 -genv I_MPI_DEBUG 5 -genvall -hosts a,b python t.py
mpirun -np 4 --oversubscribe --report-bindings --prefix /opt/mpi python t.py
horovodrun -np 4 -H a:2,b:2 --verbose --gloo python t.py
horovodrun -np 4 --min-np 2 --max-np 8 --host-discovery-script /d.sh --reset-limit 3 python t.py
torchrun --nnodes=2 --nproc_per_node=2 --rdzv-backend c10d --rdzv_endpoint=h:29400 t.py
torchrun --standalone --nproc-per-node gpu t.py
python -m torch.distributed.run --nproc_per_node 2 t.py
python -m torch.distributed.launch --use_env --master_addr h --master_port 29500 t.py
bash -c "mpirun -np 2 python t.py"
/bin/sh -c "torchrun t.py"
bash -lc "horovodrun -np 2 python t.py"
bash -o pipefail -c "exec mpirun -np 2 python t.py"
"""


@pytest.mark.parametrize("command", MPI.strip().splitlines())
def test_what_is_left_is_the_program(command: str) -> None:
    assert find(shlex.split(command)).command == ["python", "t.py"]


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("python3 -u -m torch.distributed.run t.py --lr 1", "python3 -u t.py --lr 1"),
        ("torchrun -m llm.train --x -np", "python -m llm.train --x -np"),
        ("torchrun --no-python ./run.sh a", "./run.sh a"),
        ("mpirun -np 2 python t.py -np 3 -x B=1", "python t.py -np 3 -x B=1"),
        ("python train.py --launcher mpirun.txt", "python train.py --launcher mpirun.txt"),
        ("bash run.sh mpi", "bash run.sh mpi"),
    ],
)
def test_options_of_the_program_stay_its_own(command: str, program: str) -> None:
    assert find(shlex.split(command)).command == program.split()


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("cd /app && mpirun -np 2 python t.py", "cd /app && exec python t.py"),
        ("cd /app\nmpirun -np 2 \\\n  -x A \\\n  python t.py\n", "cd /app\nexec python t.py"),
        ("mpirun -np $NP python t.py --lr ${LR}", "exec python t.py --lr ${LR}"),
        ("A=1 mpirun -np 2 python t.py", "A=1 exec python t.py"),
        ("mpirun -n 2 python t.py 2>&1 | tee log", "python t.py 2>&1 | tee log"),
        ("mpirun -n 2 python t.py &> log", "exec python t.py &> log"),
        ("torchrun -m a.b --name 'x y' > log", "exec python -m a.b --name 'x y' > log"),
        ("echo start mpirun; mpirun -n 2 python t.py *", "echo start mpirun; exec python t.py *"),
        ('mpirun -x "A=b c" python t.py "$X"', 'exec python t.py "$X"'),
        ("mpirun -x A=$B/c -x D=1 python t.py", 'A="$B/c" exec python t.py'),
        ("B=1\nexec mpirun --wdir $B python t.py", "B=1\nexec python t.py"),
    ],
)  # fmt: skip
def test_a_script_keeps_what_needs_a_shell(script: str, kept: str) -> None:
    assert find(["sh", "-c", script]).command == ["sh", "-c", kept]


def test_a_quoted_word_of_a_plain_script_stays_one_word() -> None:
    script = "mpirun -np 2 python t.py --name 'a b' --note \"it's\""
    assert find(["bash", "-c", script]).command == [
        "python",
        "t.py",
        "--name",
        "a b",
        "--note",
        "it's",
    ]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["timeout", "1h", "mpirun", "python", "t.py"], "`timeout 1h` before mpirun is left out"),
        (["sh", "-c", "pip install x && mpirun python t.py"], "does before: `pip install x`"),
        (["sh", "-c", "mpirun a; mpirun python t.py"], "runs mpirun 2 times"),
        (["sh", "-c", "mpirun python t.py && cp a b"], "`&& cp a b` after the program"),
        (["mpirun", "-np", "1", "a", ":", "-np", "2", "b"], "several programs"),
        (["mpirun", "--wonder", "3", "python", "t.py"], "--wonder 3 is not known"),
        (["horovodrun", "--config-file", "c.yaml", "python", "t.py"], "a file that is not read"),
        (["python", "-m", "torch.distributed.launch", "t.py"], "read LOCAL_RANK instead"),
        (["mpirun", "--timeout", "60", "python", "t.py"], "set activeDeadlineSeconds"),
    ],
)
def test_what_changes_its_meaning_is_told(argv: list[str], told: str) -> None:
    assert told in "\n".join(find(argv).unclear)


@pytest.mark.parametrize(
    ("option", "variables"),
    [
        ("--fusion-threshold-mb 32", {"HOROVOD_FUSION_THRESHOLD": "33554432"}),
        ("--fusion-threshold-mb=0", {"HOROVOD_FUSION_THRESHOLD": "0"}),
        ("--cycle-time-ms 3.5", {"HOROVOD_CYCLE_TIME": "3.5"}),
        ("--cache-capacity 2048", {"HOROVOD_CACHE_CAPACITY": "2048"}),
        ("--hierarchical-allreduce", {"HOROVOD_HIERARCHICAL_ALLREDUCE": "1"}),
        ("--no-hierarchical-allgather", {"HOROVOD_HIERARCHICAL_ALLGATHER": "0"}),
        ("--autotune --autotune-log-file /l",
         {"HOROVOD_AUTOTUNE": "1", "HOROVOD_AUTOTUNE_LOG": "/l"}),
        ("--autotune-log-file /l", {}),
        ("--timeline-filename /t --timeline-mark-cycles",
         {"HOROVOD_TIMELINE": "/t", "HOROVOD_TIMELINE_MARK_CYCLES": "1"}),
        ("--timeline-mark-cycles", {}),
        ("--no-stall-check", {"HOROVOD_STALL_CHECK_DISABLE": "1"}),
        ("--stall-check-warning-time-seconds 9", {"HOROVOD_STALL_CHECK_TIME_SECONDS": "9"}),
        ("--tcp", {"NCCL_IB_DISABLE": "1"}),
        ("--num-nccl-streams 2", {"HOROVOD_NUM_NCCL_STREAMS": "2"}),
        ("--gloo-timeout-seconds 90", {"HOROVOD_GLOO_TIMEOUT_SECONDS": "90"}),
        ("--log-level DEBUG --log-without-timestamp",
         {"HOROVOD_LOG_LEVEL": "DEBUG", "HOROVOD_LOG_HIDE_TIME": "1"}),
        ("--network-interfaces eth0,eth1",
         {"HOROVOD_GLOO_IFACE": "eth0", "NCCL_SOCKET_IFNAME": "eth0,eth1"}),
        ("--mpi-args='-x A=1 --map-by slot'", {"A": "1"}),
    ],
)  # fmt: skip
def test_options_of_horovodrun_become_horovods_variables(
    option: str, variables: dict[str, str]
) -> None:
    found = find(shlex.split(f"horovodrun -np 2 {option} python t.py"))
    assert found.launch is not None
    assert found.launch.env == variables
    assert found.command == ["python", "t.py"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("a b;c && d | e & f", "a b/c/d/e/f"),
        ("a 'b;c' \"d && e\" f\\ g", "a b;c d && e f g"),
        ("a $(b; c) ${D:-e f} `g; h`", "a $(b; c) ${D:-e f} `g; h`"),
        ("a # b; c\nd", "a/d"),
        ("a \\\n b", "a b"),
        ("a 2>&1 >&2 &> f", "a 2>&1 >&2 &> f"),
        ('a "$(b "c d")" e', 'a $(b "c d") e'),
        ("(a; b)", "a/b"),
        ("a 'unclosed", "a unclosed"),
        ("cat << EOF > f\nb; c\nEOF\nd", "cat << EOF > f/d"),
        ("cat <<-'E F'\nb; c\n\tE F\nd <<< e\nf", "cat <<-E F/d <<< e/f"),
        ("cat <<A <<B\na\nA\nb\nB\nc", "cat <<A <<B/c"),
        ("a \\", "a "),
        ("", ""),
    ],
)
def test_commands_of_a_script(script: str, words: str) -> None:
    assert "/".join(" ".join(w.text for w in c) for c in commands(script)) == words
