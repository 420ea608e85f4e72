#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

std::vector<float> bytes255(const Tensor& x) {
  auto v = x.to_vector<float>();
  for (float& f : v) f *= 255;
  return v;
}

void check_near(const Tensor& x, const std::vector<double>& expected, double tolerance = 1e-6) {
  const auto v = x.to_vector<double>();
  REQUIRE(v.size() == expected.size());
  for (std::size_t i = 0; i < v.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(v[i] - expected[i]) <= tolerance);
  }
}

std::string complaint(const std::filesystem::path& path, const Bytes& file) {
  write_bytes(path, file);
  const std::string message = message_of<IoError>([&] { load_image(path); });
  CHECK((message.empty() || contains(message, path.string())));
  return message;
}

}  // namespace

TEST_CASE("png: what is saved comes back, grey and colour, odd sizes") {
  const TempDir dir;
  for (const Shape& shape : {Shape{1, 3, 5}, Shape{3, 4, 7}, Shape{3, 1, 1}}) {
    Tensor x = empty(shape);
    for (std::int64_t i = 0; i < x.numel(); ++i)
      x.mutable_data<float>()[i] = static_cast<float>(i * 37 % 256) / 255.0f;
    save_png(dir / "x.png", x);
    const Tensor y = load_image(dir / "x.png");
    CHECK(y.shape() == shape);
    CHECK(y.to_vector<float>() == x.to_vector<float>());
  }
  CHECK(dir.names().size() == 1);
}

TEST_CASE("png: values are clamped and rounded, rank 2 and f64 are fine") {
  const TempDir dir;
  const double inf = std::numeric_limits<double>::infinity();
  save_png(dir / "x.png",
           from_vector<double>({-1, 0.4999 / 255, 0.5001 / 255, 2, -inf, inf}, {2, 3}));
  const Tensor y = load_image(dir / "x.png");
  CHECK(y.shape() == Shape{1, 2, 3});
  CHECK(bytes255(y) == std::vector<float>{0, 0, 1, 255, 0, 255});
}

TEST_CASE("png: NaN, other shapes and other types are refused, and no file appears") {
  const TempDir dir;
  Tensor bad = zeros({1, 2, 2});
  bad.mutable_data<float>()[2] = std::nanf("");
  CHECK(contains(message_of<ValueError>([&] { save_png(dir / "x.png", bad); }), "[0, 1, 0]"));
  for (const Shape& shape :
       {Shape{4}, Shape{2, 3, 3}, Shape{1, 1, 2, 2}, Shape{0, 3}, Shape{3, 0, 2}})
    CHECK_THROWS_AS(save_png(dir / "x.png", zeros(shape)), ShapeError);
  CHECK_THROWS_AS(save_png(dir / "x.png", zeros({2, 2}, DType::i64)), DTypeError);
  CHECK(dir.names().empty());
  write_bytes(dir / "file", {1});
  CHECK_THROWS_AS(save_png(dir / "file/x.png", zeros({2, 2})), IoError);
  CHECK(dir.names().size() == 1);
}

TEST_CASE("load image: grey from colour, colour from grey") {
  const TempDir dir;
  write_bytes(dir / "rgb", png(1, 2, 2, {255, 0, 0, 10, 20, 30}));
  const Tensor grey = load_image(dir / "rgb", {.channels = 1});
  CHECK(grey.shape() == Shape{1, 2, 1});
  check_near(grey, {0.299, (0.299 * 10 + 0.587 * 20 + 0.114 * 30) / 255});
  write_bytes(dir / "grey", png(2, 1, 0, {0, 51}));
  const Tensor colour = load_image(dir / "grey", {.channels = 3});
  CHECK(colour.shape() == Shape{3, 1, 2});
  check_near(colour, {0, 0.2, 0, 0.2, 0, 0.2});
  CHECK(load_image(dir / "grey").shape() == Shape{1, 1, 2});
  CHECK_THROWS_AS(load_image(dir / "grey", {.channels = 2}), ValueError);
  CHECK_THROWS_AS(load_image(dir / "grey", {.background = 2}), ValueError);
}

TEST_CASE("load image: the background shows through transparent pixels") {
  const TempDir dir;
  write_bytes(dir / "ga", png(3, 1, 4, {255, 0, 255, 51, 255, 255}));
  check_near(load_image(dir / "ga"), {0, 0.2, 1});
  check_near(load_image(dir / "ga", {.background = 0.5}), {0.5, 0.6, 1});
  write_bytes(dir / "rgba", png(1, 1, 6, {255, 0, 51, 51}));
  check_near(load_image(dir / "rgba", {.background = 1}), {1, 0.8, 0.84});
}

TEST_CASE("load image: a JPEG") {
  const TempDir dir;
  write_bytes(dir / "x.jpg", jpeg());
  const Tensor x = load_image(dir / "x.jpg");
  CHECK(x.shape() == Shape{1, 8, 8});
  CHECK(bytes255(x) == std::vector<float>(64, 168));
}

TEST_CASE("load image: every truncation is an error, PNG and JPEG") {
  const TempDir dir;
  for (const Bytes& whole : {png(2, 2, 2, Bytes(12, 9)), jpeg()}) {
    CHECK(complaint(dir / "x", whole).empty());
    for (std::size_t n = 0; n < whole.size(); ++n) {
      CAPTURE(n);
      CHECK_FALSE(complaint(dir / "x", prefix(whole, n)).empty());
    }
  }
}

