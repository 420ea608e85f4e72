#include <capsfw/data/small_norb.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/resolve.hpp>

#include "detail/byte_source.hpp"

namespace capsfw {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 32;

[[noreturn]] void fail(const fs::path& path, const std::string& rule) {
  throw IoError(fmt::format("read_norb_matrix: '{}': {}", path.string(), rule));
}

std::int64_t width(std::uint32_t magic) {
  switch (static_cast<NorbType>(magic)) {
    case NorbType::u8:
      return 1;
    case NorbType::i16:
      return 2;
    case NorbType::i32:
    case NorbType::f32:
      return 4;
    case NorbType::f64:
      return 8;
  }
  return 0;
}

/// 32-bit numbers of a file of either byte order.
class Header {
 public:
  Header(detail::ByteSource& source, const fs::path& path) : source_(source), path_(path) {}

  std::uint32_t next(const char* what) {
    std::array<std::uint8_t, 4> b{};
    if (source_.read(b.data(), 4) < 4) fail(path_, fmt::format("ends within {}", what));
    if (swapped_) std::reverse(b.begin(), b.end());
    return b[0] | std::uint32_t{b[1]} << 8 | std::uint32_t{b[2]} << 16 | std::uint32_t{b[3]} << 24;
  }
  std::uint32_t magic() {
    const std::uint32_t value = next("the magic number"), other = __builtin_bswap32(value);
    swapped_ = width(value) == 0 && width(other) > 0;
    if (width(value) == 0 && !swapped_)
      fail(path_,
           fmt::format("the magic number must be 0x1E3D4C51, 53, 54, 55 or 56; got {:#010x}. "
                       "Hint: is this a file of smallNORB?",
                       value));
    return swapped_ ? other : value;
  }
  bool swapped() const { return swapped_; }

 private:
  detail::ByteSource& source_;
  const fs::path& path_;
  bool swapped_ = false;
};

const char* name_of(NorbType type) {
  switch (type) {
    case NorbType::f32:
      return "f32";
    case NorbType::f64:
      return "f64";
    case NorbType::i32:
      return "i32";
    case NorbType::i16:
      return "i16";
    case NorbType::u8:
      break;
  }
  return "u8";
}

/// A matrix of a type and rank that must be.
NorbMatrix read_as(const fs::path& path, NorbType type, int rank, const char* layout) {
  NorbMatrix m = read_norb_matrix(path);
  if (m.type != type || m.shape.rank() != rank || m.shape.numel() == 0)
    fail(path, fmt::format("must be {} {}, not empty; got {} {}", name_of(type), layout,
                           name_of(m.type), m.shape.str()));
  return m;
}

std::int64_t integer(const NorbMatrix& m, std::int64_t i) {
  std::int32_t v = 0;
  std::memcpy(&v, m.bytes.data() + i * 4, 4);
  return v;
}

Viewpoint viewpoint(const NorbMatrix& info, std::int64_t i, const fs::path& path) {
  constexpr std::int64_t kLast[] = {9, 8, 34, 5};
  constexpr const char* kNames[] = {"instance", "elevation", "azimuth", "lighting"};
  std::array<int, 4> v{};
  for (std::int64_t k = 0; k < 4; ++k) {
    const std::int64_t value = integer(info, 4 * i + k);
    const auto at = static_cast<std::size_t>(k);
    if (value < 0 || value > kLast[at])
      fail(path, fmt::format("{} must lie in 0..{}; got {} for image {}", kNames[at], kLast[at],
                             value, i));
    v[at] = static_cast<int>(value);
  }
  return {v[0], 30 + 5 * v[1], 10 * v[2], v[3]};
}

}  // namespace

NorbMatrix read_norb_matrix(const fs::path& path) {
  detail::ByteSource source("read_norb_matrix", path);
  Header header(source, path);
  NorbMatrix m;
  m.type = static_cast<NorbType>(header.magic());
  std::int64_t bytes = width(static_cast<std::uint32_t>(m.type));
  const auto element = static_cast<std::ptrdiff_t>(bytes);
  const auto rank = static_cast<std::int32_t>(header.next("the rank"));
  if (rank < 0 || rank > kMaxRank)
    fail(path, fmt::format("the rank must lie in 0..{}; got {}", kMaxRank, rank));
  bool none = false;
  for (std::int32_t axis = 0; axis < std::max(rank, 3); ++axis) {
    const auto n = static_cast<std::int32_t>(header.next("the lengths"));
    if (axis >= rank) continue;  // fills up to three
    if (n < 0) fail(path, fmt::format("lengths must not be negative; got {}", n));
    m.shape.push_back(n);
    none = none || n == 0;
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(n, 1), &bytes) || bytes > kMaxBytes)
      fail(path, fmt::format("the elements must fit into {} bytes; got lengths {}", kMaxBytes,
                             m.shape.str()));
  }
  const auto expected = none ? 0 : static_cast<std::size_t>(bytes);
  if (const std::size_t got = source.append(m.bytes, expected); got < expected)
    fail(path, fmt::format("{} bytes must follow the header with lengths {}; got {}", expected,
                           m.shape.str(), got));
  if (!source.at_end())
    fail(path, fmt::format("nothing may follow the {} bytes of the elements {}; got more", expected,
                           m.shape.str()));
  if (header.swapped() != (std::endian::native == std::endian::big) && element > 1)
    for (auto p = m.bytes.begin(); p != m.bytes.end(); p += element) std::reverse(p, p + element);
  return m;
}

