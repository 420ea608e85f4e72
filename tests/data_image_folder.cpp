// Image folders: classes, formats, splits, and what is wrong with them.

#include <set>

#include <doctest/doctest.h>
#include <capsfw/data/augment.hpp>
#include <capsfw/data/image_folder.hpp>
#include <capsfw/data/text.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

namespace fs = std::filesystem;

/// A PNG of one grey value, or of one colour.
Bytes plain(std::uint32_t width, std::uint32_t height, const Bytes& pixel) {
  Bytes rows;
  for (std::uint32_t i = 0; i < width * height; ++i) append(rows, pixel);
  return png(width, height, pixel.size() == 1 ? 0 : 2, rows);
}

void put(const fs::path& path, const Bytes& bytes) {
  fs::create_directories(path.parent_path());
  write_bytes(path, bytes);
}

std::string complaint(const fs::path& folder, const ImageFolderOptions& options = {}) {
  return message_of<IoError>([&] { load_image_folder(folder, options); });
}

std::vector<int> values(const ImageSet& set) {
  std::vector<int> out;
  for (std::int64_t i = 0; i < set.size(); ++i) out.push_back(*set.pixels(i));
  return out;
}

}  // namespace

TEST_CASE("image folder: classes by name, files by path, at any depth, PNG and JPEG") {
  const TempDir dir;
  put(dir / "b/2.png", plain(8, 8, {20}));
  put(dir / "b/1.PNG", plain(8, 8, {10}));
  put(dir / "a/x/y/deep.png", plain(8, 8, {30}));
  put(dir / "a/photo.jpg", jpeg());
  put(dir / "a/notes.txt", {1, 2, 3});
  put(dir / "a/.hidden.png", {1, 2, 3});
  put(dir / ".cache/z.png", {1});
  put(dir / "readme.md", {1});
  fs::create_directory_symlink(dir.path(), dir / "a/loop");  // would never end
  const ImageFolder read = load_image_folder(dir.path());
  const ImageSet& set = read.set;
  CHECK(set.class_names() == std::vector<std::string>{"a", "b"});
  CHECK(set.image_shape() == Shape{1, 8, 8});
  CHECK(values(set) == std::vector<int>{168, 30, 10, 20});
  CHECK(set.labels().to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 0, 1, 1});
  CHECK(read.skipped.empty());
  CHECK(load_image_folder(dir.path(), {.extensions = {".jpg", ".png"}}).set.size() == 4);
  CHECK(contains(complaint(dir.path(), {.extensions = {".jpg"}}), (dir / "b").string()));
}

TEST_CASE("image folder: sizes and channels as the files have them, or as asked for") {
  const TempDir dir;
  put(dir / "grey/a.png", plain(4, 2, {100}));
  put(dir / "red/a.png", plain(4, 2, {200, 0, 0}));
  const std::string mixed = complaint(dir.path());
  CHECK(contains(mixed, (dir / "red/a.png").string()));
  CHECK(contains(mixed, (dir / "grey/a.png").string()));
  CHECK(contains(mixed, "--channels"));
  const ImageSet colour = load_image_folder(dir.path(), {.format = {.channels = 3}}).set;
  CHECK(colour.image_shape() == Shape{3, 2, 4});
  CHECK(std::vector<int>(colour.pixels(1), colour.pixels(1) + 24) ==
        std::vector<int>{200, 200, 200, 200, 200, 200, 200, 200, 0, 0, 0, 0,
                         0,   0,   0,   0,   0,   0,   0,   0,   0, 0, 0, 0});
  const ImageSet grey = load_image_folder(dir.path(), {.format = {.channels = 1}}).set;
  CHECK(values(grey) == std::vector<int>{100, 60});  // 0.299 * 200 = 59.8
  put(dir / "red/b.png", plain(4, 3, {200, 0, 0}));
  CHECK(contains(complaint(dir.path(), {.format = {.channels = 3}}), "--size"));
  const ImageSet fitted =
      load_image_folder(dir.path(), {.format = {.height = 3, .width = 5, .channels = 3}}).set;
  CHECK(fitted.image_shape() == Shape{3, 3, 5});
  CHECK(fitted.size() == 3);
  CHECK(*fitted.pixels(2) == 200);
}

TEST_CASE("image folder: broken files are named, or skipped and counted") {
  const TempDir dir;
  put(dir / "a/1.png", plain(2, 2, {1}));
  put(dir / "a/2.png", prefix(plain(2, 2, {2}), 40));
  put(dir / "b/3.png", {'n', 'o'});
  put(dir / "b/4.png", plain(2, 2, {4}));
  CHECK(contains(complaint(dir.path()), (dir / "a/2.png").string()));
  const ImageFolder read = load_image_folder(dir.path(), {.skip_broken = true});
  CHECK(values(read.set) == std::vector<int>{1, 4});
  CHECK(read.skipped == std::vector<fs::path>{dir / "a/2.png", dir / "b/3.png"});
  // Of another size is not broken.
  put(dir / "b/5.png", plain(3, 2, {5}));
  CHECK(contains(complaint(dir.path(), {.skip_broken = true}), "5.png"));
  const TempDir all;
  put(all / "a/1.png", {1});
  CHECK(contains(
      message_of<ValueError>([&] { load_image_folder(all.path(), {.skip_broken = true}); }),
      "none of the 1 images"));
}

