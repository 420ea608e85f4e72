#include <bit>

#include <doctest/doctest.h>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

const Bytes kData{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255};
const Bytes kSmall = idx(8, {3, 2, 2}, kData);

/// What gzip -9 makes of the IDX file u8 [32] with 31 sevens and a nine: Huffman codes, copies.
const Bytes kPacked{0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x63,
                    0x60, 0xe0, 0x60, 0x64, 0x60, 0x60, 0x50, 0x60, 0xc7, 0x0f, 0x38,
                    0x01, 0x7c, 0x8d, 0xf0, 0xeb, 0x28, 0x00, 0x00, 0x00};

bool loads(const std::filesystem::path& path, const Bytes& bytes) {
  write_bytes(path, bytes);
  return message_of<IoError>([&] { read_idx(path); }).empty();
}

std::string complaint(const std::filesystem::path& path, const Bytes& bytes) {
  write_bytes(path, bytes);
  const std::string message = message_of<IoError>([&] { read_idx(path); });
  CHECK(contains(message, path.string()));
  return message;
}

}  // namespace

TEST_CASE("idx: bytes, shape and type of a plain and of a packed file") {
  const TempDir dir;
  write_bytes(dir / "plain", kSmall);
  write_bytes(dir / "packed.gz", gzip(kSmall));
  for (const char* name : {"plain", "packed.gz"}) {
    const IdxArray x = read_idx(dir / name);
    CHECK(x.type == IdxType::u8);
    CHECK(x.shape == Shape{3, 2, 2});
    CHECK(x.bytes == kData);
  }
}

TEST_CASE("idx: gzip is told by its bytes, not by the name of the file") {
  const TempDir dir;
  write_bytes(dir / "a.gz", kSmall);
  write_bytes(dir / "b", gzip(kSmall));
  CHECK(read_idx(dir / "a.gz").bytes == kData);
  CHECK(read_idx(dir / "b").bytes == kData);
}

TEST_CASE("idx: a really compressed file, and every truncation of it") {
  const TempDir dir;
  write_bytes(dir / "x", kPacked);
  Bytes expected(32, 7);
  expected[31] = 9;
  CHECK(read_idx(dir / "x").bytes == expected);
  for (std::size_t n = 0; n < kPacked.size(); ++n)
    CHECK_FALSE(loads(dir / "x", prefix(kPacked, n)));
}

TEST_CASE("idx: several gzip members are one file") {
  const TempDir dir;
  Bytes two = gzip(prefix(kSmall, 10));
  append(two, gzip({kSmall.begin() + 10, kSmall.end()}));
  write_bytes(dir / "two.gz", two);
  CHECK(read_idx(dir / "two.gz").bytes == kData);
}

TEST_CASE("idx: every element type becomes the right numbers") {
  const TempDir dir;
  const auto values = [&](std::uint8_t type, const Bytes& data, std::uint32_t n) {
    write_bytes(dir / "x", idx(type, {n}, data));
    return to_tensor(read_idx(dir / "x"));
  };
  CHECK(values(8, {0, 200}, 2).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 200});
  CHECK(values(9, {0xff, 5}, 2).to_vector<std::int64_t>() == std::vector<std::int64_t>{-1, 5});
  CHECK(values(11, {0xff, 0xfe, 1, 0}, 2).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{-2, 256});
  CHECK(values(12, {0x80, 0, 0, 0}, 1).item() == -2147483648.0);
  const Tensor f = values(13, big32(std::bit_cast<std::uint32_t>(1.5f)), 1);
  CHECK(f.dtype() == DType::f32);
  CHECK(f.item() == 1.5);
  Bytes eight = big32(0xc0040000);  // -2.5
  append(eight, big32(0));
  const Tensor d = values(14, eight, 1);
  CHECK(d.dtype() == DType::f64);
  CHECK(d.item() == -2.5);
}

TEST_CASE("idx: an empty axis is fine") {
  const TempDir dir;
  write_bytes(dir / "x", idx(8, {0, 28, 28}, {}));
  CHECK(read_idx(dir / "x").shape == Shape{0, 28, 28});
}

TEST_CASE("idx: every truncation is an error, plain and packed") {
  const TempDir dir;
  for (const Bytes& whole : {kSmall, gzip(kSmall)})
    for (std::size_t n = 0; n < whole.size(); ++n) {
      CAPTURE(n);
      CHECK_FALSE(loads(dir / "x", prefix(whole, n)));
    }
}

TEST_CASE("idx: surplus data is an error, plain, inside and after gzip") {
  const TempDir dir;
  Bytes longer = kSmall;
  longer.push_back(0);
  CHECK(contains(complaint(dir / "x", longer), "nothing may follow"));
  CHECK(contains(complaint(dir / "x", gzip(longer)), "nothing may follow"));
  Bytes after = gzip(kSmall);
  append(after, {'j', 'u', 'n', 'k'});
  CHECK(contains(complaint(dir / "x", after), "gzip"));
}

