// NPY and NPZ: what is written comes back, every form that NumPy writes, every kind of damage.

#include <cstring>

#include <doctest/doctest.h>

#include <capsfw/data/npy.hpp>

#include "data_common.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

Bytes text(const std::string& s) { return {s.begin(), s.end()}; }

template <class T>
Bytes raw(const std::vector<T>& v) {
  Bytes out(v.size() * sizeof(T));
  std::memcpy(out.data(), v.data(), out.size());
  return out;
}

/// A file of this version with this header, unpadded, and data.
Bytes npy(const std::string& header, const Bytes& data, std::uint8_t version = 1) {
  Bytes out = text("\x93NUMPY");
  append(out, {version, 0});
  const Bytes length = little32(static_cast<std::uint32_t>(header.size()));
  append(out, prefix(length, version == 1 ? 2 : 4));
  append(out, text(header));
  append(out, data);
  return out;
}

std::string header(const std::string& descr, const std::string& shape, bool fortran = false) {
  return "{'descr': '" + descr + "', 'fortran_order': " + (fortran ? "True" : "False") +
         ", 'shape': " + shape + ", }\n";
}

class Files {
 public:
  Tensor value(const Bytes& file) {
    write_bytes(path_, file);
    return load_npy(path_);
  }
  Tensor value(const std::string& descr, const std::string& shape, const Bytes& data) {
    return value(npy(header(descr, shape), data));
  }
  /// The complaint about a file; empty if there is none.
  std::string complaint(const Bytes& file) {
    write_bytes(path_, file);
    return checked(message_of<IoError>([&] { load_npy(path_); }));
  }
  std::string complaint_npz(const Bytes& file) {
    write_bytes(path_, file);
    return checked(message_of<IoError>([&] { load_npz(path_); }));
  }
  StateDict read_npz() const { return load_npz(path_); }  // what was written last

 private:
  std::string checked(const std::string& message) {
    CHECK((message.empty() || contains(message, path_.string())));
    return message;
  }
  TempDir dir_;
  std::filesystem::path path_ = dir_ / "x.npy";
};

using Doubles = std::vector<double>;
using Ints = std::vector<std::int64_t>;

/// As numpy.savez_compressed writes it (sizes of the local header in a zip64 field): int16, i % 5.
const Bytes kDeflated = {
    80,  75,  3,   4,   45,  0,   0,   0,   8,   0,   0,   0,   33,  0,   110, 141, 235, 82,  255,
    255, 255, 255, 255, 255, 255, 255, 5,   0,   20,  0,   97,  46,  110, 112, 121, 1,   0,   16,
    0,   228, 0,   0,   0,   0,   0,   0,   0,   81,  0,   0,   0,   0,   0,   0,   0,   155, 236,
    23,  234, 27,  16,  201, 200, 80,  198, 80,  173, 158, 146, 90,  156, 92,  164, 110, 165, 160,
    110, 147, 105, 164, 174, 163, 160, 158, 150, 95,  84,  82,  148, 152, 23,  159, 95,  148, 146,
    10,  18,  119, 75,  204, 41,  78,  5,   138, 23,  103, 36,  22,  164, 2,   249, 26,  166, 6,
    58,  154, 58,  10,  181, 10,  228, 3,   46,  6,   6,   70,  6,   38,  6,   102, 6,   22,  6,
    218, 177, 0,   80,  75,  1,   2,   45,  3,   45,  0,   0,   0,   8,   0,   0,   0,   33,  0,
    110, 141, 235, 82,  81,  0,   0,   0,   228, 0,   0,   0,   5,   0,   0,   0,   0,   0,   0,
    0,   0,   0,   0,   0,   128, 1,   0,   0,   0,   0,   97,  46,  110, 112, 121, 80,  75,  5,
    6,   0,   0,   0,   0,   1,   0,   1,   0,   51,  0,   0,   0,   136, 0,   0,   0,   0,   0};
constexpr std::size_t kDirectory = 136, kEnd = 187;  // places in kDeflated

}  // namespace

