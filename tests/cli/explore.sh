#!/usr/bin/env bash
# explore: pictures and a page of every kind of network, and mistakes.
source "$(dirname "$0")/common.sh"
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

made() {
  for file in "${@:2}"; do
    [ -s "$1/$file" ] || fail "no $1/$file"
    case $file in *.png) [ "$(head -c 8 "$1/$file" | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] || fail "$file is no PNG" ;; esac
  done
}
nothing() { for file in "${@:2}"; do [ ! -e "$1/$file" ] || fail "there is a $1/$file"; done; }

# As it comes: no data set, no network of one's own.
expect 0 env -u CAPSFW_DATA_DIR "$bin/explore"
says "explore.html"
made out/explore poses.png couplings.png votes.png overlap.png explore.html
grep -q '"bits":16' out/explore/explore.html || fail "no 16-bit weights"
grep -q '"decoder":"convolutional"' out/explore/explore.html || fail "no decoder"
[ "$(wc -c <out/explore/explore.html)" -lt 800000 ] || fail "the page is large"
expect 0 env -u CAPSFW_DATA_DIR "$bin/explore" --model mnist --image 99 --out e
made e poses.png couplings.png votes.png overlap.png explore.html

# Another size, the other decoder, several images, a class that did not win.
expect 0 "${train[@]}" --decoder fc --steps 2 --out fc
expect 0 "$bin/explore" --data mnist --model fc/model.safetensors --image 4 --count 2 --class 7 --out of_fc
made of_fc poses.png poses-5.png couplings-5.png votes-5.png overlap.png explore.html
says "image 5 ('5')"
grep -q '"decoder":"fully connected"' of_fc/explore.html || fail "not the decoder of the network"

# Two layers of capsules, no decoder.
expect 0 "${train[@]}" --decoder none --capsules 6x4,10x8 --steps 1 --out two
expect 0 "$bin/explore" --data mnist --model two/model.safetensors --out of_two
made of_two couplings.png votes.png
nothing of_two poses.png overlap.png explore.html
says "the network has no decoder. Hint: train_capsnet --decoder conv"

expect 0 "$bin/train_matrix_capsules" --data mnist --val 10 --batch 10 --steps 1 --out matrix
expect 0 "$bin/explore" --data mnist --model matrix/model.safetensors --out of_matrix
made of_matrix couplings.png
nothing of_matrix votes.png explore.html
says "Left out: votes.png"

# Mistakes leave nothing.
expect 0 "${train[@]}" --arch se --steps 1 --out se
expect 1 "$bin/explore" --data mnist --model se/model.safetensors --out none && says "has no capsules" && says "Hint: train_capsnet"
expect 1 "$bin/explore" --model fc/model.safetensors --out none && says "the network takes images [1, 20, 24]" && says "Hint: --data names its set"
expect 1 "$bin/explore" --model nowhere --out none && says "nowhere.safetensors: no such file; looked in" && says share/capsfw/models
expect 1 "$bin/explore" --model missing.safetensors --out none && says missing.safetensors
expect 2 "$bin/explore" --image 100 --out none && says "has 100 test images"
expect 2 "$bin/explore" --class zebra --out none && says "a name or a number from 0 to 9; got 'zebra'"
for flags in "--size 20x24" "--channels 1" "--fit crop" --skip-broken; do
  expect 2 "$bin/explore" $flags --out none && says "${flags%% *}: of --data; the digits that come along"
done
expect 2 "$bin/explore" --count 0 --out none && says "--count"
expect 1 "$bin/explore" --data fashion-mnist --out none
nothing . none

# Colour pictures of other proportions, and a class whose name is no HTML in the page.
for k in 1 2 3 4 5; do
  mkdir -p "photos/<b>odd" photos/plain
  cp out/explore/poses.png "photos/<b>odd/$k.png"
  cp out/explore/votes.png photos/plain/$k.png
done
own=(--data photos --size 20x24 --channels 3)
expect 0 "$bin/train_capsnet" "${own[@]}" --val 2 --batch 2 --steps 1 --out photo
expect 0 "$bin/explore" "${own[@]}" --model photo/model.safetensors --out of_photos
made of_photos poses.png couplings.png votes.png overlap.png explore.html
grep -q '"image":\[3,20,24\]' of_photos/explore.html || fail "no colours in the page"
grep -q '\\u003cb>odd' of_photos/explore.html || fail "the class is missing"
grep -q '<b>odd' of_photos/explore.html && fail "the name of a class is HTML"
expect 1 "$bin/explore" --data mnist --model photo/model.safetensors --out none && says "Hint: --data names the set"
expect 2 "$bin/explore" --image 9223372036854775807 --out none && says "--image, --count"
nothing . none
# A test part with images of one class alone has no pairs.
mkdir -p parted/test && cp -r photos parted/train && cp -r photos/plain parted/test
expect 0 "$bin/explore" --data parted "${own[@]:2}" --model photo/model.safetensors --out of_parted
says "overlap.png: the images are of a single class"
made of_parted poses.png couplings.png votes.png explore.html
nothing of_parted overlap.png

in_browser explore.py out/explore/explore.html
