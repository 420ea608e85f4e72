#!/usr/bin/env bash
# Missing and damaged data sets.
source "$(dirname "$0")/common.sh"

# Nothing anywhere: every place is named, and the cure.
if [ ! -e /usr/share/datasets/mnist ] && [ ! -e /usr/local/share/datasets/mnist ]; then
  export CAPSFW_DATA_DIR=$work/empty
  expect 1 "${train[@]}" --out out
  for place in "$work/empty/mnist" "$work/empty (" /usr/share/datasets/mnist /usr/local/share/datasets/mnist \
    "$XDG_DATA_HOME/capsfw/mnist" datasets/mnist Hint CAPSFW_DATA_DIR; do says "$place"; done
fi
bad() { # bad MESSAGE: what train_capsnet says about $work/bad/mnist
  export CAPSFW_DATA_DIR=$work/bad
  expect 1 "${train[@]}" --steps 1 --out out && says "error: " && says "$1"
  [ ! -e out ] || fail "bad data left files"
  rm -r bad
}
images=train-images-idx3-ubyte labels=train-labels-idx1-ubyte
fresh() { mkdir -p bad && cp -r data/mnist bad/; }
fresh && head -c 60 data/mnist/$images.gz >bad/mnist/$images.gz && bad "$images.gz"
fresh && { head -c 40 data/mnist/$images.gz; zeros 40; tail -c +81 data/mnist/$images.gz; } \
  >bad/mnist/$images.gz && bad "$images.gz"
fresh && rm bad/mnist/$images.gz && gzip -dc data/mnist/$images.gz | head -c 5000 >bad/mnist/$images && bad "$images"
fresh && printf 'P5 20 24 255 and so on' >bad/mnist/$labels && bad "$labels"
fresh && { header_idx 1 49; zeros 49; } >bad/mnist/$labels && bad "the counts must be equal; got 50 and 49"
fresh && { header_idx 1 50; zeros 49; printf '\12'; } >bad/mnist/$labels && bad "must lie in [0, 10); got 10"
fresh && { header_idx 3 50 9 9; zeros 4050; } | gzip -n >bad/mnist/$images.gz && bad "training images [1, 9, 9]"
export CAPSFW_DATA_DIR=$work/data
expect 1 "${train[@]}" --val 50 --out out && says "so that images to train on remain"
