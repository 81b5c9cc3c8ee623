# Sourced by the recipes. Started again, a recipe goes on where it was stopped.
set -euo pipefail
recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The environment of the checkout, where there is one; otherwise the transframer that is installed.
[ ! -x "$recipes/../.venv/bin/transframer" ] || PATH=$(cd "$recipes/../.venv/bin" && pwd):$PATH
trap 'echo "stopped: the same command goes on from here" >&2; exit 130' INT

# usage: trained RUN; whether the run has come to its end.
trained() {
  [ -f "$1/log.txt" ] && tail -n 1 "$1/log.txt" | grep -q '^trained '
}

# usage: train PROCESSES RUN OPTION...
# Trains a run with these options of `transframer train`. One that is there is continued with its own settings if
# it was interrupted, and otherwise used as it is.
train() {
  local processes=$1 run=$2 launch=(transframer)
  shift 2
  if trained "$run"; then
    echo "$run is trained: used as it is (rm -r $run to start anew)"
    return
  fi
  if compgen -G "$run/checkpoints/step-*" > /dev/null; then
    echo "$run is there: continued with its own settings (rm -r $run to start anew)"
    set -- --resume "$run"
  else
    if [ -e "$run/config.yaml" ]; then
      local aside=${run%/}-$(date +%Y%m%d-%H%M%S)
      echo "$run holds no checkpoint to continue from: moved to $aside"
      mv "$run" "$aside"
    fi
    set -- "$@" --out "$run"
  fi
  if [ "$processes" -gt 1 ]; then
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    launch=(torchrun --standalone --nproc-per-node "$processes" -m transframer)
  fi
  local code=0
  "${launch[@]}" train "$@" || code=$?
  # A complete run that was killed before its log said so is no success to resume; the log says so now.
  [ $code = 0 ] || trained "$run" || exit $code
}
