#!/bin/bash
# Distil on a Slurm cluster: one task per GPU through srun, ranks from SLURM_* in Python.
#
#   sbatch slurm/distill.sh                                             the paper's ViT-B/32 run
#   sbatch --nodes=8 slurm/distill.sh recipes/distill_swin_tiny.py data.images=... data.texts=... optim.lr=4e-4
#
# Submit from the folder that holds slurm/ and recipes/. Words after the script: a recipe (default recipes/distill_vitb32.py), then
# its overrides. Set the shape of the job on sbatch's command line; what is here fits three nodes of eight GPUs (24 ranks x 512
# images). Modules, containers, NCCL: slurm/site.env.
#
# The run writes a checkpoint five minutes before its time is over and goes back into the queue by itself, as it does after a dead
# rank or a dead node, until it is done. A mistake in the settings, a loss that is not finite and `scancel` end it; the same command
# then goes on from the newest checkpoint. `scancel --signal=USR1 JOB`: checkpoint and requeue now.
#SBATCH --job-name=dime
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 2
source slurm/job.sh || { echo "no slurm/job.sh in $PWD; submit from the folder that holds slurm/" >&2; exit 2; }
prepare

recipe=recipes/distill_vitb32.py
if [[ $# -gt 0 && $1 == *.py ]]; then
    recipe=$1
    shift
fi
[[ -f $recipe ]] || refuse "no recipe $recipe in $PWD; submit from the folder that holds it"

# Rank 0 writes this file while running again would help and removes it when it would not. Exit codes cannot say that: srun returns the
# highest of all tasks, often that of one that was killed.
export DIME_REQUEUE_FILE="$PWD/.dime-requeue-$SLURM_JOB_ID"
rm -f "$DIME_REQUEUE_FILE"
ranks "$recipe" "$@"

run_again=false
[[ -e $DIME_REQUEUE_FILE ]] && run_again=true
rm -f "$DIME_REQUEUE_FILE"
# After a TERM it is Slurm that decides: it runs a pre-empted job and one whose node died again, and a cancelled one not.
[[ $run_again == true && $told != TERM ]] && again "the run is not done (its tasks ended with $code)"
finish
