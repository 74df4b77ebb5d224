#!/bin/sh
# Everything that docs/study.md shows, in commands each of which goes on where a kill left it.
#
#   docs/study/run.sh [STEP...]      steps: train store compare probe draw; all of them by default
#
# Networks are trained two at a time, each on a core of its own, where the machine can do that.
# Needs the virtual environment (make .venv/.installed), CIFAR-10, and about 40 GB of disk in WORKSPACE.
set -eu
cd "$(dirname "$0")/../.."
: "${WORKSPACE:=workspace-study}"
PATH="$PWD/.venv/bin:$PATH"
SETS="--samples 10000 --workspace $WORKSPACE"
TINY="0 1 2 3 4 5 6 7 8 9"
PLAIN="10 18 34 66"

on() { # CORE COMMAND...: run on one core
  core=$1
  shift
  if command -v taskset >/dev/null; then taskset -c "$core" "$@"; else "$@"; fi
}

tiny() { on "$1" allcnn train --preset tiny-10 --epochs 10 --checkpoint-every 1 --seed "$2" --workspace "$WORKSPACE"; }
plain() { on "$1" allcnn train --preset "plain-$2" --width 0.1667 --epochs 6 --checkpoint-every 1 --workspace "$WORKSPACE"; }
deep() { on "$1" allcnn train --preset "d$2-v2" --width 0.25 --epochs 8 --seed "$3" --workspace "$WORKSPACE"; }

train() {
  (for seed in 0 1 2 3 4; do tiny 0 $seed; done; plain 0 66) &
  first=$!
  for seed in 5 6 7 8 9; do tiny 1 $seed; done
  for n in 34 18 10; do plain 1 $n; done
  deep 1 1 0
  deep 1 1 1
  wait $first
  on 0,1 true
  allcnn train --preset d2-v2 --width 0.25 --epochs 8 --workspace "$WORKSPACE"
}

store() {
  for seed in $TINY; do
    allcnn extract "allcnn-tiny-10-s$seed" --checkpoint all --keep grams --kernel rbf $SETS
  done
  for run in allcnn-d1-v2-s0 allcnn-d1-v2-s1 allcnn-d2-v2-s0; do
    allcnn extract $run --checkpoint all --keep grams --kernel rbf $SETS
  done
  for n in $PLAIN; do
    allcnn extract "allcnn-plain-$n-s0" --keep grams $SETS
  done
}

compare() {
  finals='allcnn-tiny-10-s*@final'
  allcnn matrix 'allcnn-tiny-10-s*@*' --workspace "$WORKSPACE"
  allcnn identify "$finals" --json "$WORKSPACE/identify-linear.json" --workspace "$WORKSPACE"
  allcnn identify "$finals" --kernel rbf --sigma 0.2,0.4,0.8 --json "$WORKSPACE/identify-rbf.json" --workspace "$WORKSPACE"
  allcnn matrix "$finals" --each-label --workspace "$WORKSPACE"
  for n in $PLAIN; do
    allcnn compare "allcnn-plain-$n-s0@final" "allcnn-plain-$n-s0@final" --workspace "$WORKSPACE"
  done
}