TEST_CASE("idx: damage of a header is an error, damage of gzip is an error or harmless") {
  const TempDir dir;
  for (std::size_t at = 0; at < 16; ++at)
    for (int bit = 0; bit < 8; ++bit) {
      const Bytes bad = flipped(kSmall, at, static_cast<std::uint8_t>(1 << bit));
      // The type may turn into that of another one-byte type, which load_idx_images rejects.
      if (at == 2 && bad[2] == 9) continue;
      CAPTURE(at);
      CAPTURE(bit);
      CHECK_FALSE(loads(dir / "x", bad));
    }
  const Bytes packed = gzip(kSmall);
  for (std::size_t at = 0; at < packed.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      write_bytes(dir / "y", flipped(packed, at, static_cast<std::uint8_t>(1 << bit)));
      CAPTURE(at);
      CAPTURE(bit);
      try {
        const Bytes got = read_idx(dir / "y").bytes;
        CHECK(at <= 10);  // time stamp, system, unused bits: say nothing about the data
        CHECK(got == kData);
      } catch (const IoError&) {
      }
    }
}

TEST_CASE("idx: the checksum and the length at the end of gzip are verified") {
  const TempDir dir;
  const Bytes packed = gzip(kSmall);
  CHECK(contains(complaint(dir / "x", flipped(packed, packed.size() - 8)), "data check"));
  CHECK(contains(complaint(dir / "x", flipped(packed, packed.size() - 4)), "length check"));
}

TEST_CASE("idx: messages name the rule") {
  const TempDir dir;
  CHECK(contains(complaint(dir / "x", {}), "got 0"));
  CHECK(contains(complaint(dir / "x", idx(10, {1}, {0})), "got 0 0 10"));
  CHECK(contains(complaint(dir / "x", {'<', '!', 'd', 'o', 'c'}), "an IDX file?"));
  CHECK(contains(complaint(dir / "x", idx(8, {}, {})), "rank must lie in 1..8; got 0"));
  CHECK(contains(complaint(dir / "x", {0, 0, 8, 9}), "rank must lie in 1..8; got 9"));
  CHECK(contains(complaint(dir / "x", idx(8, {4}, {1, 2, 3})), "4 bytes must follow"));
  CHECK(contains(message_of<IoError>([&] { read_idx(dir / "none"); }), "No such file"));
  CHECK(contains(message_of<IoError>([&] { read_idx(dir.path()); }), "regular file"));
}

TEST_CASE("idx: lengths that overflow or promise too much are rejected without the memory") {
  const TempDir dir;
  const std::uint32_t most = 0xffffffff;
  CHECK(contains(complaint(dir / "x", idx(8, {most, most}, {1})), "must fit into"));
  CHECK(contains(complaint(dir / "x", idx(14, {most, most, most}, {1})), "must fit into"));
  CHECK(contains(complaint(dir / "x", idx(8, {0x10000, 0x10000, 0x10000, 0x10000}, {})),
                 "must fit into"));  // 2^64: zero if it wrapped
  CHECK(contains(complaint(dir / "x", idx(8, {0, most, most, most}, {})), "must fit into"));
  CHECK(contains(complaint(dir / "x", idx(8, {most}, {1, 2, 3})), "got 3"));
  CHECK(contains(complaint(dir / "x", gzip(idx(8, {most}, {1, 2, 3}))), "got 3"));
}

TEST_CASE("idx: to_tensor checks that bytes and shape agree") {
  IdxArray x;
  x.shape = Shape{3};
  x.bytes = {1, 2};
  CHECK_THROWS_AS(to_tensor(x), ShapeError);
}

TEST_CASE("idx images: pixels, labels and names") {
  const TempDir dir;
  write_bytes(dir / "x", kSmall);
  write_bytes(dir / "y", idx(8, {3}, {2, 0, 1}));
  const ImageSet set = load_idx_images(dir / "x", dir / "y", {"a", "b", "c"});
  CHECK(set.size() == 3);
  CHECK(set.image_shape() == Shape{1, 2, 2});
  CHECK(set.class_names()[1] == "b");
  CHECK(set.labels().to_vector<std::int64_t>() == std::vector<std::int64_t>{2, 0, 1});
  const Tensor images = set.images();
  CHECK(images.shape() == Shape{3, 1, 2, 2});
  const auto v = images.to_vector<float>();
  for (std::size_t i = 0; i < kData.size(); ++i)
    CHECK(v[i] == static_cast<float>(kData[i]) / 255.0f);
}

TEST_CASE("idx images: what does not fit together is an error that names the file") {
  const TempDir dir;
  const auto load = [&](const Bytes& x, const Bytes& y) {
    write_bytes(dir / "x", x);
    write_bytes(dir / "y", y);
    return message_of<IoError>([&] { load_idx_images(dir / "x", dir / "y", {"a", "b", "c"}); });
  };
  const Bytes labels = idx(8, {3}, {2, 0, 1});
  CHECK(load(kSmall, labels).empty());
  CHECK(contains(load(kSmall, idx(8, {2}, {2, 0})), "got 3 and 2"));
  CHECK(contains(load(kSmall, idx(8, {3}, {0, 3, 0})), "[0, 3); got 3 for image 1"));
  CHECK(contains(load(kSmall, idx(8, {3, 1}, {0, 1, 0})), "must be [N]"));
  CHECK(contains(load(idx(9, {3, 2, 2}, kData), labels), "must be bytes"));
  CHECK(contains(load(idx(8, {3, 4}, kData), labels), "[N, H, W]"));
  CHECK(contains(load(idx(8, {0, 2, 2}, {}), idx(8, {0}, {})), "not empty"));
  CHECK(load(idx(8, {3, 2, 1, 2}, kData), labels).empty());
}
