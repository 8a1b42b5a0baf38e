# shellcheck shell=bash
# What the sbatch scripts of this folder share; they source it. It is no job by itself.
#
#   prepare            folder, site.env, Python, rendezvous, caches; says what this job is
#   ranks WORD...      runs `python -u WORD...` as the job's tasks through srun; afterwards `code` is srun's exit code and `told`
#                      the last signal that this shell got (USR1, TERM or nothing)
#   again WHY          puts the job back into the queue
#   finish             says which way the job ended and leaves with `code`
#
# No `set -e`: a trap interrupts `wait`, and its status is no failure.

say() { printf '== %s  %s\n' "$(date +%FT%T)" "$*"; }

refuse() {
    say "$*" >&2
    exit 2
}

prepare() {
    [[ -f slurm/site.env ]] && source slurm/site.env

    # In an array the last task's job id is the array's own: whoever names that number means all tasks.
    job=$SLURM_JOB_ID
    [[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    restart=${SLURM_RESTART_COUNT:-0}

    python=${DIME_PYTHON:-}
    [[ -z $python && -x .venv/bin/python ]] && python=$PWD/.venv/bin/python
    python=${python:-python3}
    [[ $python == */* ]] && export PATH=${python%/*}:$PATH # ninja lies there, where DeepSpeed compiles an operator

    # scontrol exists on the node, not inside a container: ask it here. The port is the job's own, below those that systems hand out.
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=${hosts%%$'\n'*}
    export MASTER_ADDR MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    [[ -n ${SLURM_CPUS_PER_TASK:-} ]] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not inherit it since 22.05
    export SLURM_EXPORT_ENV=ALL # `sbatch --export=...` is about the job, not about its tasks: they get what stands here

    # Compiled kernels on each node's own disk: ranks of several nodes in one folder of a network disk trip over each other.
    export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-${TMPDIR:-/tmp}/dime-$SLURM_JOB_ID/triton}"
    export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-${TMPDIR:-/tmp}/dime-$SLURM_JOB_ID/inductor}"
    # Should a collective hang, every rank leaves its last ones beside the log (read them with torch's fr_trace).
    export NCCL_DEBUG="${NCCL_DEBUG:-WARN}" TORCH_FR_BUFFER_SIZE="${TORCH_FR_BUFFER_SIZE:-20000}"
    export TORCH_NCCL_DUMP_ON_TIMEOUT="${TORCH_NCCL_DUMP_ON_TIMEOUT:-1}"
    export TORCH_FR_DUMP_TEMP_FILE="${TORCH_FR_DUMP_TEMP_FILE:-$PWD/$SLURM_JOB_NAME-$SLURM_JOB_ID-collectives-rank}"

    local left
    left=$(squeue -h -j "$job" -o %L)
    DIME_JOB_END=${SLURM_JOB_END_TIME:-}
    [[ -z $DIME_JOB_END && $left == *:* ]] && DIME_JOB_END=$(($(date +%s) + $(seconds_in "$left")))
    [[ -n $DIME_JOB_END ]] && export DIME_JOB_END # unset where the job has no limit

    say "job $job ($SLURM_JOB_NAME) on ${hosts//$'\n'/ }, tasks per node $SLURM_TASKS_PER_NODE, restart $restart, time left $left"
}

# [days-]hours:minutes:seconds, as squeue prints a duration; hours may be missing
seconds_in() {
    local days=0 clock=$1 part sum=0
    [[ $clock == *-* ]] && days=${clock%%-*} clock=${clock#*-}
    for part in ${clock//:/ }; do sum=$((sum * 60 + 10#$part)); done
    echo $((days * 86400 + sum))
}

# USR1 to this shell is meant for the tasks; scancel passes it on, while srun may take a signal for itself. A TERM they get from Slurm as
# this shell does (scancel, pre-emption, a dead node, the time limit), and a second one would end them before their checkpoint is written.
heard() {
    told=$1
    case $1 in
        USR1) scancel "--signal=${USR1_BECOMES:-USR1}" "$job" ;;
        TERM) say "scancel or Slurm ends this job; submitted again, the same command goes on" ;; # may be this shell's last word
    esac
}

# One task per GPU; ranks are read from SLURM_* in Python. What stands between srun and Python must `exec`, or signals end there.
# --wait: tasks that outlive the first one by so long are ended. Those that still have something to say about a dead rank say it, and
# the exit code is that of a rank and not of one that srun killed, as --kill-on-bad-exit would have it.
ranks() {
    local words=(srun --wait="${SLURM_WAIT:-60}" "${DIME_SRUN[@]}" "${DIME_WRAP[@]}" "$python" -u "$@")
    say "command:$(printf ' %q' "${words[@]}")"
    told=''
    trap 'heard USR1' USR1
    trap 'heard TERM' TERM
    "${words[@]}" & # in the background, as bash runs no trap while it waits for a command in the foreground
    step=$!
    wait "$step"
    while kill -0 "$step" 2>/dev/null; do wait "$step"; done
    wait "$step" # remembered by bash; the ones before may have been interrupted
    code=$?
}

again() {
    # Slurm ends a job's tasks before its shell: that they are gone may be the first that this shell hears of scancel.
    local state
    state=$(squeue -h -j "$job" -o %T)
    [[ -n $state && $state != RUNNING ]] && told=TERM
    [[ $told == TERM ]] && return
    say "$1: back into the queue, restart $((restart + 1)) goes on from there"
    for pause in 2 10 0; do
        scontrol requeue "$job" && exit 0
        sleep "$pause"
    done
    say "Slurm did not take job $job back; submit the same command again"
    exit $((code ? code : 75))
}

finish() {
    case $told:$code in
        TERM:*) say "ended as it was told, with exit code $code" ;;
        *:0) say "done" ;;
        *) say "failed with exit code $code, and is not run again by itself" ;;
    esac
    exit "$code"
}
