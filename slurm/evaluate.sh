#!/bin/bash
# Judge the student of a run, finished or not, beside its teacher.
#
#   sbatch slurm/evaluate.sh runs/distill_vitb32
#   sbatch --ntasks-per-node=8 --gpus-per-node=8 slurm/evaluate.sh runs/distill_vitb32 --checkpoint best evaluation.sets.mine.shards=...
#
# Words after the script: those of `dime evaluate`. Submit from the folder that holds slurm/.
#SBATCH --job-name=dime-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 2
source slurm/job.sh || { echo "no slurm/job.sh in $PWD; submit from the folder that holds slurm/" >&2; exit 2; }
prepare

[[ $# -gt 0 ]] || refuse "which run? sbatch slurm/evaluate.sh RUN [key=value ...]"
ranks -m toolkit.cli evaluate "$@"
finish
