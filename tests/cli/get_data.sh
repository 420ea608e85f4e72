#!/usr/bin/env bash
# scripts/get-data.sh, from stand-in files on this disk, with a list of its own.
source "$(dirname "$0")/common.sh"
command -v curl >/dev/null || { echo "curl is missing: skipped" && exit 77; }
script=$(cd "$OLDPWD" && cd "$(dirname "$0")/../../scripts" && pwd)/get-data.sh

mkdir -p mirror/batches
printf 'the first file' >mirror/one
printf 'what is in the second' | gzip -n >mirror/two.gz
head -c 3073 /dev/zero >mirror/batches/data_batch_1.bin
printf 'airplane\n' >mirror/batches/names.txt
tar -C mirror -czf mirror/three.tar.gz batches
sum() { "$1sum" | cut -d' ' -f1; }
{
  echo "# SET BASE FILE CHECK DIGEST NAME"
  echo "a http://127.0.0.1:9 one sha256 $(sum sha256 <mirror/one)"
  echo "a http://127.0.0.1:9 two.gz sha256-unpacked $(gzip -dc mirror/two.gz | sum sha256)"
  echo "b http://127.0.0.1:9 three.tar.gz md5 $(sum md5 <mirror/three.tar.gz) tar:batches"
  echo "c http://127.0.0.1:9 one none - words/ONE.txt"
} >list
get() { "$script" --manifest list --from "file://$work/mirror" --dir got "$@"; }

expect 0 get a
cmp -s mirror/one got/a/one && cmp -s mirror/two.gz got/a/two.gz || fail "not what was on the mirror"
expect 0 get a && says "got/a/one: is there" && says "got/a/two.gz: is there"
# Packed in another way the content is the same.
gzip -dc mirror/two.gz | gzip -1 -c >got/a/two.gz && expect 0 get a && says "two.gz: is there"
# What was damaged meanwhile is fetched again.
printf x >>got/a/one && expect 0 get a && cmp -s mirror/one got/a/one || fail "a damaged file stays"
# A download that was cut off goes on: its beginning is not read again.
rm got/a/one && head -c 4 mirror/one >got/a/one.part && expect 0 get a
cmp -s mirror/one got/a/one || fail "the rest of a file was not fetched"
[ ! -e got/a/one.part ] || fail "a part is left"
# A beginning that is wrong, or too long, ends in an error or a fresh download, never in a wrong file.
rm got/a/one && printf 'THE ' >got/a/one.part && expect 1 get a && says "the sha256 must be"
[ ! -e got/a/one ] && [ ! -e got/a/one.part ] || fail "a wrong file was kept"
expect 0 get a && cmp -s mirror/one got/a/one || fail "no second try"

expect 0 get b a
[ "$(ls got/b)" = "data_batch_1.bin
names.txt" ] || fail "unpacked: $(ls got/b)"
expect 0 get b && says "got/b: is there"
expect 0 get c && says "no checksum is known; its sha256 is $(sum sha256 <mirror/one)"
cmp -s mirror/one got/words/ONE.txt || fail "no file under its own name"

# A mirror with other content, without the file, or without anything.
cp list wrong && sed -i 's/sha256 ./sha256 0/' wrong
expect 1 "$script" --manifest wrong --from "file://$work/mirror" --dir other a && says "Nothing was kept"
[ -z "$(ls other/a)" ] || fail "kept: $(ls other/a)"
mv mirror/two.gz mirror/gone && rm got/a/two.gz
for page in '<html>log in</html>' "$(head -c 20 mirror/gone | tr -d '\0')"; do  # another page, a part
  printf '%s' "$page" >mirror/two.gz
  expect 1 get a && says "got what is no gzip file. Nothing was kept"
  [ ! -e got/a/two.gz ] && [ ! -e got/a/two.gz.part ] || fail "what is no gzip file was kept"
done
rm mirror/two.gz
expect 1 get a && says "two.gz: cannot be fetched"
printf 'no archive' >mirror/three.tar.gz
sed "s/md5 [0-9a-f]*/md5 $(sum md5 <mirror/three.tar.gz)/" list >broken
expect 1 "$script" --manifest broken --from "file://$work/mirror" --dir new b && says "cannot be unpacked"

expect 2 get nothing && says "nothing: no such set; there are a b c"
expect 2 "$script" && says "which set? mnist fashion-mnist cifar10 cifar100 smallnorb trec"
expect 2 "$script" mnist --from && says "--from: needs a value"
expect 2 "$script" mnist --form x && says "--form: unknown option"
expect 1 "$script" --manifest nowhere a && says "nowhere: cannot be read"
expect 0 "$script" --help && says "official mirrors"
expect 0 "$script" --list && says cifar10
# Every line of the built-in list is whole: a checksum of the right length for each file.
sed -n "/<<'LIST'/,/^LIST/p" "$script" | grep -E '^[a-z0-9-]+ https?://' | while read -r _ _ file check digest _; do
  case $check in md5) n=32 ;; *) n=64 ;; esac
  [[ $digest =~ ^[0-9a-f]{$n}$ ]] || fail "$file: the checksum has another length"
done || exit 1
# The sets that are on this machine have the content that the list names.
for folder in /usr/share/datasets/fashion-mnist; do
  [ -d $folder ] || continue
  mkdir -p have/fashion-mnist && cp $folder/t10k-*.gz have/fashion-mnist/
  expect 1 "$script" --dir have --from "file://$work/nowhere" fashion-mnist && says "cannot be fetched"
  cp $folder/*.gz have/fashion-mnist/
  expect 0 "$script" --dir have --from "file://$work/nowhere" fashion-mnist && says "train-images-idx3-ubyte.gz: is there"
done
