#include "npy_format.hpp"

#include <array>
#include <charconv>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/text.hpp>

#include "elements.hpp"

namespace capsfw::detail {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::int64_t kMaxHeader = 1 << 20;
constexpr std::int64_t kBlock = std::int64_t{1} << 20;

/// Unsigned numbers above the largest i64 are bad.
std::int64_t decode_u64(const std::uint8_t* in, std::int64_t n, void* out) {
  decode<std::int64_t, std::int64_t>(in, n, out);
  const auto* v = static_cast<std::int64_t*>(out);
  return std::count_if(v, v + n, [](std::int64_t x) { return x < 0; });
}

struct FileType {
  std::string_view name;  // kind and width, as in descr
  std::int64_t width;
  DType dtype;
  Decode decode;
};

constexpr FileType kTypes[] = {
    {"f4", 4, DType::f32, decode<float, float>},
    {"f8", 8, DType::f64, decode<double, double>},
    {"i8", 8, DType::i64, decode<std::int64_t, std::int64_t>},
    {"b1", 1, DType::b8, decode_bool},
    {"f2", 2, DType::f32, decode<std::uint16_t, float, from_f16>},
    {"i4", 4, DType::i64, decode<std::int32_t, std::int64_t>},
    {"i2", 2, DType::i64, decode<std::int16_t, std::int64_t>},
    {"i1", 1, DType::i64, decode<std::int8_t, std::int64_t>},
    {"u8", 8, DType::i64, decode_u64},
    {"u4", 4, DType::i64, decode<std::uint32_t, std::int64_t>},
    {"u2", 2, DType::i64, decode<std::uint16_t, std::int64_t>},
    {"u1", 1, DType::i64, decode<std::uint8_t, std::int64_t>},
};

struct Header {
  const FileType* type = nullptr;
  bool big_endian = false, fortran = false;
  Shape shape;
};

/// The header is a Python literal: a dictionary of exactly three known keys.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

  Header parse() {
    Header h;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string_view key = string();
      expect(':');
      bool* seen = key == "descr" ? &descr : key == "fortran_order" ? &order : &shape;
      if ((seen == &shape && key != "shape") || *seen)
        fail("its keys must be 'descr', 'fortran_order' and 'shape', each once");
      *seen = true;
      if (seen == &descr)
        parse_type(h);
      else if (seen == &order)
        h.fortran = boolean();
      else
        h.shape = tuple();
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    if (!descr || !order || !shape) fail("must have 'descr', 'fortran_order' and 'shape'");
    skip();
    if (!rest_.empty()) fail("nothing may follow its dictionary");
    return h;
  }

 private:
  [[noreturn]] void fail(const std::string& rule) const {
    throw IoError(fmt::format("{}: the header {}", where_, rule));
  }
  void skip() {
    const std::size_t n = rest_.find_first_not_of(" \t\r\n");
    rest_.remove_prefix(std::min(n, rest_.size()));
  }
  bool take(char c) {
    skip();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(fmt::format("must have a '{}' {} bytes before its end", c, rest_.size()));
  }
  std::string_view string() {
    skip();
    const char quote = rest_.empty() ? ' ' : rest_.front();
    const std::size_t end = rest_.find(quote, 1);
    if ((quote != '\'' && quote != '"') || end == std::string_view::npos)
      fail(fmt::format("must have a text in quotes {} bytes before its end", rest_.size()));
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool boolean() {
    skip();
    for (const std::string_view word : {"True", "False"})
      if (rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return word == "True";
      }
    fail("must say 'fortran_order': True or False");
  }
  Shape tuple() {
    Shape shape;
    expect('(');
    while (!take(')')) {
      skip();
      std::int64_t n = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), n);
      if (error != std::errc() || n < 0) fail("must have a shape of integers from 0 to 2^63 - 1");
      if (shape.rank() == kMaxRank) fail(fmt::format("must have at most {} axes", kMaxRank));
      shape.push_back(n);
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      if (!rest_.empty() && rest_.front() == 'L') rest_.remove_prefix(1);  // long, of Python 2
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return shape;
  }
  void parse_type(Header& h) {
    skip();
    if (!rest_.empty() && rest_.front() == '[') fail("must describe plain numbers, no structures");
    const std::string_view descr = string();
    const char order = descr.empty() ? ' ' : descr.front();
    const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const FileType& t) {
      return t.name == descr.substr(std::min<std::size_t>(1, descr.size()));
    });
    if (known == std::end(kTypes) || std::string_view("<>|=").find(order) == std::string_view::npos)
      fail(
          fmt::format("must have a 'descr' of f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 or b1 "
                      "behind <, >, | or =; got '{}'",
                      shown(descr)));
    h.type = known;
    h.big_endian = order == '>';
  }

  std::string_view rest_;
  const std::string& where_;
};