SmallNorb load_norb_files(const fs::path& dat,
                          const fs::path& cat,
                          const fs::path& info,
                          Cameras cameras) {
  NorbMatrix x = read_as(dat, NorbType::u8, 4, "[N, 2, H, W]");
  const NorbMatrix y = read_as(cat, NorbType::i32, 1, "[N]");
  const NorbMatrix v = read_as(info, NorbType::i32, 2, "[N, 4]");
  const std::int64_t n = x.shape[0], height = x.shape[2], columns = x.shape[3];
  if (x.shape[1] != 2 || v.shape[1] != 4)
    fail(x.shape[1] != 2 ? dat : info,
         fmt::format("must hold two images, or four numbers, for each pair; got {}",
                     (x.shape[1] != 2 ? x : v).shape.str()));
  if (y.shape[0] != n || v.shape[0] != n)
    fail(dat, fmt::format("dat, cat and info must have equal counts; got {}, {} and {}", n,
                          y.shape[0], v.shape[0]));
  const std::vector<std::string> names{"animal", "human", "airplane", "truck", "car"};
  SmallNorb out;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    labels.push_back(integer(y, i));
    if (labels.back() < 0 || labels.back() > 4)
      fail(cat, fmt::format("categories must lie in 0..4; got {} for image {}", labels.back(), i));
    out.views.push_back(viewpoint(v, i, info));
  }
  const bool both = cameras == Cameras::both;
  if (!both) {  // in place: image i moves from 2 i or 2 i + 1 to i
    const std::int64_t area = height * columns, second = cameras == Cameras::right ? 1 : 0;
    for (std::int64_t i = 0; i < n; ++i)
      std::memmove(x.bytes.data() + i * area, x.bytes.data() + (2 * i + second) * area,
                   static_cast<std::size_t>(area));
    x.bytes.resize(static_cast<std::size_t>(n * area));
  }
  out.images =
      ImageSet({both ? 2 : 1, height, columns}, std::move(x.bytes), std::move(labels), names);
  return out;
}

SmallNorb load_small_norb(Split split, Cameras cameras) {
  const auto file = [](bool train, const char* what) {
    return fmt::format("smallnorb-5x{}x9x18x6x2x96x96-{}-{}.mat", train ? "46789" : "01235",
                       train ? "training" : "testing", what);
  };
  std::vector<std::string> all;
  for (const bool train : {true, false})
    for (const char* what : {"dat", "cat", "info"}) all.push_back(file(train, what));
  const auto folder = resolve_dataset("smallnorb", all);
  const std::size_t first = split == Split::train ? 0 : 3;
  return load_norb_files(find_file(folder, all[first]), find_file(folder, all[first + 1]),
                         find_file(folder, all[first + 2]), cameras);
}

ViewpointSplit novel_viewpoints(const SmallNorb& train,
                                const SmallNorb& test,
                                NovelViewpoints kind) {
  const auto trained_on = [kind](const Viewpoint& v) {
    return kind == NovelViewpoints::elevation ? v.elevation <= 40
                                              : v.azimuth <= 40 || v.azimuth >= 300;
  };
  const auto part = [&](const SmallNorb& set, bool familiar) {
    if (set.images.size() != static_cast<std::int64_t>(set.views.size()))
      throw ValueError(fmt::format("novel_viewpoints: a viewpoint for each image; got {} for {}",
                                   set.views.size(), set.images.size()));
    std::vector<std::int64_t> positions;
    for (std::size_t i = 0; i < set.views.size(); ++i)
      if (trained_on(set.views[i]) == familiar) positions.push_back(static_cast<std::int64_t>(i));
    return set.images.subset(positions);
  };
  return {part(train, true), part(test, true), part(test, false)};
}

}  // namespace capsfw
