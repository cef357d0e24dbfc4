#!/bin/bash
# AutoAttack on 8 machines: sbatch docs/deploy/slurm_evaluate.sh
# Each takes every eighth image; the last one to finish writes the card. Put back into the queue, a share goes on.
#SBATCH --job-name=awp-evaluate
#SBATCH --array=1-8
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

WORKDIR="${WORKDIR:-runs/trades_awp_4x8}"
srun python -m pipelines.evaluate --workdir="$WORKDIR" --shard="$SLURM_ARRAY_TASK_ID/8" "$@"
code=$?
if [ "$code" -eq 143 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi
exit "$code"
