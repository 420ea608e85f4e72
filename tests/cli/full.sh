#!/usr/bin/env bash
# A full disk and folders that cannot be written: clear errors, and what was there stays whole.
source "$(dirname "$0")/common.sh"

# A folder that cannot be written, nor be made.
touch file
expect 1 "${train[@]}" --steps 1 --out file/out && says "error: 'file/out': Not a directory"
if [ "$(id -u)" != 0 ]; then
  mkdir closed && chmod a-w closed
  expect 1 "${train[@]}" --steps 1 --out closed && says "closed/metrics.jsonl"
  expect 1 "${train[@]}" --steps 1 --out closed/out && says "closed/out"
fi

# A disk of 6 MB for checkpoints of 4.6 MB: the second one does not fit.
disk=$work/disk
mkdir "$disk"
if ! mount -t tmpfs -o size=6m none "$disk" 2>/dev/null; then
  echo "full.sh: a small disk needs root and the right to mount: that part is left out"
  exit 77
fi
trap 'umount "$disk"; rm -rf "$work"' EXIT
job=("${train[@]}" --epochs 4 --checkpoint-steps 3)
expect 0 "${job[@]}" --out whole
expect 1 "${job[@]}" --out "$disk"
says "cannot be written: No space left on device" && says "step-0000000006.safetensors"
[ "$(ls "$disk/checkpoints")" = step-0000000003.safetensors ] || fail "other checkpoints: $(ls -A "$disk/checkpoints")"
# With more room it goes on, from the one that was there.
mount -o remount,size=60m "$disk" || fail "remount"
expect 0 "${job[@]}" --out "$disk" --resume && says "goes on at step 3 of 8"
[ "$(stable whole)" = "$(stable "$disk")" ] || fail "another log"
cmp -s whole/model.safetensors "$disk/model.safetensors" || fail "other weights"
