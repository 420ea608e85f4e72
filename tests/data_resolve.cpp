#include <algorithm>

#include <doctest/doctest.h>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

namespace fs = std::filesystem;

/// Writes a data set of `n` images of 2 x 2 pixels and `n` labels into `folder`.
void write_set(const fs::path& folder, const std::string& ending, std::uint32_t n = 3) {
  fs::create_directories(folder);
  for (const std::string stem : {"train", "t10k"}) {
    const Bytes images = idx(8, {n, 2, 2}, Bytes(n * 4, stem == "train" ? 10 : 20));
    const Bytes labels = idx(8, {n}, Bytes(n, 1));
    const bool packed = ending == ".gz";
    write_bytes(folder / (stem + "-images-idx3-ubyte" + ending), packed ? gzip(images) : images);
    write_bytes(folder / (stem + "-labels-idx1-ubyte" + ending), packed ? gzip(labels) : labels);
  }
}

/// Twelve images of one pixel with the values 0 to 11, of four classes.
ImageSet twelve() {
  Bytes pixels;
  std::vector<std::int64_t> labels;
  for (std::uint8_t i = 0; i < 12; ++i) {
    pixels.push_back(i);
    labels.push_back(i % 4);
  }
  return ImageSet({1, 1, 1}, pixels, labels, {"a", "b", "c", "d"});
}

std::vector<int> values(const ImageSet& set) {
  std::vector<int> out;
  for (std::int64_t i = 0; i < set.size(); ++i) {
    out.push_back(*set.pixels(i));
    CHECK(set.label(i) == out.back() % 4);  // labels stay with their images
  }
  return out;
}

}  // namespace

TEST_CASE("data sets: CAPSFW_DATA_DIR/NAME, plain and packed, both halves") {
  for (const std::string ending : {"", ".gz"}) {
    const TempDir dir;
    write_set(dir / "tiny-set", ending);
    const Environment env("CAPSFW_DATA_DIR", dir.path().string());
    CHECK(resolve_dataset("tiny-set", {"train-images-idx3-ubyte"}) == dir / "tiny-set");
    CHECK(*load_mnist_like("tiny-set", Split::train).pixels(0) == 10);
    CHECK(*load_mnist_like("tiny-set", Split::test).pixels(0) == 20);
    CHECK(load_mnist_like("tiny-set", Split::test).class_names()[9] == "9");
  }
}

TEST_CASE("data sets: CAPSFW_DATA_DIR itself, but never another set's folder") {
  const TempDir dir;
  write_set(dir / "mnist", "");
  write_set(dir / "digits", "");
  const std::vector<std::string> files{"train-images-idx3-ubyte", "train-labels-idx1-ubyte"};
  for (const std::string name : {"mnist", "mnist/"}) {
    const Environment env("CAPSFW_DATA_DIR", (dir / name).string());
    CHECK(resolve_dataset("mnist", files) == dir / name);
    const auto places = dataset_places("fashion-mnist");
    CHECK(std::find(places.begin(), places.end(), dir / name) == places.end());
  }
  const Environment env("CAPSFW_DATA_DIR", (dir / "digits").string());
  CHECK(resolve_dataset("mnist", files) == dir / "digits");
}

TEST_CASE("data sets: the folder NAME wins over the folder around it") {
  const TempDir dir;
  write_set(dir / "tiny", "");
  write_set(dir.path(), "");
  const Environment env("CAPSFW_DATA_DIR", dir.path().string());
  CHECK(resolve_dataset("tiny", {"train-images-idx3-ubyte"}) == dir / "tiny");
}

TEST_CASE(
    "data sets: a folder that lacks a file is passed over, the user's own folder comes next") {
  const TempDir dir;
  write_set(dir / "share/capsfw/tiny", "");
  fs::create_directories(dir / "env/tiny");
  write_bytes(dir / "env/tiny/train-images-idx3-ubyte", {0});
  const Environment env("CAPSFW_DATA_DIR", (dir / "env").string());
  const Environment xdg("XDG_DATA_HOME", (dir / "share").string());
  CHECK(load_mnist_like("tiny", Split::train).size() == 3);
  write_set(dir / "home/.local/share/capsfw/tiny", "", 2);
  const Environment none("XDG_DATA_HOME", std::nullopt), home("HOME", (dir / "home").string());
  CHECK(load_mnist_like("tiny", Split::train).size() == 2);
}

TEST_CASE("data sets: the error names every place, what is missing there, and the cure") {
  const TempDir dir;
  fs::create_directories(dir / "mnist");
  const Environment env("CAPSFW_DATA_DIR", dir.path().string());
  const std::vector<std::string> files{"no-such-file"};
  for (const std::string name : {"mnist", "fashion-mnist", "fasion-mnist"}) {
    const std::string message = message_of<IoError>([&] { resolve_dataset(name, files); });
    CHECK(contains(message, "'" + name + "': not found"));
    CHECK(dataset_places(name).size() == 6);
    for (const auto& place : dataset_places(name)) CHECK(contains(message, place.string()));
    CHECK(contains(message, "/usr/share/datasets/" + name));
    CHECK(contains(message, "lacks no-such-file"));
    if (name == "fashion-mnist")
      CHECK(contains(message, "apt-get install dataset-fashion-mnist"));
    else
      CHECK(contains(message, "into a folder " + name + "/ and set CAPSFW_DATA_DIR"));
    CHECK(contains(message, "Well-known names: mnist, fashion-mnist") == (name == "fasion-mnist"));
  }
  const Environment unset("CAPSFW_DATA_DIR", std::nullopt);
  CHECK(contains(message_of<IoError>([&] { resolve_dataset("mnist", files); }),
                 "CAPSFW_DATA_DIR (not set)"));
}

