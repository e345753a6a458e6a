#!/bin/bash
#SBATCH --job-name=llmjobs
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

manifest=${1:?give a manifest: sbatch docs/cluster/slurm.sh manifests/medium.yaml}
source .venv/bin/activate
port=$((20000 + SLURM_JOB_ID % 10000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
others=$((SLURM_JOB_NUM_NODES - 1))

srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --port="$port" --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" &
until ray health-check --address="$head:$port" 2>/dev/null; do sleep 2; done
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --exclude="$head" \
    ray start --block --address="$head:$port" --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" &
fi

# the driver: a signal two minutes before the time is over ends it with everything saved (75), and the job is queued again
trap 'kill -TERM "$driver" 2>/dev/null' TERM
llmjobs eval "$manifest" --ray "$head:$port" &
driver=$!
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do wait "$driver" && code=0 || code=$?; done
if [ "$code" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
