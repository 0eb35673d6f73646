#!/bin/sh
# A job on several nodes: the first one has the work, a bridge runs beside the program on each of the others.
# /dev/shm belongs to the node, or to the job where job_container/tmpfs is set up. Each node has the keys in $HOME/ssm.
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
keys="--carrier zmq --key $HOME/ssm/lab.key_secret --peer-key $HOME/ssm/lab.key"   # one pair for the whole job

srun --overlap --nodes=1 --nodelist="$first" \
    ssm bridge lab --export work --import results:done --hosts $((SLURM_NNODES - 1)) --listen "*:7400" --wait 60 $keys &
srun --overlap --nodes=$((SLURM_NNODES - 1)) --exclude="$first" \
    ssm bridge lab --import work --export results --connect "$first:7400" --wait 60 $keys &
srun --overlap python program.py
