#!/bin/bash
# Fine-tuning with five seeds as an array of jobs, each on one GPU and started again until it is finished.
#   sbatch recipes/slurm/finetune.sh /shared/labelled /shared/runs/p2w /shared/runs/finetuned [other settings]
#SBATCH --job-name=finetune
#SBATCH --array=0-4
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append

data=$1 init=$2 out=$3
shift 3
seed=$SLURM_ARRAY_TASK_ID
srun parts2whole finetune --task Segmentation --data "$data" --init "$init" --seed "$seed" \
  --out "$out/seed$seed" --resume auto "$@"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