TEST_CASE("load image: every flipped bit of a PNG is an error, those of a JPEG never crash") {
  const TempDir dir;
  const Bytes good = png(2, 2, 2, Bytes(12, 9)), jpg = jpeg();
  for (int bit = 0; bit < 8; ++bit) {
    const auto mask = static_cast<std::uint8_t>(1 << bit);
    for (std::size_t at = 0; at < good.size(); ++at) {
      CAPTURE(at);
      CAPTURE(bit);
      CHECK_FALSE(complaint(dir / "x", flipped(good, at, mask)).empty());
    }
    for (std::size_t at = 0; at < jpg.size(); ++at) {
      write_bytes(dir / "y", flipped(jpg, at, mask));
      try {
        const Tensor x = load_image(dir / "y");
        CHECK(x.dim() == 3);
      } catch (const IoError&) {
      }
    }
  }
}

TEST_CASE("load image: messages name the rule") {
  const TempDir dir;
  CHECK(contains(complaint(dir / "x", {}), "must be a PNG or JPEG"));
  CHECK(contains(complaint(dir / "x", {'G', 'I', 'F', '8', '9', 'a'}), "must be a PNG or JPEG"));
  Bytes damaged = png(2, 2, 0, Bytes(4));
  damaged[50] ^= 1;
  CHECK(contains(complaint(dir / "x", damaged), "checksum of the chunk at byte 33"));
  CHECK(contains(complaint(dir / "x", png(20000, 20000, 0, {})), "at most 67108864 pixels"));
  CHECK(contains(complaint(dir / "x", png(8000, 8000, 6, Bytes(4))),
                 "cannot hold 8000 x 8000 pixels"));
  CHECK(contains(complaint(dir / "x", png(0, 0, 0, {})), "header must be valid"));
  CHECK(contains(complaint(dir / "x", png(2, 2, 0, {})), "must be decodable"));
  CHECK(contains(message_of<IoError>([&] { load_image(dir / "none.png"); }), "No such file"));
  Bytes large = jpeg();
  large[76] = large[78] = 0x20;  // 8200 x 8200
  CHECK(contains(complaint(dir / "x", large), "at most 67108864 pixels"));
  large[76] = large[78] = 0x1f;  // 7944 x 7944
  CHECK(contains(complaint(dir / "x", large), "cannot hold 7944 x 7944 pixels"));
  // A Huffman table (at byte 84) with three codes of one bit, or with more than 256 symbols.
  Bytes forged = jpeg();
  forged[89] = 3;
  CHECK(contains(complaint(dir / "x", forged), "segment at byte 84"));
  forged[89] = 0;
  forged[103] = forged[104] = 200;
  CHECK(contains(complaint(dir / "x", forged), "segment at byte 84"));
}

TEST_CASE("tiles: places, gaps and missing tiles") {
  const Tensor x = from_vector<float>({1, 2, 3, 4, 5, 6}, {3, 1, 1, 2});
  const Tensor y = tile_images(x, 2, 1, -1);
  CHECK(y.shape() == Shape{1, 3, 5});
  CHECK(y.to_vector<float>() ==
        std::vector<float>{1, 2, -1, 3, 4, -1, -1, -1, -1, -1, 5, 6, -1, -1, -1});
  const Tensor z = tile_images(from_vector<float>({1, 2, 3, 4}, {2, 2, 1, 1}), 2, 0);
  CHECK(z.shape() == Shape{2, 1, 2});
  CHECK(z.to_vector<float>() == std::vector<float>{1, 3, 2, 4});
  CHECK_THROWS_AS(tile_images(zeros({2, 3, 3}), 2), ShapeError);
  CHECK_THROWS_AS(tile_images(zeros({0, 1, 3, 3}), 2), ShapeError);
  CHECK_THROWS_AS(tile_images(zeros({1, 1, 3, 3}), 0), ValueError);
  CHECK_THROWS_AS(tile_images(zeros({1, 1, 3, 3}), 1, -1), ValueError);
  CHECK_THROWS_AS(tile_images(zeros({1, 1, 3, 3}, DType::i64), 1), DTypeError);
}

TEST_CASE("resize: area averages when shrinking") {
  const Tensor x = from_vector<float>({0, 2, 4, 6, 8, 10, 12, 14}, {1, 2, 4});
  check_near(resize_image(x, 1, 2), {5, 9});
  // Three pixels to two: each new pixel covers one whole and half of the middle one.
  check_near(resize_image(from_vector<float>({3, 6, 12}, {1, 1, 3}), 1, 2), {4, 10});
}

TEST_CASE("resize: linear between pixel centres when growing") {
  check_near(resize_image(from_vector<float>({0, 4}, {1, 1, 2}), 1, 4), {0, 1, 3, 4});
  check_near(resize_image(from_vector<float>({0, 4}, {1, 2, 1}), 4, 1), {0, 1, 3, 4});
}

TEST_CASE("resize: the same size changes nothing, a flat image stays flat") {
  Rng rng(3);
  const Tensor x = rand({3, 5, 7}, rng);
  CHECK(resize_image(x, 5, 7).to_vector<float>() == x.to_vector<float>());
  for (std::int64_t height : {1, 4, 5, 28, 61})
    for (std::int64_t width : {1, 3, 7, 28, 300})
      check_near(resize_image(full({1, 5, 7}, 0.7), height, width),
                 std::vector<double>(static_cast<std::size_t>(height * width), 0.7), 1e-5);
}

TEST_CASE("resize: bad sizes are refused") {
  CHECK_THROWS_AS(resize_image(zeros({1, 2, 2}), 0, 3), ValueError);
  CHECK_THROWS_AS(resize_image(zeros({1, 2, 2}), 3, -1), ValueError);
  CHECK_THROWS_AS(resize_image(zeros({1, 2, 2}), 100000, 100000), ValueError);
  CHECK_THROWS_AS(resize_image(zeros({2, 2}), 3, 3), ShapeError);
  CHECK_THROWS_AS(resize_image(zeros({1, 0, 2}), 3, 3), ShapeError);
}
