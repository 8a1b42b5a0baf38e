#!/bin/bash
# A teacher's embeddings of many shards, computed by an array of jobs: task I of N takes every N-th shard from the I-th on.
#
#   sbatch slurm/embed.sh images 'shards/images/{00000..03999}.tar' --teacher ViT-L-14-quickgelu:openai --out store
#   sbatch --array=0-63%16 slurm/embed.sh texts shards/texts --teacher ViT-L-14-quickgelu:openai --out store
#   sbatch --array=0-31 --ntasks-per-node=8 --gpus-per-node=8 slurm/embed.sh ...           whole nodes
#
# Words after the script: those of `dime embed` (no --part). Submit from the folder that holds slurm/. The array is a range; any size
# does, for shards that are there already are left alone: whatever was killed, submit the same command again, or a smaller array, or
# `scontrol requeue JOB_TASK`. A task whose time is over goes back into the queue by itself while the store grows; one that dies does, twice.
#SBATCH --job-name=dime-embed
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.out
#SBATCH --open-mode=append
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}" || exit 2
source slurm/job.sh || { echo "no slurm/job.sh in $PWD; submit from the folder that holds slurm/" >&2; exit 2; }
prepare

: "${SLURM_ARRAY_TASK_ID:=0}" "${SLURM_ARRAY_TASK_MIN:=0}" "${SLURM_ARRAY_TASK_MAX:=0}" "${SLURM_ARRAY_TASK_COUNT:=1}"
((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN + 1 == SLURM_ARRAY_TASK_COUNT)) ||
    refuse "--array is no range, so nobody would take some of the shards; give one, such as --array=0-7: what is embedded is skipped"
part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT

store=''
for ((i = 1; i <= $#; i++)); do
    case ${!i} in
        --out) ((j = i + 1)) && store=${!j} ;;
        --out=*) store=${!i#--out=} ;;
        --part | --part=*) refuse "--part is what the array is for; set its size with sbatch --array=0-N" ;;
    esac
done
grows() { [[ -n $(find "$store" -name '*.safetensors' -newermt "@$began" -print -quit 2>/dev/null) ]]; }

began=$(date +%s)
USR1_BECOMES=TERM # there is no state to save: what is embedded is in the store
ranks -m toolkit.cli embed "$@" --part "$part"

# 2 is a mistake in the words, 6 one in the data: both stay what they are.
case $told:$code in
    TERM:* | *:0 | *:2 | *:6) ;;
    USR1:*) grows && again "its time is over" ;;
    *) grows && ((restart < 2)) && again "it died with $code" ;;
esac
finish