TEST_CASE("image folder: missing folders and classes, limits and options") {
  const TempDir dir;
  CHECK(contains(complaint(dir / "nowhere"), "must be a folder"));
  CHECK(contains(complaint(dir.path()), "a folder for each class"));
  put(dir / "a/1.png", plain(2, 2, {1}));
  CHECK(contains(complaint(dir / "a/1.png"), "must be a folder"));
  fs::create_directory(dir / "empty");
  CHECK(contains(complaint(dir.path()), (dir / "empty").string() + "': a class must have"));
  fs::remove(dir / "empty");
  put(dir / "b/1.png", plain(2, 2, {1}));
  CHECK(load_image_folder(dir.path(), {.max_bytes = 8}).set.size() == 2);
  CHECK(contains(complaint(dir.path(), {.max_bytes = 7}), "are more than 7 bytes"));
  const auto bad = [&](const ImageFolderOptions& o) {
    CHECK_FALSE(message_of<ValueError>([&] { load_image_folder(dir.path(), o); }).empty());
  };
  bad({.format = {.height = 3}});
  bad({.format = {.height = -3, .width = -3}});
  bad({.format = {.channels = 2}});
  bad({.extensions = {}});
  bad({.background = 2});
  bad({.max_bytes = 0});
  CHECK_THROWS_AS(load_image_folder(dir.path(), Split::test, {.test_share = 1}), ValueError);
}

TEST_CASE("image folder: names are UTF-8 without control characters") {
  for (const char* name : {"\x1b]0;x\x07", "caf\xe9", "a\nb"}) {
    const TempDir dir;
    put(dir / "a/1.png", plain(2, 2, {1}));
    put(dir / "b" / (std::string(name) + ".png"), plain(2, 2, {1}));
    CHECK(contains(complaint(dir.path()), "names must be UTF-8 without control characters"));
    fs::remove_all(dir / "b");
    put(dir / name / "1.png", plain(2, 2, {1}));
    const std::string said = complaint(dir.path());
    CHECK(contains(said, "names must be UTF-8 without control characters"));
    CHECK(is_printable(said));
  }
}

TEST_CASE("image folder: train/ and test/, with the classes of train/") {
  const TempDir dir;
  put(dir / "train/cat/1.png", plain(2, 2, {1}));
  put(dir / "train/dog/2.png", plain(2, 2, {2}));
  CHECK(contains(message_of<IoError>([&] { load_image_folder(dir.path(), Split::test); }),
                 "has a folder train/ alone"));
  put(dir / "test/dog/3.png", plain(2, 2, {3}));
  const ImageSet train = load_image_folder(dir.path(), Split::train).set,
                 test = load_image_folder(dir.path(), Split::test).set;
  CHECK(values(train) == std::vector<int>{1, 2});
  CHECK(values(test) == std::vector<int>{3});
  CHECK(test.label(0) == 1);
  CHECK(test.class_names() == train.class_names());
  put(dir / "test/bird/4.png", plain(2, 2, {4}));
  CHECK(contains(message_of<IoError>([&] { load_image_folder(dir.path(), Split::test); }),
                 "bird': is no class of the training part, which has cat, dog"));
}

TEST_CASE("image folder: a share of every class is the test part, the same for the same seed") {
  const TempDir dir;
  for (int i = 0; i < 20; ++i) {
    const auto v = static_cast<std::uint8_t>(i);
    put(dir / ((i < 10 ? "a/" : "b/") + std::to_string(i) + ".png"), plain(1, 1, {v}));
  }
  const auto part = [&](Split split, std::uint64_t seed) {
    return load_image_folder(dir.path(), split, {.test_share = 0.3, .seed = seed}).set;
  };
  const ImageSet train = part(Split::train, 5), test = part(Split::test, 5);
  CHECK(test.size() == 6);
  CHECK(std::count_if(test.pixels(0), test.pixels(0) + 6, [](int v) { return v < 10; }) == 3);
  const auto a = values(train), b = values(test);
  std::set<int> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  CHECK(a.size() + b.size() == 20);
  CHECK(all.size() == 20);
  CHECK(values(part(Split::test, 5)) == b);
  CHECK(values(part(Split::test, 6)) != b);
  CHECK(contains(
      message_of<IoError>([&] { load_image_folder(dir.path(), Split::test, {.test_share = 0}); }),
      "none of the 20 images is left for the test"));
}