void swap_bytes(std::vector<std::uint8_t>& bytes, std::int64_t width) {
  for (auto p = bytes.begin(); p != bytes.end(); p += width) std::reverse(p, p + width);
}

}  // namespace

Tensor parse_npy(const NpySource& source) {
  const auto fail = [&](const std::string& rule) {
    throw IoError(fmt::format("{}: {}", source.where, rule));
  };
  std::array<std::uint8_t, 12> start{};
  const std::size_t got = source.read(0, start.data(), start.size());
  if (got < 10 || !std::equal(kMagic.begin(), kMagic.end(), start.begin(),
                              [](char a, std::uint8_t b) { return std::uint8_t(a) == b; }))
    fail("must start with \\x93NUMPY and a version. Hint: is this an NPY file?");
  const int version = start[6];
  if (version < 1 || version > 3 || start[7] != 0)
    fail(fmt::format("the version must be 1.0, 2.0 or 3.0; got {}.{}", version, start[7]));
  const std::int64_t begin = version == 1 ? 10 : 12;
  std::int64_t length = start[8] | start[9] << 8;
  if (version > 1) length |= std::int64_t{start[10]} << 16 | std::int64_t{start[11]} << 24;
  if (length > std::min(kMaxHeader, source.size - begin))
    fail(fmt::format("the header must end within the {} bytes and have at most {}; {} are promised",
                     source.size, kMaxHeader, length));
  std::string text(static_cast<std::size_t>(length), '\0');
  if (source.read(begin, text.data(), text.size()) < text.size()) fail("it became shorter");
  const Header h = HeaderParser(text, source.where).parse();

  const std::int64_t width = h.type->width, data = begin + length, space = source.size - data;
  const auto expected = bytes_of_shape(h.shape, width);
  if (!expected) fail(fmt::format("the shape {} must not overflow", h.shape.str()));
  if (*expected != space)
    fail(fmt::format("{} of shape {} takes {} bytes; {} follow the header. Hint: is it complete?",
                     h.type->name, h.shape.str(), *expected, space));

  // In Fortran order the bytes are those of the transposed array in C order.
  Shape stored = h.shape;
  if (h.fortran) std::reverse(stored.begin(), stored.end());
  Tensor y = empty(stored, h.type->dtype);
  auto* out = visit_any(y.dtype(), [&]<class T>() -> void* { return y.mutable_data<T>(); });
  const auto step = static_cast<std::int64_t>(size_of(y.dtype()));
  std::vector<std::uint8_t> scratch;
  for (std::int64_t i = 0, n = y.numel(), block = kBlock / width; i < n; i += block) {
    const std::int64_t count = std::min(block, n - i);
    scratch.resize(static_cast<std::size_t>(count * width));
    if (source.read(data + i * width, scratch.data(), scratch.size()) < scratch.size())
      fail("it became shorter while it was read");
    if (h.big_endian) swap_bytes(scratch, width);
    if (h.type->decode(scratch.data(), count, static_cast<char*>(out) + i * step) != 0)
      fail(h.type->dtype == DType::b8 ? "b1 elements must be 0 or 1"
                                      : "u8 elements must be below 2^63");
  }
  if (!h.fortran) return y;
  Strides strides = contiguous_strides(stored);
  std::reverse(strides.begin(), strides.end());
  return contiguous_data(strided_view(y, h.shape, strides, 0));
}

std::string npy_header(const Tensor& x) {
  constexpr std::string_view names[] = {"<f4", "<f8", "<i8", "|b1"};  // in the order of DType
  const Shape& shape = x.shape();
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                  names[static_cast<std::size_t>(x.dtype())],
                  fmt::join(shape.begin(), shape.end(), ", "), shape.rank() == 1 ? "," : "");
  // Elements start at a multiple of 64, as NumPy has it, so that the file can be mapped.
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  text += '\n';
  return std::string(kMagic) + '\x01' + '\0' + static_cast<char>(text.size() & 255) +
         static_cast<char>(text.size() >> 8) + text;
}

}  // namespace capsfw::detail
