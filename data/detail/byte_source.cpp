#include "byte_source.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::detail {

ByteSource::ByteSource(std::string who, const std::filesystem::path& path)
    : who_(std::move(who)), file_(path) {
  std::array<std::uint8_t, 2> start{};
  gzip_ = file_.read(0, start.data(), start.size()) == 2 && start[0] == 0x1f && start[1] == 0x8b;
  // 15: largest window; +16: a gzip header and its checksum, nothing else.
  if (gzip_ && inflateInit2(&stream_, 15 + 16) != Z_OK) throw std::bad_alloc();
}

ByteSource::~ByteSource() {
  if (gzip_) inflateEnd(&stream_);
}

void ByteSource::fail(const std::string& rule) const {
  throw IoError(fmt::format("{}: '{}': {}", who_, file_.path().string(), rule));
}

std::size_t ByteSource::read(std::uint8_t* out, std::size_t bytes) {
  if (gzip_) return unpack(out, bytes);
  const std::size_t n = file_.read(at_, out, bytes);
  at_ += static_cast<std::int64_t>(n);
  return n;
}

std::size_t ByteSource::append(std::vector<std::uint8_t>& out, std::size_t count) {
  const std::size_t before = out.size(), expected = before + count;
  try {
    while (out.size() < expected) {
      const std::size_t start = out.size(), want = std::min(kChunk, expected - start);
      // Doubling up to what is expected: the last block has no slack.
      if (out.capacity() < start + want)
        out.reserve(std::min(expected, std::max(2 * start, 16 * kChunk)));
      out.resize(start + want);
      const std::size_t got = read(out.data() + start, want);
      if (got < want) {
        out.resize(start + got);
        break;
      }
    }
  } catch (const std::bad_alloc&) {
    fail(fmt::format("its {} bytes must fit into memory", count));
  }
  return out.size() - before;
}

bool ByteSource::at_end() {
  std::uint8_t surplus = 0;
  return read(&surplus, 1) == 0;
}

bool ByteSource::refill() {
  const std::size_t n = file_.read(at_, packed_.data(), packed_.size());
  at_ += static_cast<std::int64_t>(n);
  stream_.next_in = packed_.data();
  stream_.avail_in = static_cast<uInt>(n);
  return n > 0;
}

std::size_t ByteSource::unpack(std::uint8_t* out, std::size_t bytes) {
  stream_.next_out = out;
  stream_.avail_out = static_cast<uInt>(bytes);
  while (stream_.avail_out > 0 && !done_) {
    if (stream_.avail_in == 0 && !refill()) fail("the gzip data must be complete; they end early");
    const int rc = inflate(&stream_, Z_NO_FLUSH);
    if (rc == Z_STREAM_END) {
      // Checksum and length were right. A gzip file may hold several members, one after another.
      done_ = stream_.avail_in == 0 && !refill();
      if (!done_) inflateReset(&stream_);
    } else if (rc != Z_OK) {
      fail(fmt::format("the gzip data must be intact; got '{}' before byte {}",
                       stream_.msg != nullptr ? stream_.msg : "a damaged stream",
                       at_ - stream_.avail_in));
    }
  }
  return bytes - stream_.avail_out;
}

}  // namespace capsfw::detail
