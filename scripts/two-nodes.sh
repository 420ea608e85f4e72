#!/usr/bin/env bash
# Runs a program on two ranks that see each other only through a network of a given bandwidth: two network
# namespaces of this machine, joined by a pair of virtual cards. Needs root, iproute2 and OpenMPI.
#   scripts/two-nodes.sh RATE COMMAND...
# RATE: as tc has it (1gbit, 100mbit), or none for what the machine can.
#   scripts/two-nodes.sh 1gbit build/release/bin/train_capsnet --data mnist --steps 40 --batch 64 --shards 2
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rate=$1
shift
for tool in ip tc unshare mpirun; do
  command -v "$tool" >/dev/null || { echo "two-nodes.sh: no $tool" >&2; exit 77; }
done

work=$(mktemp -d) a=capsfw-a-$$ b=capsfw-b-$$
trap 'ip netns del $a 2>/dev/null; ip netns del $b 2>/dev/null; rm -rf "$work"' EXIT
ip netns add $a
ip netns add $b
ip -n $a link add eth0 type veth peer name eth0 netns $b
ip -n $a addr add 10.77.0.1/24 dev eth0
ip -n $b addr add 10.77.0.2/24 dev eth0
for node in $a $b; do
  ip -n $node link set lo up
  ip -n $node link set eth0 up
  [ "$rate" = none ] || tc -n $node qdisc replace dev eth0 root tbf rate "$rate" burst 256kb latency 100ms
done

# What ssh would do: the second node is the other namespace, under a name of its own.
cat >"$work/remote" <<AGENT
#!/bin/sh
shift
exec ip netns exec $b unshare -u sh -c "hostname $b; \$*"
AGENT
chmod +x "$work/remote"
printf '10.77.0.1 slots=1\n10.77.0.2 slots=1\n' >"$work/hosts"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ip netns exec $a unshare -u sh -c "hostname $a; exec \"\$@\"" sh \
  mpirun --hostfile "$work/hosts" -np 2 --map-by ppr:1:node --bind-to none --mca plm_rsh_agent "$work/remote" \
  --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 "$@"
