#!/usr/bin/env bash
# Help, version and wrong command lines of train_capsnet and predict.
source "$(dirname "$0")/common.sh"

expect 0 "$bin/train_capsnet" --help
for flag in --data --val --shift --arch --capsules --votes --routing-iterations --gradient --squash-c \
  --leaky --noise-class --vote-bias --prior --keep --decoder --epochs --steps --minutes --batch \
  --optimizer --lr --momentum --weight-decay --schedule --decay --warm-up --clip --reconstruction \
  --seed --load --out --threads --version; do says "$flag"; done
says "train_capsnet --data mnist --arch paper --epochs 1"
expect 0 "$bin/predict" --help && says --model && says --invert
expect 0 "$bin/train_capsnet" --version && says "capsfw 0."

# docs/data.md: the programs named above a table take the flags in it.
checked=0 programs='' before=''
while IFS= read -r line; do
  case $line in
    '| `--'*)
      for flag in $(cut -d '|' -f 2 <<<"$line" | grep -o -- '--[a-z-]*'); do
        for program in $programs; do
          [ -s "$program.help" ] || "$bin/$program" --help >"$program.help"
          grep -q -- "^ *$flag " "$program.help" || fail "docs/data.md: $program has no $flag"
          ((++checked))
        done
      done
      ;;
    '|'* | '') ;;
    *)
      [ -n "$before" ] || programs=''
      for name in $(grep -o '`[a-z_]*`' <<<"$line" | tr -d '`'); do [ ! -x "$bin/$name" ] || programs+=" $name"; done
      ;;
  esac
  before=$line
done < <(sed -n '/^## What `--data` takes/,/^## Public sets/p' "$(dirname "$0")/../../docs/data.md")
[ $checked -ge 40 ] || fail "docs/data.md: only $checked flags of programs found"

# A wrong command line is answered with the flag, before any data are read.
export CAPSFW_DATA_DIR=$work/empty
wrong() {
  local message=$1
  shift
  expect 2 "$bin/train_capsnet" --data mnist --out out "$@" && says "$message" && says "--help"
}
wrong "--epoch: unknown flag. Hint: --epochs?" --epoch 3
wrong "--epochs: must be a whole number, at least 1; got '0'" --epochs 0
wrong "--lr: must be a number, above 0; got 'fast'" --lr fast
wrong "--lr: must be" --lr nan
wrong "--arch: must be one of compact, paper, efficient, se, cnn; got 'big'" --arch big
wrong "--keep: must be" --keep 0
wrong "--batch: needs a value" --batch
wrong "--capsules: capsules: sizes look like 32x8,10x16 (count x size); got '32y8'" --capsules 32y8,10x16
wrong "'spare': unexpected argument" spare
# So is a flag that nothing would read.
wrong "--momentum: of --optimizer sgd; got adam. Hint: --optimizer sgd" --momentum 0.9
for schedule in cosine constant; do
  wrong "--decay: of --schedule exponential or step; got $schedule. Hint: " --decay 0.5 --schedule $schedule
done
for flag in --checkpoint-minutes --checkpoint-steps; do
  wrong "$flag: of checkpoints; --checkpoint-keep is 0. Hint: --checkpoint-keep 2" $flag 1 --checkpoint-keep 0
done
wrong "--spread: of several processes; there is one. Hint: mpirun -np N train_capsnet" --spread --seeds 2
wrong "--rank-timeout: of several processes; there is one" --rank-timeout 5
wrong "--fit: of images brought to a --size. Hint: --size HxW" --fit crop
wrong "--skip-broken: of a folder of image files; --data is mnist. Hint: --data FOLDER" --skip-broken
export CAPSFW_DATA_DIR=$work/data
wrong "--capsules: the last layer must have one capsule per class; got 7 for 10 classes" --val 10 --capsules 16x8,7x16
expect 2 "$bin/predict" && says IMAGE
for flags in "--decoder none" "--arch cnn"; do
  wrong "--reconstruction: of a decoder; --arch" --val 10 --reconstruction 0.1 $flags
  says "has none. Hint: a capsule network with --decoder conv"
done
[ ! -e out ] || fail "a refused command line left files"
