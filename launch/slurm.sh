#!/usr/bin/env bash
# A Slurm job that runs the pipeline on several machines: sbatch launch/slurm.sh; or up to some stage: ... slurm.sh sft
# Set the numbers below to your cluster's; the folder must be one that all machines see.
#SBATCH --job-name=rlhf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

export PATH=$PWD/.venv/bin:$PATH  # the stages that DVC starts are run by its `python`
export HF_HOME=${HF_HOME:-$PWD/.hf}
export MASTER_ADDR
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# DVC runs on the first machine alone. `launch` starts every stage there with this script, which starts it on all.
if [ "${1:-}" != stage ]; then
  make .venv/run.stamp
  sed -i "s|^launch: .*|launch: bash launch/slurm.sh stage|" params.yaml
  exec python -m dvc repro "$@"
fi
shift
# A process on each GPU; on machines without GPUs, one.
exec srun --kill-on-bad-exit=1 bash -c '
  exec python -m accelerate.commands.launch --config_file launch/nodes.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1}))" \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER_ADDR" --main_process_port 29500 "$@"' stage "$@"