TEST_CASE("data sets: training images without test images are no data set") {
  const TempDir dir;
  write_set(dir / "tiny", "");
  fs::remove(dir / "tiny/t10k-labels-idx1-ubyte");
  const Environment env("CAPSFW_DATA_DIR", dir.path().string());
  const std::string message = message_of<IoError>([] { load_mnist_like("tiny", Split::train); });
  CHECK(contains(message, (dir / "tiny").string() + " (lacks t10k-labels-idx1-ubyte)"));
}

TEST_CASE("data sets: a name cannot leave its folders") {
  for (const char* name : {"", "..", "../mnist", "/etc", "a/b", ".hidden", "a b", "x\n"})
    CHECK_THROWS_AS(dataset_places(name), ValueError);
}

TEST_CASE("data sets: Fashion-MNIST of the system") {
  const Environment unset("CAPSFW_DATA_DIR", std::nullopt);
  if (!fs::exists("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")) {
    MESSAGE("dataset-fashion-mnist is not installed");
    return;
  }
  const ImageSet set = load_mnist_like("fashion-mnist", Split::test);
  CHECK(set.size() == 10000);
  CHECK(set.image_shape() == Shape{1, 28, 28});
  CHECK(set.class_names()[static_cast<std::size_t>(set.label(0))] == "Ankle boot");
  std::vector<int> count(10);
  for (std::int64_t i = 0; i < set.size(); ++i) ++count[static_cast<std::size_t>(set.label(i))];
  CHECK(count == std::vector<int>(10, 1000));
}

TEST_CASE("image set: bad counts, shapes and labels are refused") {
  CHECK_THROWS_AS(ImageSet({1, 2, 2}, Bytes(7), {0, 0}, {"a"}), ShapeError);
  CHECK_THROWS_AS(ImageSet({1, 2, 2}, Bytes(12), {0, 0}, {"a"}), ShapeError);
  CHECK_THROWS_AS(ImageSet({2, 2}, Bytes(8), {0, 0}, {"a"}), ShapeError);
  CHECK_THROWS_AS(ImageSet({0, 2, 2}, Bytes(), {}, {"a"}), ShapeError);
  CHECK_THROWS_AS(ImageSet({1, 2, 2}, Bytes(8), {0, 1}, {"a"}), ValueError);
  CHECK_THROWS_AS(ImageSet({1, 2, 2}, Bytes(8), {0, -1}, {"a"}), ValueError);
  CHECK(ImageSet().size() == 0);
  CHECK(ImageSet().labels().numel() == 0);
}

TEST_CASE("image set: images, ranges and subsets of subsets, without copies of the pixels") {
  const ImageSet set = twelve();
  CHECK(set.images(3, 5).to_vector<float>() == std::vector<float>{3 / 255.0f, 4 / 255.0f});
  const ImageSet middle = set.range(2, 8);
  CHECK(values(middle) == std::vector<int>{2, 3, 4, 5, 6, 7});
  CHECK(values(middle.subset({5, 0, 0})) == std::vector<int>{7, 2, 2});
  CHECK(middle.pixels(0) == set.pixels(2));
  CHECK_THROWS_AS(set.range(3, 2), ValueError);
  CHECK_THROWS_AS(set.range(-1, 2), ValueError);
  CHECK_THROWS_AS(set.range(0, 13), ValueError);
  CHECK_THROWS_AS(set.images(0, 13), ValueError);
  CHECK_THROWS_AS(set.subset({12}), ValueError);
  CHECK_THROWS_AS(set.subset({-1}), ValueError);
}

TEST_CASE("hold out: the last n without a seed, a fixed choice with one, nothing lost or doubled") {
  const ImageSet set = twelve();
  const HeldOut last = hold_out(set, 3);
  CHECK(values(last.train) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(values(last.validation) == std::vector<int>{9, 10, 11});
  const HeldOut drawn = hold_out(set, 5, 7), again = hold_out(set, 5, 7),
                other = hold_out(set, 5, 8);
  CHECK(values(drawn.validation) == values(again.validation));
  CHECK(values(drawn.validation) != values(other.validation));
  CHECK(values(drawn.validation) != std::vector<int>{7, 8, 9, 10, 11});
  auto all = values(drawn.train);
  CHECK(std::is_sorted(all.begin(), all.end()));
  for (int v : values(drawn.validation)) all.push_back(v);
  std::sort(all.begin(), all.end());
  CHECK(all == values(set));
  CHECK(hold_out(set, 0).validation.size() == 0);
  CHECK_THROWS_AS(hold_out(set, 12), ValueError);
  CHECK_THROWS_AS(hold_out(set, -1), ValueError);
}
