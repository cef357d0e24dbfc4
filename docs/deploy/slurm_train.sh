#!/bin/bash
# Trains on 4 machines of 8 GPUs: sbatch docs/deploy/slurm_train.sh
# One process a machine; it takes all GPUs that it sees. What follows -- --gin_file and the rest -- is yours to change.
#SBATCH --job-name=awp
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is over, and before preemption: the state is saved, and the job put back into the queue.
#SBATCH --signal=TERM@120

WORKDIR="${WORKDIR:-runs/trades_awp_4x8}" # on a disk that all machines see
FAILED="$WORKDIR.failed"                  # a wrong command is wrong the next time, too
mkdir -p "$(dirname "$WORKDIR")"
rm -f "$FAILED"
export WORKDIR FAILED

# shellcheck disable=SC2016 # the variables are those of each task
srun --kill-on-bad-exit=0 bash -c '
  python -m pipelines.train \
    --gin_file=gin/trades_awp.gin \
    --gin_bindings=BATCH_SIZE=1024 --gin_bindings=LEARNING_RATE=0.4 \
    --gin_bindings="train.cluster='"'slurm'"'" --gin_bindings=train.wait_seconds=300 \
    --workdir="$WORKDIR" "$@"
  code=$?
  if [ "$code" -eq 2 ]; then touch "$FAILED"; fi
  exit "$code"' train "$@"
code=$?

if [ "$code" -ne 0 ] && [ ! -e "$FAILED" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
  echo "ended with $code; all machines begin again where they stopped"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
