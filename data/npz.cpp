// Zip archives of NPY files. Reading goes by the directory at the end of the archive, as the format
// has it; what local headers say of sizes is not looked at.

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <zlib.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/text.hpp>

#include "detail/npy_format.hpp"

namespace capsfw {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr std::int64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22;
constexpr std::int64_t kLargest = 0xffffffff;  // stands for "see the zip64 record"
constexpr std::int64_t kMaxUnpacked = std::int64_t{1} << 32;
constexpr std::string_view kSuffix = ".npy";

std::int64_t number(const std::uint8_t* p, int bytes) {
  std::int64_t v = 0;
  for (int i = bytes; i-- > 0;) v = v << 8 | p[i];
  return v;
}

struct Member {
  std::string name;
  std::int64_t flags = 0, method = 0, crc = 0, packed = 0, size = 0, local = 0;
};

class ZipReader {
 public:
  explicit ZipReader(const std::filesystem::path& path) : file_(path) {}

  std::vector<Member> directory() {
    const std::int64_t tail = std::min<std::int64_t>(file_.size(), kEndSize + 0xffff);
    const Bytes end = bytes(file_.size() - tail, tail);
    std::int64_t at = tail - kEndSize;
    // The last record may have a comment behind it, which must end with the file.
    while (at >= 0 && (number(&end[std::size_t(at)], 4) != kEnd ||
                       at + kEndSize + number(&end[std::size_t(at) + 20], 2) != tail))
      --at;
    if (at < 0) fail("must end with the directory of a zip archive. Hint: is it complete?");
    const std::uint8_t* e = &end[std::size_t(at)];
    const std::int64_t count = number(e + 10, 2), size = number(e + 12, 4),
                       start = number(e + 16, 4);
    if (number(e + 4, 2) != 0 || number(e + 8, 2) != count) fail("must not be split into volumes");
    if (count == 0xffff || size == kLargest || start == kLargest) fail("must not be in zip64 form");
    directory_ = start;
    if (start + size > file_.size() - tail + at) fail("its directory must lie within the file");
    const Bytes all = bytes(start, size);
    std::vector<Member> out;
    std::int64_t p = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint8_t* d = all.data() + p;
      if (p + kCentralSize > size || number(d, 4) != kCentral) fail("its directory is damaged");
      const std::int64_t name = number(d + 28, 2),
                         length = kCentralSize + name + number(d + 30, 2) + number(d + 32, 2);
      if (p + length > size) fail("its directory is damaged");
      out.push_back({std::string(reinterpret_cast<const char*>(d) + kCentralSize,
                                 static_cast<std::size_t>(name)),
                     number(d + 8, 2), number(d + 10, 2), number(d + 16, 4), number(d + 20, 4),
                     number(d + 24, 4), number(d + 42, 4)});
      p += length;
    }
    std::int64_t packed = 0, unpacked = 0;
    for (const Member& m : out) {
      packed += m.packed;
      unpacked += m.size;
      if (!is_printable(m.name))
        fail(fmt::format("the name '{}' must be UTF-8 without control characters", shown(m.name)));
    }
    if (packed > directory_) fail("its members must not overlap");
    if (unpacked > kMaxUnpacked)
      fail(fmt::format("its arrays must fit into {} bytes; they promise {}", kMaxUnpacked,
                       unpacked));
    return out;
  }

  Tensor array(const Member& m) {
    const std::string where =
        fmt::format("load_npz: '{}': '{}'", file_.path().string(), shown(m.name));
    const auto refuse = [&](const char* rule) {
      throw IoError(fmt::format("{}: {}", where, rule));
    };
    if ((m.flags & 1) != 0) refuse("must not be encrypted");
    if (m.method != 0 && m.method != 8) refuse("must be stored or deflated");
    if (m.packed == kLargest || m.size == kLargest || m.local == kLargest)
      refuse("must not be in zip64 form");
    // Deflate packs at most 1032 to 1: a larger promise is false, and must not be allocated.
    if (m.method == 0 ? m.size != m.packed : m.size / 1032 > m.packed)
      refuse("its sizes must fit each other");
    if (m.local + kLocalSize > directory_) refuse("must lie before the directory");
    const Bytes local = bytes(m.local, kLocalSize);
    const std::int64_t data = m.local + kLocalSize + number(&local[26], 2) + number(&local[28], 2);
    if (number(local.data(), 4) != kLocal || data + m.packed > directory_)
      refuse("must lie before the directory");
    Bytes content = bytes(data, m.packed);
    if (m.method == 8) content = unpack(content, m.size, where);
    if (crc32_z(0, content.data(), content.size()) != static_cast<uLong>(m.crc))
      refuse("its checksum is wrong");
    return detail::parse_npy({where, m.size, [&](std::int64_t offset, void* out, std::size_t n) {
                                const auto from =
                                    static_cast<std::size_t>(std::min(offset, m.size));
                                n = std::min(n, content.size() - from);
                                if (n > 0) std::memcpy(out, content.data() + from, n);
                                return n;
                              }});
  }

  [[noreturn]] void fail(const std::string& rule) const {
    throw IoError(fmt::format("load_npz: '{}': {}", file_.path().string(), rule));
  }

