#!/usr/bin/env bash
# From a fresh clone to a trained capsule network: installs what is missing, builds one program, trains a
# compact network on Fashion-MNIST and leaves log, weights and pictures in out/quickstart, or where --out
# says. Further arguments go to train_capsnet (for example --steps 20).
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
-h | --help)
  echo "usage: scripts/quickstart.sh [flags of train_capsnet]"
  echo "Installs, builds, trains a capsule network on Fashion-MNIST (at most 3 minutes on 2 cores) and"
  echo "writes out/quickstart/{report.html,metrics.jsonl,model.safetensors,reconstructions.png,curves.png}."
  exit 0
  ;;
esac

out=out/quickstart previous= rate=(--schedule exponential --decay 0.6)
for flag in "$@"; do
  [[ $flag == --schedule* ]] && rate=()  # 0.6 is of the exponential one
  [[ $previous == --out ]] && out=$flag
  [[ $flag == --out=* ]] && out=${flag#--out=}
  previous=$flag
done

scripts/install-deps.sh build data
scripts/build.sh release train_capsnet predict

bin=build/release/bin
"$bin/train_capsnet" --data fashion-mnist --epochs 4 --batch 64 --lr 0.002 "${rate[@]}" --shift 0 \
  --minutes 2.2 --out out/quickstart "$@"

cat <<EOF

What to try next, in $PWD:
  xdg-open $out/report.html                               # the run as a page, in a browser
  $bin/predict --model $out/model.safetensors IMAGE.png   # any PNG or JPEG of a garment
  $bin/train_capsnet --arch paper --data fashion-mnist --epochs 1   # the network of the paper
  $bin/train_capsnet --help                                         # other routings, votes, stacks
  scripts/test.sh                                                   # all tests
EOF
