#!/bin/bash
# Pre-training on one node: one process a GPU, started again until the run is finished.
#   sbatch recipes/slurm/pretrain.sh /shared/store /shared/runs/p2w [other settings of parts2whole pretrain]
# Five minutes before its time is up SLURM sends SIGUSR1; the run saves its state and ends with code 75.
#SBATCH --job-name=pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

store=$1 out=$2
shift 2
srun --kill-on-bad-exit=1 parts2whole pretrain "$store" --out "$out" --resume auto --hardware.workers 6 "$@"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
