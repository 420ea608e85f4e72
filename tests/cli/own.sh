#!/usr/bin/env bash
# Images of one's own: a folder of colour pictures that are no squares, through every program.
source "$(dirname "$0")/common.sh"

# png_rgb WIDTH HEIGHT R G B: one colour, with a white upper left quarter. The deflate stream and the checksum of
# the chunks are those of gzip.
big32() { printf "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"; }
chunk() { # chunk TYPE <DATA
  { printf %s "$1" && cat; } >body
  big32 $(($(stat -c %s body) - 4)) && cat body
  gzip -nc <body | tail -c 8 | head -c 4 | od -An -tx1 | awk '{ printf "\\x%s\\x%s\\x%s\\x%s", $4, $3, $2, $1 }' >sum
  printf "$(cat sum)"
}
png_rgb() {
  local pixel white row top
  pixel=$(printf '\\x%02x\\x%02x\\x%02x' "$3" "$4" "$5") white='\xff\xff\xff'
  row=$(printf "$pixel%.0s" $(seq $(($1 / 2)))) top=$(printf "$white%.0s" $(seq $(($1 / 2))))
  for ((y = 0; y < $2; ++y)); do
    if ((y < $2 / 2)); then printf '\0%b%b' "$top" "$row"; else printf '\0%b%b' "$row" "$row"; fi
  done >lines
  printf '\x89PNG\r\n\x1a\n'
  { big32 "$1" && big32 "$2" && printf '\x08\x02\0\0\0'; } | chunk IHDR
  { printf '\x78\x01' && gzip -nc <lines | tail -c +11 | head -c -8 &&
    big32 "$(od -An -v -tu1 -w1 lines | awk 'BEGIN { a = 1 } { a = (a + $1) % 65521; b = (b + a) % 65521 } END { printf "%d", b * 65536 + a }')"; } |
    chunk IDAT
  chunk IEND </dev/null
}
mkdir -p photos/{red,green,blue}
for i in 1 2 3 4 5 6 7 8; do
  png_rgb 28 20 $((100 + 15 * i)) $i $i >photos/red/$i.png
  png_rgb 28 20 $i $((100 + 15 * i)) $i >photos/green/$i.png
  png_rgb 28 20 $i $i $((100 + 15 * i)) >photos/blue/$i.png
done
own=("$bin/train_capsnet" --data photos --batch 5)

# Every architecture, from the folder to an answer.
for arch in compact efficient se cnn paper; do
  expect 0 "${own[@]}" --arch $arch --steps 3 --val 3 --flip --crop 2 --shear 0.1 --cutout 3 --out $arch
  says "[B, 3, 20, 28]"
  says "16 training images, 3 validation images" && says "test accuracy"
  expect 0 "$bin/predict" --model $arch/model.safetensors photos/green/1.png
  grep -qE '^photos/green/1.png: (red|green|blue)$' said || fail "$arch: no class"
done
expect 0 "$bin/train_matrix_capsules" --data photos --batch 5 --steps 2 --out matrix
expect 0 "$bin/predict" --model matrix/model.safetensors photos/green/1.png
grep -qE '^photos/green/1.png: (red|green|blue)$' said || fail "matrix: no class"
# It learns what it is shown: three colours.
expect 0 "${own[@]}" --arch cnn --epochs 8 --shift 1 --lr 3e-3 --out learned && says "test accuracy 100.00 %"
expect 0 "$bin/predict" --model learned/model.safetensors photos/{red,green,blue}/8.png
for class in red green blue; do says "photos/$class/8.png: $class"; done
# The other programs, on the same folder; robustness takes the size that the network was trained with.
expect 0 "$bin/robustness" --data photos --steps 1 --epsilons 0.1 --out attacked learned/model.safetensors
expect 0 "$bin/robustness" --data photos --fit stretch --skip-broken --steps 1 --epsilons 0.1 --out attacked learned/model.safetensors
expect 0 "$bin/compare_routings" --data photos --routings kmeans --baselines cnn --steps 2 --out compared
expect 0 "$bin/two_digits" --data photos --val 6 --batch 5 --steps 1 --networks kmeans --out digits
expect 0 "$bin/gradient_penalty" --data photos --train 9 --val 3 --batch 3 --steps 2 --model cnn --size 24x28 --out penalties

