#!/bin/sh
# Everything that docs/study.md shows, in commands that go on where a kill left them.
#
#   docs/study/run.sh [STEP...]      steps: train store compare probe draw; all of them by default
#
# Networks are trained two at a time, each on a core of its own. Needs the virtual environment
# (make .venv/.installed), CIFAR-10, and about 30 GB of disk where WORKSPACE is.
set -eu
cd "$(dirname "$0")/../.."
: "${WORKSPACE:=$PWD/workspace-study}"
PATH="$PWD/.venv/bin:$PATH"
HERE=docs/study
FINALS='allcnn-tiny-10-s*@final'
OVER_TRAINING='allcnn-tiny-10-s[01256]@*'
DEPTHS='10 18 34 66'

on() { # CORE COMMAND...
  core=$1
  shift
  if command -v taskset >/dev/null; then taskset -c "$core" "$@"; else "$@"; fi
}

extract() { allcnn extract "$@" --workspace "$WORKSPACE"; }
matrix() { allcnn matrix "$@" --workspace "$WORKSPACE"; }

tiny() { on "$1" allcnn train --workspace "$WORKSPACE" --preset tiny-10 --epochs 10 --checkpoint-every 1 --seed "$2"; }
plain() { on "$1" allcnn train --workspace "$WORKSPACE" --preset "plain-$2" --width 0.1667 --epochs 4 --checkpoint-every 1; }
all_cnn() { on "$1" allcnn train --workspace "$WORKSPACE" --preset "d$2-v2" --width 0.1667 --epochs 4 --checkpoint-every 1 --seed "$3"; }

train_first() {
  for seed in 0 1 2 3 4; do tiny 0 $seed; done
  plain 0 66
}

train_second() {
  for seed in 5 6 7 8 9; do tiny 1 $seed; done
  for n in 34 18 10; do plain 1 $n; done
  all_cnn 1 1 0
  all_cnn 1 1 1
  all_cnn 1 2 0
}

train() {
  train_first &
  first=$!
  train_second
  wait $first
}

store() {
  for seed in $(seq 0 9); do
    extract allcnn-tiny-10-s$seed --samples 10000 --keep grams --kernel rbf
  done
  # What training does to networks is seen in half of them.
  for run in allcnn-tiny-10-s0 allcnn-tiny-10-s1 allcnn-tiny-10-s2 allcnn-tiny-10-s5 allcnn-tiny-10-s6 \
    allcnn-d1-v2-s0 allcnn-d1-v2-s1 allcnn-d2-v2-s0; do
    extract $run --checkpoint all --samples 10000 --keep grams
  done
  for n in $DEPTHS; do
    extract allcnn-plain-$n-s0 --samples 10000 --keep grams
  done
}

compare() {
  matrix "$FINALS"
  matrix "$FINALS" --kernel rbf --sigma 0.2,0.4,0.8
  matrix "$FINALS" --each-label
  matrix "$OVER_TRAINING"
  matrix 'allcnn-d[12]-v2-s*@*'
  for n in $DEPTHS; do
    matrix allcnn-plain-$n-s0@final
  done
}

probe() {
  for n in $DEPTHS; do
    run=allcnn-plain-$n-s0
    # One network at a time: its activations take up to 20 GB, and are needed no more afterwards.
    if ! ls "$WORKSPACE/probes.zarr" 2>/dev/null | grep -q "^${run}_final-probe"; then
      for set in "train --samples 5000" "test --samples 10000"; do
        extract $run --dtype float16 --split $set
      done
      allcnn probe $run@final --workspace "$WORKSPACE"
    fi
    if ls -d "$WORKSPACE"/activations.zarr/*/"$run"/final >/dev/null 2>&1; then
      allcnn store rm $run@final --workspace "$WORKSPACE" --what activations --yes
    fi
  done
}

figure() { # NAME ARGUMENTS...: one of the committed figures
  to="$HERE/$1.png"
  shift
  allcnn figure "$@" --workspace "$WORKSPACE" --to "$to"
}

draw() {
  figure layers layers "$FINALS"
  figure seeds seeds "$FINALS"
  figure classes classes allcnn-tiny-10-s0@final allcnn-tiny-10-s1@final
  figure depths depths $(for n in $DEPTHS; do echo allcnn-plain-$n-s0@final; done)
  figure two-seeds matrix allcnn-d1-v2-s0@final allcnn-d1-v2-s1@final
  figure two-depths matrix allcnn-d2-v2-s0@final allcnn-d1-v2-s0@final
  figure depth-2 matrix allcnn-d2-v2-s0@final
  figure stages stages allcnn-tiny-10-s0
  allcnn figure animation allcnn-tiny-10-s0 --workspace "$WORKSPACE" --to $HERE/animation.gif
  python $HERE/tables.py "$WORKSPACE"
  allcnn report --workspace "$WORKSPACE"
}

for step in "${@:-all}"; do
  case $step in
    all) train; store; compare; probe; draw ;;
    train | store | compare | probe | draw) $step ;;
    *)
      echo "$step is no step; name some of train, store, compare, probe and draw" >&2
      exit 2
      ;;
  esac
done
