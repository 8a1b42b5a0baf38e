#!/bin/bash
# Distil on a Slurm cluster: one task per GPU through srun, ranks from SLURM_* in Python.
#
#   sbatch slurm/distill.sh                                             the paper's ViT-B/32 run
#   sbatch --nodes=8 slurm/distill.sh recipes/distill_swin_tiny.py data.images=... data.texts=... optim.lr=4e-4
#
# Words after the script: a recipe (default recipes/distill_vitb32.py), then its overrides. The same command resumes.
# Set the shape of the job on sbatch's command line; what is here fits three nodes of eight GPUs (24 ranks x 512 images).
#SBATCH --job-name=dime
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"

recipe=recipes/distill_vitb32.py
if [[ $# -gt 0 && $1 == *.py ]]; then
    recipe=$1
    shift
fi
[[ -f $recipe ]] || { echo "no recipe $recipe in $SLURM_SUBMIT_DIR; submit from the folder that holds it" >&2; exit 2; }
python=python3
[[ -x .venv/bin/python ]] && python=$PWD/.venv/bin/python
folder=$(dirname "$(command -v "$python")")
export PATH=$folder:$PATH  # ninja, where DeepSpeed compiles an operator

# scontrol exists on the node, not inside containers: ask it here. The port is the job's own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
[[ -n ${SLURM_CPUS_PER_TASK:-} ]] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # srun does not inherit it since 22.05

# --kill-on-bad-exit: one dead rank ends the job at once instead of leaving the others in a collective.
srun --kill-on-bad-exit=1 --wait=60 "$python" -u "$recipe" "$@"
