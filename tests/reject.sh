#!/bin/sh
# Compiles a file that must be refused, and its twin (CAPSFW_ACCEPT) that must not.
#   reject.sh FILE MESSAGE COMPILER [FLAGS...]
set -u
file=$1 message=$2
shift 2

if ! said=$("$@" -fsyntax-only -DCAPSFW_ACCEPT "$file" 2>&1); then
  printf '%s\nthe twin of %s does not compile\n' "$said" "$file" >&2
  exit 1
fi
if said=$("$@" -fsyntax-only "$file" 2>&1); then
  echo "$file compiles, which it must not" >&2
  exit 1
fi
case $said in
*"$message"*) ;;
*)
  printf '%s\n%s was refused without the words "%s"\n' "$said" "$file" "$message" >&2
  exit 1
  ;;
esac
