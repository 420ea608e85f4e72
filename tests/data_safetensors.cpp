#include <cmath>
#include <limits>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

/// A file with this header, which is not padded, and `data`.
Bytes file_of(const std::string& header, const Bytes& data) {
  Bytes out = little32(static_cast<std::uint32_t>(header.size()));
  append(out, {0, 0, 0, 0});
  out.insert(out.end(), header.begin(), header.end());
  append(out, data);
  return out;
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"x":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

class Files {
 public:
  Tensor value(const std::string& dtype, const std::string& shape, const Bytes& data) {
    const std::string end = std::to_string(data.size());
    write_bytes(path_, file_of(one(dtype, shape, "[0," + end + "]"), data));
    return load_safetensors(path_).state.at("x");
  }
  /// The complaint about a file; empty if there is none.
  std::string complaint(const Bytes& file) {
    write_bytes(path_, file);
    const std::string message = message_of<IoError>([&] { load_safetensors(path_); });
    CHECK((message.empty() || contains(message, path_.string())));
    return message;
  }

 private:
  TempDir dir_;
  std::filesystem::path path_ = dir_ / "x.safetensors";
};

StateDict sample() {
  StateDict state;
  state.set("flag", from_vector<bool>({true, false, true}));
  state.set("net.weight", from_vector<float>({1, -2, 0.5f, 1e-30f, 3, 4}, {2, 3}));
  state.set("count", scalar(-5, DType::i64));
  state.set("none", empty({0, 3}));
  state.set("wide", from_vector<double>({1.0 / 3, -1e300}));
  return state;
}

void check_equal(const StateDict& a, const StateDict& b) {
  REQUIRE(a.size() == b.size());
  auto y = b.begin();
  for (const auto& [name, x] : a) {
    CHECK(name == y->first);
    CHECK(x.dtype() == y->second.dtype());
    CHECK(x.shape() == y->second.shape());
    CHECK(x.to_vector<double>() == y->second.to_vector<double>());
    ++y;
  }
}

}  // namespace

TEST_CASE("safetensors: what is written comes back, in order, with its metadata") {
  const TempDir dir;
  const Metadata metadata{{"arch", "compact"}, {"note", "quotes \" and \\, ü, \n"}};
  save_safetensors(dir / "a", sample(), metadata);
  const SafetensorsFile file = load_safetensors(dir / "a");
  check_equal(sample(), file.state);
  CHECK(file.metadata == metadata);
  CHECK(dir.names() == std::vector<std::string>{"a"});
}

TEST_CASE("safetensors: an empty state is a valid file") {
  const TempDir dir;
  save_safetensors(dir / "a", {});
  CHECK(load_safetensors(dir / "a").state.size() == 0);
}

TEST_CASE("safetensors: the bytes of a small file") {
  const TempDir dir;
  StateDict state;
  state.set("x", from_vector<float>({1, -2}));
  save_safetensors(dir / "a", state);
  std::string header = one("F32", "[2]", "[0,8]");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(read_bytes(dir / "a") == file_of(header, {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}));
}

TEST_CASE("safetensors: views are written in row-major order, wide types aligned") {
  const TempDir dir;
  StateDict state;
  state.set("flag", from_vector<bool>({true}));
  const Tensor x = from_vector<double>({0, 1, 2, 3, 4, 5}, {2, 3});
  state.set("transposed", strided_view(x, {3, 2}, {1, 3}, 0));
  save_safetensors(dir / "a", state);
  CHECK(load_safetensors(dir / "a").state.at("transposed").to_vector<double>() ==
        std::vector<double>{0, 3, 1, 4, 2, 5});
  CHECK(contains({reinterpret_cast<const char*>(read_bytes(dir / "a").data()), 80},
                 R"("flag":{"dtype":"BOOL","shape":[1],"data_offsets":[48,49]})"));
}

TEST_CASE("safetensors: every element type that is read") {
  Files files;
  const auto ints = [&](const std::string& type, const Bytes& data, const std::string& shape) {
    const Tensor x = files.value(type, shape, data);
    CHECK(x.dtype() == DType::i64);
    return x.to_vector<std::int64_t>();
  };
  using Ints = std::vector<std::int64_t>;
  CHECK(ints("U8", {0, 255}, "[2]") == Ints{0, 255});
  CHECK(ints("I8", {0xff, 127}, "[2]") == Ints{-1, 127});
  CHECK(ints("U16", {1, 0x80}, "[1]") == Ints{0x8001});
  CHECK(ints("I16", {0xfe, 0xff}, "[1]") == Ints{-2});
  CHECK(ints("U32", {0, 0, 0, 0x80}, "[1]") == Ints{0x80000000});
  CHECK(ints("I32", {0, 0, 0, 0x80}, "[]") == Ints{-0x80000000LL});
  CHECK(ints("I64", Bytes(8, 0xff), "[1]") == Ints{-1});
  CHECK(files.value("BOOL", "[2]", {0, 1}).to_vector<bool>() == std::vector<bool>{false, true});
  const Tensor bf = files.value("BF16", "[2]", {0xc0, 0x3f, 0x80, 0xff});
  CHECK(bf.dtype() == DType::f32);
  CHECK(bf.to_vector<float>() == std::vector<float>{1.5f, -std::numeric_limits<float>::infinity()});
}