TEST_CASE("fit_image: covers and cuts evenly, or stretches") {
  Tensor wide = empty({1, 2, 6});  // columns 0 to 5
  for (int i = 0; i < 12; ++i) wide.mutable_data<float>()[i] = static_cast<float>(i % 6);
  CHECK(fit_image(wide, 2, 2).to_vector<float>() == std::vector<float>{2, 3, 2, 3});
  CHECK(fit_image(wide, 2, 3).to_vector<float>() == std::vector<float>{1, 2, 3, 1, 2, 3});
  CHECK(fit_image(wide, 1, 1).to_vector<float>() == std::vector<float>{2.5});
  CHECK(fit_image(wide, 2, 3, Fit::stretch).to_vector<float>() ==
        resize_image(wide, 2, 3).to_vector<float>());
  CHECK(fit_image(wide, 2, 6).to_vector<float>() == wide.to_vector<float>());
  const Tensor tall = fit_image(from_vector<float>({0, 1, 2, 3}, {1, 4, 1}), 2, 4);
  CHECK(tall.shape() == Shape{1, 2, 4});
  // Magnified four times: rows at -0.375, -0.125, ..., of which rows 7 and 8 of 16 are left.
  CHECK(tall.to_vector<float>() == std::vector<float>{1.375, 1.375, 1.375, 1.375,  //
                                                      1.625, 1.625, 1.625, 1.625});
  CHECK_THROWS_AS(fit_image(wide, 0, 2), ValueError);
  CHECK_THROWS_AS(fit_image(zeros({2, 2}), 1, 1), ShapeError);
}

TEST_CASE("convert_images: size and channels of a set") {
  Bytes pixels{0, 100, 200, 40, 0, 0, 0, 0};
  const ImageSet set({1, 2, 2}, pixels, {1, 0}, {"a", "b"});
  const ImageSet same = convert_images(set, {});
  CHECK(same.pixels(0) == set.pixels(0));
  const ImageSet colour = convert_images(set, {.channels = 3});
  CHECK(colour.image_shape() == Shape{3, 2, 2});
  CHECK(std::vector<int>(colour.pixels(0), colour.pixels(0) + 12) ==
        std::vector<int>{0, 100, 200, 40, 0, 100, 200, 40, 0, 100, 200, 40});
  CHECK(colour.label(0) == 1);
  CHECK(colour.class_names() == set.class_names());
  const ImageSet small = convert_images(set, {.height = 1, .width = 1});
  CHECK(*small.pixels(0) == 85);
  const ImageSet back = convert_images(colour, {.channels = 1});
  CHECK(Bytes(back.pixels(0), back.pixels(0) + 4) == Bytes{0, 100, 200, 40});
  const ImageSet turned = convert_images(set.subset({1, 0}), {.height = 4, .width = 2});
  CHECK(turned.image_shape() == Shape{1, 4, 2});
  CHECK(turned.label(1) == 1);
  CHECK_THROWS_AS(convert_images(set, {.height = 3}), ValueError);
  CHECK_THROWS_AS(convert_images(set, {.channels = 2}), ValueError);
  CHECK_THROWS_AS(convert_images(ImageSet({2, 1, 1}, {1, 2}, {0}, {"a"}), {.channels = 1}),
                  ValueError);
}

TEST_CASE("image folder: from files to batches, as docs/data.md has it") {
  const TempDir dir;
  for (const char* name : {"cat", "dog"})
    for (int i = 0; i < 10; ++i)
      put(dir / (std::string(name) + "/" + std::to_string(i) + ".png"),
          plain(40, 30,
                {i < 5 ? Bytes::value_type{9} : Bytes::value_type{90},
                 static_cast<std::uint8_t>(99 + i), static_cast<std::uint8_t>(20 * i)}));
  const fs::path photos = dir.path();
  std::int64_t seen = 0;
  // [batches]
  const ImageFolderOptions options{.format = {.height = 24, .width = 32, .channels = 3}};
  const ImageSet train = load_image_folder(photos, Split::train, options).set,
                 test = load_image_folder(photos, Split::test, options).set;
  const ChannelStatistics statistics = channel_statistics(train);
  const Transform normal = normalize(statistics.mean, statistics.std);
  DataLoader loader(train, {.batch_size = 4,
                            .shuffle = true,
                            .transform = compose({random_flip(), random_crop(4), normal})});
  for (const Batch& batch : loader)  // f32 [B, 3, 24, 32], i64 [B]
    seen += batch.size();
  DataLoader held_out(test, {.batch_size = 4, .transform = normal});  // nothing random here
  // [batches]
  CHECK(seen == 16);
  Batch batch;
  CHECK(held_out.next(batch));
  CHECK(batch.images.shape() == Shape{4, 3, 24, 32});
}
