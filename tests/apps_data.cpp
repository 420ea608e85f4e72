// The sets that the programs take: by name, from files, in any size.

#include <algorithm>

#include <doctest/doctest.h>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/small_norb.hpp>
#include <capsfw/layers/mlp_net.hpp>

#include "common/classifier_io.hpp"
#include "common/data_flags.hpp"
#include "common/grid.hpp"
#include "data_common.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using namespace data_test;

namespace {

/// The flags of a command line, which must outlive them.
class Line {
 public:
  Line(const std::vector<const char*>& words) {
    flags.add_data(args_);
    std::vector<const char*> line{"test"};
    line.insert(line.end(), words.begin(), words.end());
    REQUIRE_FALSE(args_.parse(static_cast<int>(line.size()), line.data()).has_value());
  }
  DataFlags flags;

 private:
  Args args_{"test", ""};
};

Bytes matrix(std::uint32_t magic, const std::vector<std::uint32_t>& lengths, const Bytes& data) {
  Bytes out = little32(magic);
  append(out, little32(static_cast<std::uint32_t>(lengths.size())));
  for (std::size_t i = 0; i < std::max<std::size_t>(3, lengths.size()); ++i)
    append(out, little32(i < lengths.size() ? lengths[i] : 1));
  append(out, data);
  return out;
}

}  // namespace

TEST_CASE("data flags: an NPZ file, in its own size and in another") {
  const TempDir dir;
  const std::string path = (dir / "set.npz").string();
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 40; ++i) labels.push_back(i / 20);
  StateDict arrays;
  arrays.set("images", full({40, 6, 8, 3}, 0.5));
  arrays.set("labels", from_vector(labels));
  save_npz(path, arrays);
  const Line line({"--data", path.c_str()});
  const DataFlags& own = line.flags;
  CHECK(own.own_data());
  CHECK(own.title() == "set.npz");
  CHECK(load_images(own, Split::train).image_shape() == Shape{3, 6, 8});
  CHECK(load_images(own, Split::test).size() == 8);
  const ImageSet small = load_images(
      Line({"--data", path.c_str(), "--size", "4x3", "--channels", "1"}).flags, Split::test);
  CHECK(small.image_shape() == Shape{1, 4, 3});
  CHECK(*small.pixels(0) == 128);
}

TEST_CASE("data flags: of own data every class is held out, by default a tenth") {
  const TempDir dir;
  const std::string path = (dir / "set.npz").string();
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 100; ++i) labels.push_back(i / 50);
  StateDict arrays;
  arrays.set("x_train", zeros({100, 1, 1}));
  arrays.set("y_train", from_vector(labels));
  arrays.set("x_test", zeros({1, 1, 1}));
  arrays.set("y_test", from_vector<std::int64_t>({0}));
  save_npz(path, arrays);
  const auto held_out = [&](const std::vector<const char*>& more) {
    std::vector<const char*> words{"--data", path.c_str()};
    words.insert(words.end(), more.begin(), more.end());
    return load_training(Line(words).flags);
  };
  const HeldOut tenth = held_out({});
  CHECK(tenth.train.size() == 90);
  const auto classes = tenth.validation.labels().to_vector<std::int64_t>();
  CHECK(std::count(classes.begin(), classes.end(), 0) == 5);
  CHECK(held_out({"--val", "20"}).validation.size() == 20);
  CHECK(held_out({"--val", "0"}).validation.size() == 0);
  CHECK_THROWS_AS(held_out({"--val", "100"}), ValueError);
}