# Test pictures of another size: found before anything is trained.
mkdir -p sizes/train && cp -r photos/* sizes/train && for class in red green blue; do
  mkdir -p sizes/test/$class && png_rgb 32 20 1 2 3 >sizes/test/$class/1.png
done
for program in "train_capsnet --arch cnn" "two_digits --networks kmeans" overlapped_digits "compare_routings --routings kmeans" \
  "gradient_penalty --train 9 --val 3"; do
  expect 1 "$bin"/$program --data sizes --batch 3 --steps 1 --out none && says "test images are [3, 20, 32], training images [3, 20, 28]"
done
[ ! -e none ] || fail "a refused run left files"

# Other sizes and grey; the network keeps its size, pictures of any size are brought to it.
expect 0 "${own[@]}" --arch cnn --steps 1 --size 18x22 --channels 1 --fit stretch --out small && says "18, 22"
expect 0 "$bin/predict" --model small/model.safetensors --fit stretch photos/red/1.png small/curves.png
expect 1 "${own[@]}" --steps 1 --size 18x22 --out small --load learned/model.safetensors
png_rgb 30 20 9 9 9 >photos/blue/9.png
expect 1 "${own[@]}" --steps 1 --out bad && says "blue/9.png" && says "--size HxW"
expect 0 "${own[@]}" --arch cnn --steps 1 --size 20x28 --out sized
head -c 60 photos/red/1.png >photos/red/0.png
expect 1 "${own[@]}" --steps 1 --size 20x28 --out bad && says "photos/red/0.png"
expect 0 "${own[@]}" --arch cnn --steps 1 --size 20x28 --skip-broken --out sized && says "1 of" && says "photos/red/0.png"
mkdir photos/empty && expect 1 "${own[@]}" --steps 1 --size 20x28 --out bad && says "photos/empty': a class must have"
rmdir photos/empty
expect 1 "${own[@]}" --data empty --steps 1 --out bad && says "a folder for each class"
# What is bad in the test part shows before the training.
mkdir -p parts/{train,test}/{a,b} && cp photos/red/1.png parts/train/a && cp photos/blue/1.png parts/train/b
cp photos/red/0.png parts/test/a/ && cp photos/blue/1.png parts/test/b/
expect 1 "${own[@]}" --data parts --val 0 --out bad && says "parts/test/a/0.png"
cp photos/red/2.png parts/test/a/0.png && expect 0 "${own[@]}" --data parts --val 0 --arch cnn --steps 1 --out parts.out
[ ! -e bad ] || fail "a refused run left files"

# Tables of pixels, CIFAR-10, and wrong flags.
for i in 1 2 3 4 5 6 7 8 9 10; do
  printf '%d' $((i % 2)) && for ((k = 0; k < 440; ++k)); do printf ',%d' $((i * k % 256)); done && echo
done >pixels.csv
expect 0 "${own[@]}" --data pixels.csv --size 20x22 --arch cnn --steps 1 --out csv
expect 2 "${own[@]}" --data pixels.csv --out bad && says "--size: a .csv file does not say"
expect 2 "${own[@]}" --data pixels.csv --size 20x22 --fit crop --out bad && says "--fit: not of a .csv file"
expect 2 "${own[@]}" --data pixels.csv --size 20x22 --skip-broken --out bad && says "--skip-broken: of a folder of image files"
expect 2 "${own[@]}" --fit crop --out bad && says "--fit: of images brought to a --size"
mkdir data/cifar10
for file in data_batch_{1..5}.bin test_batch.bin; do
  for label in 3 5; do printf "\\$label" && zeros 3072 | tr '\0' "\\$label"; done >data/cifar10/$file
done
expect 0 "${own[@]}" --data cifar10 --arch cnn --steps 1 --out cifar && says "3, 32, 32"
expect 0 "$bin/predict" --model cifar/model.safetensors photos/red/2.png && says airplane
expect 2 "${own[@]}" --data nowhere --out bad && says "--data: must be mnist, mnist-affine, fashion-mnist" && says "got 'nowhere'"
expect 2 "${own[@]}" --data photos/red/1.png --out bad && says "--data: must be"
for size in 0 20x 20x0 axb 20x20x20 5000 -3; do expect 2 "${own[@]}" "--size=$size" --out bad && says "--size: must be"; done
expect 2 "${own[@]}" --channels 2 --out bad && says "--channels: must be 0, 1 or 3"
expect 2 "${own[@]}" --fit zoom --out bad && says "--fit: must be one of crop, stretch"
[ ! -e bad ] || fail "a refused run left files"
