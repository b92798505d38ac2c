#!/bin/bash
# Train with torchrun: one machine, several, or a number that changes while the run goes on.
#
#     examples/torchrun/train.sh runs/mine configs/llama-7b.toml [section.key=value ...]
#
# On several machines, on each of them, with the address of one:
#
#     NNODES=4 RDZV_ENDPOINT=node1:29500 examples/torchrun/train.sh runs/mine configs/llama-7b.toml
#
# Elastic: with NNODES=2:4 the run goes on with 2 to 4 machines. When one dies, or a rank hangs, torchrun starts
# the others again, up to MAX_RESTARTS times, and the run resumes from its newest checkpoint on the ranks there are.
#
# Exit codes: 0 finished; 75 stopped by SIGTERM or Ctrl-C with everything saved; else torchrun's.

set -uo pipefail

usage="usage: train.sh RUN CONFIG [section.key=value ...]"
run=${1:?"$usage"}
config=${2:?"$usage"}
shift 2

python=${PYTHON:-python}
nodes=${NNODES:-1}
ranks=${NPROC_PER_NODE:-gpu} # `gpu`: one for each; a number on machines without
restarts=${MAX_RESTARTS:-3}

if [ "$nodes" = 1 ]; then
    meet=(--standalone)
else
    endpoint=${RDZV_ENDPOINT:?"several machines need RDZV_ENDPOINT=HOST:PORT"}
    meet=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$endpoint" --rdzv-id "${RDZV_ID:-criadero}")
fi

# Ranks that are started again meet anew, and not under the addresses of those before.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# torchrun sets OMP_NUM_THREADS=1 unless you do. Ranks talk in clear text: name the network only they share.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

"$python" -m torch.distributed.run "${meet[@]}" --nproc-per-node "$ranks" --max-restarts "$restarts" \
    -m criadero train "$config" "run.folder='$run'" "$@" &
agent=$!
# torchrun passes the signal on and kills its ranks 30 s later: the time for a step and a checkpoint.
trap 'kill -TERM "$agent" 2>/dev/null' TERM INT
wait "$agent"
code=$?
while kill -0 "$agent" 2>/dev/null; do # a trapped signal ends `wait` before torchrun is over
    wait "$agent"
    code=$?
done

# Signalled, torchrun exits with 1 whatever its ranks exit with: the run says how it ended.
if [ "$code" -ne 0 ] && grep -q '"state": "stopped"' "$run/status.json" 2>/dev/null; then
    code=75
fi
exit "$code"