TEST_CASE("safetensors: F16 over its whole range") {
  Files files;
  Bytes all;
  for (int h = 0; h < 65536; ++h) {
    all.push_back(static_cast<std::uint8_t>(h));
    all.push_back(static_cast<std::uint8_t>(h >> 8));
  }
  const auto v = files.value("F16", "[65536]", all).to_vector<float>();
  int wrong = 0;
  for (int h = 0; h < 65536; ++h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    double expected =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31)
      expected = mantissa != 0 ? std::nan("") : std::numeric_limits<double>::infinity();
    const float got = v[static_cast<std::size_t>(h)];
    const bool sign = std::signbit(got) == (h >= 32768);
    const bool same = std::isnan(expected) ? std::isnan(got) : std::abs(got) == expected;
    wrong += !sign || !same;
  }
  CHECK(wrong == 0);
}

TEST_CASE("safetensors: every truncation and every surplus byte is an error") {
  const TempDir dir;
  save_safetensors(dir / "a", sample(), {{"k", "v"}});
  const Bytes whole = read_bytes(dir / "a");
  Files files;
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    CHECK_FALSE(files.complaint(prefix(whole, n)).empty());
  }
  Bytes longer = whole;
  longer.push_back(0);
  CHECK(contains(files.complaint(longer), "1 of "));
  CHECK(files.complaint(whole).empty());
}

TEST_CASE("safetensors: flipped bits give an error or a readable file, never a crash") {
  const TempDir dir;
  save_safetensors(dir / "a", sample(), {{"k", "v"}});
  const Bytes whole = read_bytes(dir / "a");
  Files files;
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      const std::string message =
          files.complaint(flipped(whole, at, static_cast<std::uint8_t>(1 << bit)));
      if (at < 8) CHECK_FALSE(message.empty());
      refused += !message.empty();
    }
  CHECK(refused > 1000);
}

TEST_CASE("safetensors: a header length beyond the file, and one that wraps") {
  Files files;
  CHECK(contains(files.complaint({}), "at least 8 bytes; got 0"));
  for (std::size_t high : {3, 7}) {
    Bytes file = file_of(one("F32", "[]", "[0,4]"), Bytes(4));
    file[high] = 0xff;
    CHECK(contains(files.complaint(file), "must end within the file"));
  }
}