 private:
  Bytes bytes(std::int64_t offset, std::int64_t count) {
    Bytes out(static_cast<std::size_t>(count));
    if (file_.read(offset, out.data(), out.size()) < out.size()) fail("it became shorter");
    return out;
  }

  static Bytes unpack(Bytes& packed, std::int64_t size, const std::string& where) {
    Bytes out(static_cast<std::size_t>(size) + 1);  // one more, so that a surplus shows
    z_stream stream{};
    if (inflateInit2(&stream, -15) != Z_OK) throw std::bad_alloc();  // raw deflate, no header
    stream.next_in = packed.data();
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    const int rc = inflate(&stream, Z_FINISH);
    const bool good =
        rc == Z_STREAM_END && stream.total_out == static_cast<uLong>(size) && stream.avail_in == 0;
    inflateEnd(&stream);
    if (!good) throw IoError(fmt::format("{}: the deflated data are damaged", where));
    out.resize(static_cast<std::size_t>(size));
    return out;
  }

  InputFile file_;
  std::int64_t directory_ = 0;
};

/// Little-endian numbers one after another.
class Record {
 public:
  Record& put(std::int64_t v, int bytes) {
    for (; bytes > 0; --bytes, v >>= 8) text_ += static_cast<char>(v & 255);
    return *this;
  }
  Record& text(std::string_view s) {
    text_ += s;
    return *this;
  }
  const std::string& str() const { return text_; }

 private:
  std::string text_;
};

/// What local header and directory have in common: version 2.0, stored, 1 January 1980; a flag for
/// names in UTF-8, which others take for those of code page 437.
void put_common(Record& r, std::uint32_t crc, std::int64_t size, const std::string& name) {
  const bool ascii = std::all_of(name.begin(), name.end(), [](char c) { return c >= 0; });
  r.put(20, 2)
      .put(ascii ? 0 : 0x800, 2)
      .put(0, 2)
      .put(0, 2)
      .put(0x21, 2)
      .put(crc, 4)
      .put(size, 4)
      .put(size, 4);
  r.put(static_cast<std::int64_t>(name.size()), 2).put(0, 2);
}

}  // namespace

StateDict load_npz(const std::filesystem::path& path) {
  ZipReader zip(path);
  StateDict out;
  for (const Member& m : zip.directory()) {
    std::string name = m.name;
    if (name.ends_with(kSuffix)) name.resize(name.size() - kSuffix.size());
    if (out.contains(name)) zip.fail(fmt::format("the name '{}' must occur once", shown(name)));
    out.set(name, zip.array(m));
  }
  return out;
}

void save_npz(const std::filesystem::path& path, const StateDict& arrays) {
  const auto check = [](bool ok, const std::string& rule) {
    if (!ok) throw ValueError("save_npz: " + rule);
  };
  std::int64_t total = kEndSize;
  for (const auto& [name, x] : arrays) {
    check(x.defined(), fmt::format("'{}': the tensor must be defined", name));
    check(!name.empty() && name.size() < 60000 && is_printable(name),
          "a name must have 1 to 60,000 bytes of UTF-8 without control characters");
    total += kLocalSize + kCentralSize + 2 * static_cast<std::int64_t>(name.size() + 4) + 512 +
             x.numel() * static_cast<std::int64_t>(size_of(x.dtype()));
    check(total < kLargest && arrays.size() < 0xffff, "a file must stay below 4 GiB");
  }
  AtomicFile file(path);
  Record directory;
  std::int64_t at = 0;
  const auto write = [&](const void* data, std::size_t bytes) {
    file.write(data, bytes);
    at += static_cast<std::int64_t>(bytes);
  };
  for (const auto& [key, x] : arrays) {
    const std::string name = key + std::string(kSuffix), header = detail::npy_header(x);
    const Tensor c = contiguous_data(x);
    visit_any(c.dtype(), [&]<class T>() {
      const std::size_t bytes = static_cast<std::size_t>(c.numel()) * sizeof(T);
      uLong crc = crc32_z(0, reinterpret_cast<const Bytef*>(header.data()), header.size());
      if (bytes > 0) crc = crc32_z(crc, reinterpret_cast<const Bytef*>(c.data<T>()), bytes);
      const auto size = static_cast<std::int64_t>(header.size() + bytes);
      directory.put(kCentral, 4).put(20, 2);
      put_common(directory, static_cast<std::uint32_t>(crc), size, name);
      directory.put(0, 2).put(0, 2).put(0, 2).put(0, 4).put(at, 4).text(name);
      Record local;
      local.put(kLocal, 4);
      put_common(local, static_cast<std::uint32_t>(crc), size, name);
      local.text(name);
      write(local.str().data(), local.str().size());
      write(header.data(), header.size());
      write(c.data<T>(), bytes);
    });
  }
  const auto count = static_cast<std::int64_t>(arrays.size()),
             length = static_cast<std::int64_t>(directory.str().size());
  Record end;
  end.put(kEnd, 4).put(0, 2).put(0, 2).put(count, 2).put(count, 2).put(length, 4).put(at, 4);
  end.put(0, 2);
  file.write(directory.str().data(), directory.str().size());
  file.write(end.str().data(), end.str().size());
  file.commit();
}

}  // namespace capsfw