TEST_CASE("NPY: what is written comes back, views in row-major order") {
  const TempDir dir;
  const Tensor wide = from_vector<double>({1.0 / 3, -1e300, 0, 3, 4, 5}, {2, 3});
  for (const Tensor& x :
       {wide, strided_view(wide, {3, 2}, {1, 3}, 0), from_vector<float>({1, -2}), scalar(2.5),
        from_vector<std::int64_t>({-5, INT64_MAX}), from_vector<bool>({true, false, true}),
        empty({0, 3}), zeros({1, 1, 1, 1, 1, 1, 1, 1})}) {
    save_npy(dir / "x.npy", x);
    const Tensor y = load_npy(dir / "x.npy");
    CHECK(y.dtype() == x.dtype());
    CHECK(y.shape() == x.shape());
    CHECK(y.to_vector<double>() == x.to_vector<double>());
  }
  CHECK(dir.names() == std::vector<std::string>{"x.npy"});
  CHECK_THROWS_AS(save_npy(dir / "x.npy", Tensor()), ValueError);
  CHECK_THROWS_AS(save_npy(dir / "none" / "x.npy", wide), IoError);
}

TEST_CASE("NPY: the bytes of a small file are those that NumPy writes") {
  const TempDir dir;
  save_npy(dir / "x.npy", from_vector<float>({1, -2}));
  std::string h = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  h.resize(128 - 10 - 1, ' ');
  CHECK(read_bytes(dir / "x.npy") == npy(h + "\n", {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}));
  save_npy(dir / "x.npy", scalar(1, DType::i64));
  CHECK(contains({reinterpret_cast<const char*>(read_bytes(dir / "x.npy").data()), 128},
                 "{'descr': '<i8', 'fortran_order': False, 'shape': (), }"));
}

TEST_CASE("NPY: every element type, both byte orders, three versions, Fortran order") {
  Files f;
  CHECK(f.value("<f2", "(2,)", {0, 0x3c, 0, 0xc0}).to_vector<float>() == std::vector<float>{1, -2});
  CHECK(f.value("|i1", "(2,)", {0xff, 127}).to_vector<std::int64_t>() == Ints{-1, 127});
  CHECK(f.value("|u1", "(2,)", {0xff, 127}).to_vector<std::int64_t>() == Ints{255, 127});
  CHECK(f.value("<i2", "(1,)", {0xfe, 0xff}).to_vector<std::int64_t>() == Ints{-2});
  CHECK(f.value("<u2", "(1,)", {0xfe, 0xff}).to_vector<std::int64_t>() == Ints{65534});
  CHECK(f.value("<i4", "()", {0, 0, 0, 0x80}).to_vector<std::int64_t>() == Ints{-0x80000000LL});
  CHECK(f.value("<u4", "(1,)", {0, 0, 0, 0x80}).to_vector<std::int64_t>() == Ints{0x80000000LL});
  CHECK(f.value("<u8", "(1L,)", {5, 0, 0, 0, 0, 0, 0, 0}).to_vector<std::int64_t>() == Ints{5});
  CHECK(f.value("=i8", "(1,)", Bytes(8, 0xff)).to_vector<std::int64_t>() == Ints{-1});
  CHECK(f.value("|b1", "(2,)", {0, 1}).to_vector<bool>() == std::vector<bool>{false, true});
  CHECK(f.value(">i4", "(2,)", {0, 0, 1, 2, 0xff, 0xff, 0xff, 0xfe}).to_vector<std::int64_t>() ==
        Ints{258, -2});
  CHECK(f.value(">f8", "(1,)", {0x3f, 0xf8, 0, 0, 0, 0, 0, 0}).item() == 1.5);
  for (const std::uint8_t version : {1, 2, 3})
    CHECK(f.value(npy(header("<f8", "(2,)"), raw<double>({1, 2}), version)).to_vector<double>() ==
          Doubles{1, 2});
  // Any order of the keys, other quotes, no comma at the end.
  CHECK(f.value(npy("{\"shape\":(1,2),'fortran_order':False,'descr':'<f8'}", raw<double>({1, 2})))
            .shape() == Shape{1, 2});
  const Tensor x = f.value(npy(header("<f8", "(2, 3)", true), raw<double>({0, 3, 1, 4, 2, 5})));
  CHECK(x.shape() == Shape{2, 3});
  CHECK(x.is_contiguous());
  CHECK(x.to_vector<double>() == Doubles{0, 1, 2, 3, 4, 5});
}

