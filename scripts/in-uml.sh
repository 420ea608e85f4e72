#!/usr/bin/env bash
# Runs a command, as root, under a Linux kernel that is a program (user-mode Linux, Debian's user-mode-linux) and has
# tc's netem, where the kernel of the machine has not. The files are those of the machine; what is written stays. It
# has one processor, so ranks take turns: good to try what a delay does, not to time it.
#   scripts/in-uml.sh COMMAND...
#   scripts/in-uml.sh scripts/two-nodes.sh 1gbit,2ms build/release/bin/train_capsnet --data mnist --steps 10 --shards 2
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "in-uml.sh: only as root" >&2; exit 77; }
for tool in linux.uml insmod ip; do
  command -v "$tool" >/dev/null || { echo "in-uml.sh: no $tool (user-mode-linux, kmod, iproute2)" >&2; exit 77; }
done

work=$(mktemp -d)
kernel=''
trap '[ -z "$kernel" ] || kill -KILL -- -$kernel 2>/dev/null || :; rm -rf "$work"' EXIT
cat >"$work/init" <<INIT
#!/bin/bash
exec >"$work/log" 2>&1
$(export -p)
export TMPDIR=/run
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run
mkdir /dev/shm /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t devpts devpts /dev/pts; ln -s /proc/self/fd /dev/fd
ip link set lo up
for module in drivers/net/veth drivers/net/tun net/sched/sch_netem net/sched/sch_tbf; do
  insmod "/usr/lib/uml/modules/\$(uname -r)/kernel/\$module.ko"
done
cd $(printf %q "$PWD")
$(printf '%q ' "$@")
echo \$? >"$work/status"
echo o >/proc/sysrq-trigger; sleep 9
INIT
chmod +x "$work/init"
: >"$work/log"
set -m
linux.uml mem=2G root=/dev/root rootfstype=hostfs rootflags=/ rw init="$work/init" con=null </dev/null >"$work/kernel" 2>&1 &
kernel=$!
set +m
tail -n +1 -f --pid=$kernel "$work/log"
[ -s "$work/status" ] || { echo "in-uml.sh: the kernel has ended before the command:" >&2; tail -n 5 "$work/kernel" >&2; exit 1; }
exit "$(cat "$work/status")"
