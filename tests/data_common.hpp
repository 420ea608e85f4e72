#pragma once
// Files for the tests of data/: a folder that vanishes, bytes, and small valid files to damage.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <capsfw/core/error.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/data/dataset.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/idx.hpp>
#include <capsfw/data/image.hpp>
#include <capsfw/data/loader.hpp>
#include <capsfw/data/resolve.hpp>
#include <capsfw/data/safetensors.hpp>

namespace data_test {

using Bytes = std::vector<std::uint8_t>;

/// A fresh folder, removed at the end of the test.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "capsfw-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  /// Names of all entries, hidden ones too.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      out.push_back(entry.path().filename().string());
    return out;
  }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

inline Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline Bytes prefix(const Bytes& bytes, std::size_t n) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)};
}

inline Bytes flipped(Bytes bytes, std::size_t at, std::uint8_t mask = 0xff) {
  bytes[at] ^= mask;
  return bytes;
}

inline void append(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }

inline Bytes big32(std::uint32_t v) {
  return {static_cast<std::uint8_t>(v >> 24), static_cast<std::uint8_t>(v >> 16),
          static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)};
}

inline Bytes little32(std::uint32_t v) {
  const Bytes b = big32(v);
  return {b[3], b[2], b[1], b[0]};
}

inline std::uint32_t crc(const Bytes& bytes) {
  std::uint32_t c = 0xffffffff;
  for (std::uint8_t b : bytes) {
    c ^= b;
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
  }
  return ~c;
}

/// A deflate stream that stores `bytes` (at most 65535) as they are.
inline Bytes stored(const Bytes& bytes) {
  const auto n = static_cast<std::uint16_t>(bytes.size()), m = static_cast<std::uint16_t>(~n);
  Bytes out{1, static_cast<std::uint8_t>(n), static_cast<std::uint8_t>(n >> 8),
            static_cast<std::uint8_t>(m), static_cast<std::uint8_t>(m >> 8)};
  append(out, bytes);
  return out;
}

inline Bytes gzip(const Bytes& bytes) {
  Bytes out{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
  append(out, stored(bytes));
  append(out, little32(crc(bytes)));
  append(out, little32(static_cast<std::uint32_t>(bytes.size())));
  return out;
}

inline Bytes idx(std::uint8_t type, const std::vector<std::uint32_t>& lengths, const Bytes& data) {
  Bytes out{0, 0, type, static_cast<std::uint8_t>(lengths.size())};
  for (std::uint32_t n : lengths) append(out, big32(n));
  append(out, data);
  return out;
}

/// A PNG of 8 bits per value; colour type 0 grey, 2 colour, 4 grey with alpha, 6 colour with alpha.
inline Bytes png(std::uint32_t width,
                 std::uint32_t height,
                 std::uint8_t colour,
                 const Bytes& rows) {
  Bytes out{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const auto chunk = [&](const std::string& type, const Bytes& data) {
    Bytes body(type.begin(), type.end());
    append(body, data);
    append(out, big32(static_cast<std::uint32_t>(data.size())));
    append(out, body);
    append(out, big32(crc(body)));
  };
  Bytes header = big32(width);
  append(header, big32(height));
  append(header, {8, colour, 0, 0, 0});
  chunk("IHDR", header);
  Bytes lines;
  const std::size_t line = height == 0 ? 0 : rows.size() / height;
  for (std::size_t y = 0; line > 0 && y < height; ++y) {
    lines.push_back(0);  // no filter
    lines.insert(lines.end(), rows.begin() + static_cast<std::ptrdiff_t>(y * line),
                 rows.begin() + static_cast<std::ptrdiff_t>((y + 1) * line));
  }
  std::uint32_t a = 1, b = 0;
  for (std::uint8_t v : lines) {
    a = (a + v) % 65521;
    b = (b + a) % 65521;
  }
  Bytes packed{0x78, 0x01};
  append(packed, stored(lines));
  append(packed, big32(b << 16 | a));
  chunk("IDAT", packed);
  chunk("IEND", {});
  return out;
}

/// A grey JPEG of 8 x 8 pixels, all 168: one DC coefficient 40 with quantiser 8, 40 * 8 / 8 + 128.
inline Bytes jpeg() {
  Bytes out{0xff, 0xd8, 0xff, 0xdb, 0, 67, 0};
  out.insert(out.end(), 64, 8);
  append(out, {0xff, 0xc0, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0});
  for (std::uint8_t table : {std::uint8_t{0x00}, std::uint8_t{0x10}}) {
    append(out, {0xff, 0xc4, 0, 20, table, 1});  // one code of one bit:
    out.insert(out.end(), 15, 0);
    out.push_back(table == 0 ? 6 : 0);  // DC of six bits; end of block
  }
  append(out, {0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0});
  append(out, {0b01010000, 0xff, 0xd9});  // 0 101000 0
  return out;
}

/// The message if `f` throws exactly an E; an empty string otherwise.
template <class E>
std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (...) {
  }
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Sets an environment variable (or removes it) for a test.
class Environment {
 public:
  Environment(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~Environment() { set(old_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void set(const std::optional<std::string>& value) {
    if (value)
      ::setenv(name_, value->c_str(), 1);
    else
      ::unsetenv(name_);
  }
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace data_test