TEST_CASE("NPY: every damage is named") {
  Files f;
  const Bytes good = npy(header("<f8", "(2,)"), raw<double>({1, 2}));
  CHECK(f.complaint(good).empty());
  for (std::size_t n = 0; n < good.size(); ++n) CHECK(!f.complaint(prefix(good, n)).empty());
  CHECK(contains(f.complaint({}), "must start with \\x93NUMPY and a version"));
  CHECK(contains(f.complaint(flipped(good, 3)), "must start with \\x93NUMPY"));
  CHECK(contains(f.complaint(flipped(good, 6)), "the version must be 1.0, 2.0 or 3.0; got 254.0"));
  CHECK(contains(f.complaint(flipped(good, 9)), "the header must end within"));
  Bytes surplus = good;
  surplus.push_back(0);
  CHECK(contains(f.complaint(surplus), "f8 of shape [2] takes 16 bytes; 17 follow the header"));
  const auto of = [&](const std::string& h) { return f.complaint(npy(h, {})); };
  CHECK(contains(of(header("<c8", "(0,)")), "'descr' of f2, f4, f8"));
  CHECK(contains(of(header("O", "(0,)")), "got 'O'"));
  CHECK(contains(of(header("", "(0,)")), "got ''"));
  CHECK(contains(of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0,)}"),
                 "no structures"));
  CHECK(contains(of("{'descr': '<f4', 'fortran_order': 0, 'shape': (0,)}"), "True or False"));
  CHECK(contains(of("{'descr': '<f4', 'shape': (0,)}"), "must have 'descr', 'fortran_order'"));
  CHECK(contains(of("{'descr': '<f4', 'descr': '<f4'}"), "each once"));
  CHECK(contains(of("{'other': '<f4'}"), "each once"));
  CHECK(contains(of(header("<f4", "(0,)") + "x"), "nothing may follow"));
  CHECK(contains(of("{'descr: 1"), "a text in quotes"));
  CHECK(contains(of("[]"), "must have a '{'"));
  CHECK(contains(of(header("<f4", "(-1,)")), "integers from 0"));
  CHECK(contains(of(header("<f4", "(2.0,)")), "must have a ')'"));
  CHECK(contains(of(header("<f4", "(99999999999999999999,)")), "integers from 0"));
  CHECK(contains(of(header("<f4", "(1,1,1,1,1,1,1,1,1)")), "at most 8 axes"));
  CHECK(contains(of(header("<f4", "(4294967296, 4294967296)")), "must not overflow"));
  CHECK(contains(of(header("<f4", "(0, 4294967296, 4294967296)")), "must not overflow"));
  CHECK(contains(of(header("<f8", "(1000000000000,)")), "takes 8000000000000 bytes; 0 follow"));
  CHECK(contains(f.complaint(npy(header("|b1", "(1,)"), {2})), "b1 elements must be 0 or 1"));
  CHECK(contains(f.complaint(npy(header("<u8", "(1,)"), Bytes(8, 0xff))), "below 2^63"));
  CHECK(!message_of<IoError>([] { load_npy("/no/such/file.npy"); }).empty());
}

