"""The files of docs/deploy, as far as they can be tried without a cluster: their commands run, on two local workers."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tools.launch_local import free_ports

ROOT = pathlib.Path(__file__).parent.parent.parent
DEPLOY = ROOT / "docs" / "deploy"
DIGITS = ["--gin_file=gin/digits.gin", "--gin_bindings=EPOCHS=1", "--gin_bindings=BATCH_SIZE=64"]
BIN = pathlib.Path(sys.executable).parent

# As srun starts two tasks on one machine; SLURM names its port range by itself, so the resolver's 8888 is taken here.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
for i in 0 1; do
  SLURM_PROCID=$i SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2 "$@" 2>&1 &
  tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || code=$?; done
exit "${code:-0}"
"""

# As slurmstepd near the end of the time: TERM to the task (proctrack/cgroup), or to all its processes
# (SignalChildrenProcesses); once the task is gone, KILL to what is left.
SRUN_ENDING = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
setsid "$@" &
task=$!
until [ -e "$WORKDIR.started" ]; do sleep 0.1; done
kill -TERM -- "$SIGNALLED$task"
wait "$task"
code=$?
kill -KILL -- "-$task" 2> /dev/null
exit "$code"
"""
SAVES = """#!/bin/bash
trap 'sleep 1; touch "$WORKDIR.saved"; exit 143' TERM
touch "$WORKDIR.started"
for _ in {1..100}; do sleep 0.1; done
"""


@pytest.fixture
def slurm(tmp_path):
    """An environment with srun and scontrol, which writes what it is asked for."""
    for name, text in (("srun", SRUN), ("scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\n')):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{BIN}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "WORKDIR": str(tmp_path / "run"), "SLURM_JOB_ID": "7"}


def bash(*command, **settings):
    return subprocess.run(["bash", *command], cwd=ROOT, capture_output=True, text=True, check=False, **settings)


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script):
    assert bash("-n", str(script)).stderr == ""


@pytest.mark.parametrize("file", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_files_name_what_is_there(file):
    text = file.read_text()
    for gin in re.findall(r"--gin_file=(\S+\.gin)", text):
        assert (ROOT / gin).is_file()
    for command in re.findall(r"python -m (pipelines\.\w+)", text):
        assert (ROOT / f"{command.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("signalled", ["", "-"], ids=["the_task", "all_processes"])
@pytest.mark.parametrize("script", ["slurm_train.sh", "slurm_evaluate.sh"])
def test_a_job_whose_time_is_over_saves_and_comes_back(slurm, tmp_path, script, signalled):
    for name, text in (("srun", SRUN_ENDING), ("python", SAVES)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    place = {"SIGNALLED": signalled, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    done = bash(str(DEPLOY / script), env={**slurm, **place}, timeout=30)
    assert done.returncode == 143, done.stdout + done.stderr
    assert (tmp_path / "run.saved").exists()
    assert (tmp_path / "asked").read_text().startswith("requeue 7")


@pytest.mark.slow
def test_the_slurm_script_trains_on_all_its_tasks(slurm):
    done = bash(str(DEPLOY / "slurm_train.sh"), *DIGITS, env=slurm, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 2 CPU of 2 machines" in done.stdout
    assert pathlib.Path(slurm["WORKDIR"], "result.json").is_file()
    assert not pathlib.Path(slurm["PATH"].split(":")[0], "asked").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "asked"), [("--gin_bindings=EPOCH=1", False), ("--gin_bindings=EPOCHS=1", True)])
def test_a_job_comes_back_unless_its_command_is_wrong(slurm, wrong, asked, tmp_path):
    if asked:  # a worker that is lost
        (tmp_path / "python").write_text("#!/bin/bash\nexit 75\n")
        (tmp_path / "python").chmod(0o755)
    done = bash(str(DEPLOY / "slurm_train.sh"), *DIGITS, wrong, env=slurm, timeout=200)
    assert done.returncode == (75 if asked else 2), done.stdout + done.stderr
    assert (tmp_path / "asked").exists() == asked
    assert not asked or (tmp_path / "asked").read_text() == "requeue 7\n"


@pytest.mark.slow
def test_the_command_of_the_kubernetes_job_trains_on_all_its_pods(tmp_path):
    text = (DEPLOY / "kubernetes_train.yaml").read_text()
    block = text[text.index("            - |\n") + len("            - |\n") : text.index("          ports:\n")]
    command = block.replace(" " * 14, "").rstrip().replace("/data/runs/trades_awp_4x8", str(tmp_path / "run"))
    first, second = free_ports(2)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "WORKERS": "2"}
    # printf makes the address of each worker of a pattern; here they differ in their ports.
    hosts = f'printf "\\"127.0.0.1:%d\\"," "$(({first} + i * ({second - first})))"'
    command = command.replace('printf "\\"$HOSTS\\"," "$i"', hosts)
    assert "127.0.0.1" in command
    pods = [
        subprocess.Popen(
            ["bash", "-c", f"{command} {' '.join(DIGITS)}"],
            cwd=ROOT,
            env={**environment, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in (0, 1)
    ]
    said = [pod.communicate(timeout=200)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert "on 2 CPU of 2 machines" in said[0]
    assert (tmp_path / "run" / "result.json").is_file()
