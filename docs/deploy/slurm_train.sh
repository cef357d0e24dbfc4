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
# Two minutes before the time is over (before preemption only where Slurm's send_user_signal is set): the state is saved,
# and the job put back into the queue.
#SBATCH --signal=TERM@120

WORKDIR="${WORKDIR:-runs/trades_awp_4x8}" # on a disk that all machines see

# Nothing stands between srun and Python: Slurm sends the signal to the task alone, and kills what a task leaves behind.
srun --kill-on-bad-exit=0 python -m pipelines.train \
  --gin_file=gin/trades_awp.gin \
  --gin_bindings=BATCH_SIZE=1024 --gin_bindings=LEARNING_RATE=0.4 \
  --gin_bindings="train.cluster='slurm'" --gin_bindings=train.wait_seconds=300 \
  --workdir="$WORKDIR" "$@"
code=$? # the largest of all tasks

# 2: the command is wrong, and would be the next time.
if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
  echo "ended with $code; all machines begin again where they stopped"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