TEST_CASE("safetensors: malformed headers") {
  Files files;
  const auto bad = [&](const std::string& header, const std::string& part) {
    const std::string message = files.complaint(file_of(header, Bytes(8)));
    CAPTURE(header);
    CAPTURE(message);
    CHECK(contains(message, part));
  };
  bad("", "must be JSON");
  bad("{", "must be JSON");
  bad("{} x", "must be JSON");
  bad("[]", "must be a JSON object");
  bad("3", "must be a JSON object");
  bad("{\"\xff\":1}", "must be JSON");
  bad(std::string(100000, '['), "must be a JSON object");
  bad(R"({"x":{"shape":)" + std::string(100000, '['), "must not nest deeper");
  bad(R"({"x":)" + std::string(100000, '{'), "must be JSON");
  bad(R"({"x":1})", "tensor 'x': must be described by an object");
  bad(R"({"x":{}})", "dtype must be a string");
  bad(R"({"x":{"dtype":3}})", "dtype must be a string");
  bad(R"({"x":[1]})", "tensor 'x': must be described by an object");
  bad(R"({"__metadata__":3})", "__metadata__ must be an object");
  bad(R"({"__metadata__":[]})", "__metadata__ must be an object");
  bad(R"({"__metadata__":{"a":3}})", "must hold strings");
  const std::string x = R"("x":{"dtype":"F32","shape":[],"data_offsets":[0,4]})";
  bad("{" + x + "," + x + "}", "names must not repeat; got 'x' twice");
  bad(R"({"x":{"dtype":"F32","dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
      "names must not repeat; got 'dtype'");
  bad(R"({"\u001b[2J":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      R"(tensor '\x1b[2J': names must not have control characters)");
  std::string zeros = "0", fields = R"("f0":0)";
  for (int i = 1; i <= 64; ++i) zeros += ",0", fields += fmt::format(R"(,"f{}":0)", i);
  bad(R"({"x":{"dtype":"F32","shape":[)" + zeros + "]}}", "lists must not be longer than 64");
  bad(R"({"x":{)" + fields + "}}", "must not have more than 64 fields");
}

TEST_CASE("safetensors: names with control characters are not written either") {
  const TempDir dir;
  for (const char* name : {"a\nb", "\x1b", "\x7f", "\xc2\x85", "\xff"}) {
    StateDict state;
    state.set(name, scalar(1));
    CHECK(contains(message_of<ValueError>([&] { save_safetensors(dir / "a", state); }),
                   "without control characters"));
  }
  CHECK(dir.names().empty());
}

TEST_CASE("safetensors: a long header takes memory for its tensors alone") {
  const TempDir dir;
  StateDict state;
  for (int i = 0; i < 20000; ++i) state.set(fmt::format("layers.{}.weight", i), empty({0, 3}));
  save_safetensors(dir / "a", state, {{"k", "v"}});
  const SafetensorsFile file = load_safetensors(dir / "a");
  check_equal(state, file.state);
  CHECK(file.metadata == Metadata{{"k", "v"}});
}

TEST_CASE("safetensors: bad types, shapes and offsets") {
  Files files;
  const auto bad = [&](const std::string& dtype, const std::string& shape,
                       const std::string& offsets, const std::string& part) {
    const std::string message = files.complaint(file_of(one(dtype, shape, offsets), Bytes(8)));
    CAPTURE(shape);
    CAPTURE(offsets);
    CAPTURE(message);
    CHECK(contains(message, "tensor 'x'"));
    CHECK(contains(message, part));
  };
  CHECK(files.complaint(file_of(one("F32", "[2]", "[0,8]"), Bytes(8))).empty());
  bad("F8_E4M3", "[8]", "[0,8]", "dtype must be one of F32, F64");
  bad("f32", "[2]", "[0,8]", "got 'f32'");
  bad("F32", "2", "[0,8]", "shape must be a list");
  bad("F32", "[-2]", "[0,8]", "shape must be a list");
  bad("F32", "[2.0]", "[0,8]", "shape must be a list");
  bad("F32", "[\"2\"]", "[0,8]", "shape must be a list");
  bad("F32", "[9223372036854775808]", "[0,8]", "shape must be a list");
  bad("F32", "[99999999999999999999999]", "[0,8]", "shape must be a list");
  bad("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]", "at most 8 axes; got 9");
  bad("F32", "[4294967296,4294967296]", "[0,8]", "must not overflow");
  bad("F32", "[9223372036854775807,9223372036854775807,0]", "[0,0]", "must not overflow");
  bad("F32", "[3]", "[0,8]", "takes 12 bytes; data_offsets give 8");
  bad("F64", "[2]", "[0,8]", "takes 16 bytes");
  bad("F32", "[2]", "[0]", "two numbers");
  bad("F32", "[2]", "[0,8,9]", "two numbers");
  bad("F32", "[2]", "[-8,0]", "data_offsets must be a list");
  bad("F32", "[2]", "[8,0]", "0 <= begin <= end <= 8");
  bad("F32", "[2]", "[8,16]", "0 <= begin <= end <= 8");
  bad("F32", "[1]", "[4,8]", "nor leave holes");
  bad("F32", "[2]", "[0,18446744073709551615]", "data_offsets must be a list");
  CHECK(contains(files.complaint(file_of(one("F32", "[1]", "[0,4]"), Bytes(8))), "4 of 8 bytes"));
  CHECK(contains(files.complaint(file_of(one("BOOL", "[2]", "[0,2]"), {1, 2})), "must be 0 or 1"));
  const std::string two = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                          R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  CHECK(contains(files.complaint(file_of(two, Bytes(8))), "tensor 'b': data must neither overlap"));
}

TEST_CASE("safetensors: what cannot be written is refused before a file appears") {
  const TempDir dir;
  StateDict undefined, reserved, no_text;
  undefined.set("x", Tensor());
  reserved.set("__metadata__", scalar(1));
  no_text.set("\xff", scalar(1));
  for (const StateDict& state : {undefined, reserved, no_text})
    CHECK_THROWS_AS(save_safetensors(dir / "a", state), ValueError);
  CHECK_THROWS_AS(save_safetensors(dir / "a", {}, {{"k", "\xff"}}), ValueError);
  CHECK(dir.names().empty());
}

TEST_CASE("safetensors: a failed save leaves the old file and no other") {
  const TempDir dir;
  write_bytes(dir / "file", {1});
  CHECK(contains(message_of<IoError>([&] { save_safetensors(dir / "file/a", sample()); }),
                 "cannot be created"));
  CHECK(contains(message_of<IoError>([&] { save_safetensors(dir / "none/a", sample()); }),
                 "No such file"));
  std::filesystem::create_directory(dir / "folder");
  CHECK(contains(message_of<IoError>([&] { save_safetensors(dir / "folder", sample()); }),
                 "not a regular file"));
  CHECK_THROWS_AS(save_safetensors("/dev/null", sample()), IoError);
  CHECK(read_bytes(dir / "file") == Bytes{1});
  CHECK(dir.names().size() == 2);
  save_safetensors(dir / "file", sample());
  check_equal(sample(), load_safetensors(dir / "file").state);
}