TEST_CASE("NPZ: what is written comes back, and what NumPy deflates is read") {
  const TempDir dir;
  StateDict state;
  state.set("net.weight", from_vector<float>({1, -2, 0.5f, 3}, {2, 2}));
  state.set("flag", from_vector<bool>({true, false}));
  state.set("none", empty({0, 3}));
  save_npz(dir / "x.npz", state);
  const StateDict back = load_npz(dir / "x.npz");
  REQUIRE(back.size() == 3);
  for (const auto& [name, x] : state) {
    CHECK(back.at(name).dtype() == x.dtype());
    CHECK(back.at(name).shape() == x.shape());
    CHECK(back.at(name).to_vector<double>() == x.to_vector<double>());
  }
  // A flag says that a name is UTF-8: without it others read another one.
  StateDict size;
  size.set("größe", scalar(1));
  save_npz(dir / "x.npz", size);
  CHECK(load_npz(dir / "x.npz").contains("größe"));
  CHECK(read_bytes(dir / "x.npz")[7] == 8);
  save_npz(dir / "x.npz", {});
  CHECK(load_npz(dir / "x.npz").size() == 0);
  state.set("bad", Tensor());
  CHECK_THROWS_AS(save_npz(dir / "x.npz", state), ValueError);
  StateDict bell;
  bell.set("\a", scalar(1));
  CHECK_THROWS_AS(save_npz(dir / "x.npz", bell), ValueError);

  Bytes commented = kDeflated;
  commented[commented.size() - 2] = 3;
  append(commented, {'P', 'K', 5});
  for (const Bytes& bytes : {kDeflated, commented}) {
    write_bytes(dir / "d.npz", bytes);
    const StateDict d = load_npz(dir / "d.npz");
    REQUIRE(d.size() == 1);
    CHECK(d.at("a").shape() == Shape{50});
    CHECK(d.at("a").to_vector<std::int64_t>()[48] == 3);
  }
}

TEST_CASE("NPZ: every damage is named, and no promise is believed") {
  Files f;
  CHECK(f.complaint_npz(kDeflated).empty());
  const Tensor whole = f.read_npz().at("a");
  for (std::size_t n = 0; n < kDeflated.size(); n += 3)
    CHECK(contains(f.complaint_npz(prefix(kDeflated, n)), "the directory of a zip archive"));
  const auto with = [&](std::size_t at, const Bytes& values) {
    Bytes bytes = kDeflated;
    std::copy(values.begin(), values.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
    return f.complaint_npz(bytes);
  };
  CHECK(contains(with(60, {0, 0}), "the deflated data are damaged"));
  CHECK(contains(with(kDirectory, {0}), "directory is damaged"));
  CHECK(contains(with(kDirectory + 8, {1}), "encrypted"));
  CHECK(contains(with(kDirectory + 10, {12}), "stored or deflated"));
  CHECK(contains(with(kDirectory + 10, {0}), "sizes must fit each other"));
  CHECK(contains(with(kDirectory + 16, {0}), "checksum"));
  CHECK(contains(with(kDirectory + 46, {0x1b}), "'\\x1b.npy' must be UTF-8 without control"));
  CHECK(contains(with(kDirectory + 20, {0xff, 0xff}), "must not overlap"));
  CHECK(contains(with(kDirectory + 24, {0, 0, 0, 0x40}), "sizes must fit each other"));
  CHECK(contains(with(kDirectory + 24, {227}), "the deflated data are damaged"));
  CHECK(contains(with(kDirectory + 24, {229}), "the deflated data are damaged"));
  CHECK(contains(with(kDirectory + 24, Bytes(4, 0xff)), "zip64"));
  CHECK(contains(with(kDirectory + 28, {0xff}), "directory is damaged"));
  CHECK(contains(with(kDirectory + 42, {120}), "must lie before the directory"));
  CHECK(contains(with(kDirectory + 42, {5}), "must lie before the directory"));
  CHECK(contains(with(kEnd + 4, {1}), "volumes"));
  CHECK(contains(with(kEnd + 8, {2, 0, 2, 0}), "directory is damaged"));
  CHECK(contains(with(kEnd + 8, Bytes(4, 0xff)), "zip64"));
  CHECK(contains(with(kEnd + 16, {0, 1}), "within the file"));
  // Single flipped bits: an error or the same array, never a crash.
  for (std::size_t at = 0; at < kDeflated.size(); ++at)
    for (int bit = 0; bit < 8; bit += 3)
      if (f.complaint_npz(flipped(kDeflated, at, static_cast<std::uint8_t>(1 << bit))).empty()) {
        CAPTURE(at);
        const StateDict read = f.read_npz();
        REQUIRE(read.size() == 1);  // its name has no checksum
        CHECK(capsfw::testing::same_bits(read.begin()->second, whole));
      }
}