TEST_CASE("data flags: smallNORB with both cameras, or the left one") {
  const TempDir dir;
  const Environment root("CAPSFW_DATA_DIR", dir.path().string());
  std::filesystem::create_directories(dir / "smallnorb");
  for (const char* part : {"5x46789x9x18x6x2x96x96-training", "5x01235x9x18x6x2x96x96-testing"}) {
    const std::string start = (dir / "smallnorb").string() + "/smallnorb-" + part;
    write_bytes(start + "-dat.mat", matrix(0x1E3D4C55, {1, 2, 2, 2}, {1, 1, 1, 1, 9, 9, 9, 9}));
    write_bytes(start + "-cat.mat", matrix(0x1E3D4C54, {1}, {3, 0, 0, 0}));
    write_bytes(start + "-info.mat", matrix(0x1E3D4C54, {1, 4}, Bytes(16)));
  }
  const ImageSet both = load_images(Line({"--data", "smallnorb"}).flags, Split::train);
  CHECK(both.image_shape() == Shape{2, 2, 2});
  CHECK(both.label(0) == 3);
  const ImageSet left =
      load_images(Line({"--data", "smallnorb", "--channels", "1"}).flags, Split::test);
  CHECK(left.image_shape() == Shape{1, 2, 2});
  CHECK(*left.pixels(0) == 1);
  const ImageSet grey = load_images(
      Line({"--data", "smallnorb", "--channels", "3", "--size", "1"}).flags, Split::test);
  CHECK(grey.image_shape() == Shape{3, 1, 1});
  // The one image of each part is from 30 degrees and azimuth 0: familiar, so nothing is novel.
  for (const char* name : {"smallnorb-azimuth", "smallnorb-elevation"}) {
    CHECK(load_images(Line({"--data", name}).flags, Split::train).size() == 1);
    CHECK(load_images(Line({"--data", name}).flags, Split::test).size() == 0);
  }
  Bytes high(16);
  high[4] = 8;  // 70 degrees
  write_bytes((dir / "smallnorb").string() + "/smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat",
              matrix(0x1E3D4C54, {1, 4}, high));
  CHECK(load_images(Line({"--data", "smallnorb-elevation"}).flags, Split::test).size() == 1);
  CHECK(load_images(Line({"--data", "smallnorb-azimuth"}).flags, Split::test).size() == 0);
  CHECK(Line({"--data", "smallnorb"}).flags.title() == "smallNORB");
  CHECK_FALSE(Line({"--data", "smallnorb"}).flags.own_data());
  // Two channels are drawn as the first one.
  const Tensor pair = both.images();
  CHECK(drawable(pair).shape() == Shape{1, 1, 2, 2});
  CHECK(drawable(pair).to_vector<float>()[0] == 1.0f / 255.0f);
  CHECK(drawable(left.images()).shape() == Shape{1, 1, 2, 2});
}

TEST_CASE("data flags: augmentation is what the flags say, and none without") {
  CHECK_FALSE(Line({}).flags.augmentation());
  const auto changed = [](const std::vector<const char*>& words) {
    Batch b{ones({20, 3, 8, 6}), zeros({20}, DType::i64)};
    Rng rng(1);
    const Transform transform = Line(words).flags.augmentation();
    REQUIRE(transform);
    transform(b, rng);
    return b.images;
  };
  CHECK(changed({"--flip"}).to_vector<float>() == std::vector<float>(20 * 144, 1));
  for (const auto& words : std::vector<std::vector<const char*>>{{"--crop", "2"},
                                                                 {"--cutout", "2"},
                                                                 {"--rotate", "30"},
                                                                 {"--zoom", "0.3"},
                                                                 {"--shear", "0.5"},
                                                                 {"--elastic", "34"}}) {
    const Tensor y = changed(words);
    CHECK(y.shape() == Shape{20, 3, 8, 6});
    const auto v = y.to_vector<float>();
    CHECK(std::count(v.begin(), v.end(), 0.0f) > 0);
  }
}

TEST_CASE("the border of the training images travels with the network") {
  CHECK(border_brightness(zeros({2, 1, 4, 5})) == 0);
  Tensor frame = ones({1, 3, 3});
  frame.mutable_data<float>()[4] = 0;
  CHECK(border_brightness(frame) == 1);
  const TempDir dir;
  const auto path = dir / "net.safetensors";
  Rng rng(1);
  const MlpNet net({.image = {1, 3, 3}, .hidden = {2}, .classes = 2}, rng);
  const ImageSet paper({1, 3, 3}, {255, 255, 255, 255, 0, 255, 255, 255, 255}, {0}, {"a", "b"});
  save_classifier(path, net, paper);
  CHECK(load_classifier(path).border == 1);
  CHECK(load_classifier(path).class_names == paper.class_names());
  save_classifier(path, net, {"a", "b"});
  CHECK_FALSE(load_classifier(path).border.has_value());
}
