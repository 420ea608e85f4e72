#!/usr/bin/env bash
# Runs a program on ranks that see each other only through a network of a given bandwidth and delay: two network
# namespaces of this machine, joined by virtual cards. Needs root, iproute2 and OpenMPI.
#   [RANKS=N] scripts/two-nodes.sh RATE[,DELAY] COMMAND...
# RATE: as tc has it (1gbit, 100mbit), or none for what the machine can. DELAY: one way, as 5ms; by tc's netem, or,
# for a kernel without, by a program between the cards (needs python3). RANKS: 2, or more, half on each side.
#   scripts/two-nodes.sh 1gbit,2ms build/release/bin/train_capsnet --data mnist --steps 40 --batch 64 --shards 2
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rate=${1%%,*} delay='' ranks=${RANKS:-2}
[[ $1 != *,* ]] || delay=${1#*,}
[[ $delay =~ ^([0-9]+ms)?$ && $ranks =~ ^[0-9]*[02468]$ ]] ||
  { echo "two-nodes.sh: DELAY is whole milliseconds, as 5ms; RANKS an even number" >&2; exit 2; }
shift
for tool in ip tc unshare mpirun; do
  command -v "$tool" >/dev/null || { echo "two-nodes.sh: no $tool" >&2; exit 77; }
done

work=$(mktemp -d) a=capsfw-a-$$ b=capsfw-b-$$ wire=''
trap '[ -z "$wire" ] || kill $wire; ip netns del $a 2>/dev/null; ip netns del $b 2>/dev/null; rm -rf "$work"' EXIT
ip netns add $a
ip netns add $b
if [ -z "$delay" ] || unshare -n tc qdisc add dev lo root netem delay 1ms 2>/dev/null; then
  ip -n $a link add eth0 type veth peer name eth0 netns $b
else
  python3 "$(dirname "$0")/delayed-wire.py" "wire-a-$$" "wire-b-$$" "${delay%ms}" >"$work/wire" &
  wire=$!
  for ((i = 0; i < 50; ++i)); do [ -s "$work/wire" ] && break; sleep 0.1; done
  ip link set "wire-a-$$" netns $a name eth0
  ip link set "wire-b-$$" netns $b name eth0
fi
ip -n $a addr add 10.77.0.1/24 dev eth0
ip -n $b addr add 10.77.0.2/24 dev eth0
for node in $a $b; do
  ip -n $node link set lo up
  ip -n $node link set eth0 up mtu 9000
  [ -z "$delay" ] || [ -n "$wire" ] || tc -n $node qdisc replace dev eth0 root handle 1: netem delay "$delay" limit 100000
  parent=root
  [ -z "$delay" ] || [ -n "$wire" ] || parent='parent 1:'
  # shellcheck disable=SC2086
  [ "$rate" = none ] || tc -n $node qdisc replace dev eth0 $parent tbf rate "$rate" burst 256kb latency 100ms
done

# What ssh would do: the second node is the other namespace, under a name of its own.
cat >"$work/remote" <<AGENT
#!/bin/sh
shift
exec ip netns exec $b unshare -u sh -c "hostname $b; \$*"
AGENT
chmod +x "$work/remote"
each=$((ranks / 2))
printf '10.77.0.1 slots=%d\n10.77.0.2 slots=%d\n' $each $each >"$work/hosts"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PMIX_MCA_gds=hash
ip netns exec $a unshare -u sh -c "hostname $a; exec \"\$@\"" sh \
  mpirun --hostfile "$work/hosts" -np "$ranks" --map-by ppr:$each:node:oversubscribe --bind-to none \
  --mca plm_rsh_agent "$work/remote" --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.0.0/24 \
  --mca oob_tcp_if_include 10.77.0.0/24 "$@"
