#!/bin/sh
# PyTorch computes, we compute the same with its weights, and it takes them back. 77: not installed.
#   run.sh TEST_PROGRAM [PYTHON]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${2:-/usr/bin/python3}
if ! "$python" -c "import torch, numpy" 2>/dev/null; then
  echo "skipped: $python has no PyTorch (Debian: python3-torch)"
  exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$python" "$here/make.py" "$dir" --seed 2
CAPSFW_INTEROP_DIR=$dir "$1" --test-case="interop: a PyTorch CapsNet*"
"$python" "$here/make.py" --check "$dir"
