#include "patches.hpp"

namespace capsfw::kernels {
namespace {

constexpr std::int64_t kLargeImage = 4096;  // outputs; a larger image is cut into bands
constexpr std::int64_t kSmallBand = 128;    // outputs; no smaller bands for the sake of threads

Pieces cut_bands(const ConvShape& s,
                 std::int64_t wanted,
                 std::int64_t channels,
                 std::int64_t limit,
                 std::int64_t least) {
  std::int64_t bands =
      std::min(divide_up(wanted, s.batch), std::max<std::int64_t>(s.positions() / kSmallBand, 1));
  bands = std::max(bands, divide_up(s.positions(), kLargeImage));
  std::int64_t rows =
      std::min(std::max(divide_up(s.rows.out, std::min(bands, s.rows.out)), least), s.rows.out);
  const std::int64_t row = s.columns.extent(s.columns.out) * channels;
  while (rows > 1 && s.rows.extent(rows) * row > limit) rows = divide_up(rows, 2);
  return {s.rows.out, rows};
}

Pieces cut_images(const ConvShape& s,
                  const Pieces& bands,
                  std::int64_t positions,
                  std::int64_t wanted,
                  std::int64_t channels,
                  std::int64_t limit) {
  if (bands.count > 1) return {s.batch, 1};
  const std::int64_t plane = s.rows.extent(s.rows.out) * s.columns.extent(s.columns.out) * channels;
  const std::int64_t images =
      std::min({positions / s.positions(), limit / std::max<std::int64_t>(plane, 1),
                divide_up(s.batch, wanted)});
  return {s.batch, std::max<std::int64_t>(images, 1)};
}

}  // namespace

Blocks::Blocks(const ConvShape& s,
               std::int64_t positions,
               std::int64_t wanted,
               std::int64_t channels,
               std::int64_t limit,
               std::int64_t least)
    : images(0, 1), bands(cut_bands(s, wanted, channels, limit, least)) {
  images = cut_images(s, bands, positions, wanted, channels, limit);
}

std::int64_t Patches::segments(std::int64_t begin, std::int64_t n, Segment* out) const {
  std::int64_t count = 0;
  for (std::int64_t at = begin; at < begin + n;) {
    const std::int64_t inside = at % run_, length = std::min(run_ - inside, begin + n - at);
    out[count++] = {run_offset(at / run_) + inside, at - begin, length};
    at += length;
  }
  return count;
}

void Patches::starts(const Block& b, std::int64_t begin, std::int64_t n, std::int64_t* out) const {
  const std::int64_t columns = s_.columns.out, per = b.rows() * columns,
                     down = s_.rows.stride * row_, right = s_.columns.stride * channels_;
  std::int64_t image = begin / per, i = begin % per / columns, j = begin % columns;
  for (std::int64_t t = 0; t < n; ++t) {
    out[t] = image * plane(b) + i * down + j * right;
    if (++j < columns) continue;
    j = 0;
    if (++i < b.rows()) continue;
    i = 0;
    ++image;
  }
}

template <class T>
void Patches::store(const Block& b,
                    const T* memory,
                    std::int64_t all,
                    std::int64_t channel,
                    std::int64_t first,
                    std::int64_t last,
                    T* gx) const {
  const std::int64_t width = s_.columns.size, left = s_.columns.padding,
                     padded = row_ / std::max<std::int64_t>(channels_, 1);
  const std::int64_t used = std::clamp<std::int64_t>(padded - left, 0, width);
  const std::int64_t rows = s_.rows.extent(b.rows()),
                     above = b.row * s_.rows.stride - s_.rows.padding;
  const bool whole =
      left == 0 && used == padded && used == width && first >= above && last <= above + rows;
  for (std::int64_t g = 0; g < b.images(); ++g) {
    T* image = gx + ((b.image + g) * all + channel) * s_.image();
    const T* from = memory + g * plane(b) + left * channels_ - above * row_;
    if (whole) {
      transpose_out((last - first) * width, channels_, from + first * row_, channels_,
                    image + first * width, s_.image());
      continue;
    }
    for (std::int64_t y = first; y < last; ++y) {
      const std::int64_t n = y >= above && y < above + rows ? used : 0;
      T* to = image + y * width;
      if (n > 0) transpose_out(n, channels_, from + y * row_, channels_, to, s_.image());
      for (std::int64_t c = 0; c < channels_; ++c)
        std::fill(to + c * s_.image() + n, to + c * s_.image() + width, T(0));
    }
  }
}

template <class T>
void scatter_add(const T* from,
                 std::int64_t from_row,
                 const std::int64_t* starts,
                 std::int64_t n,
                 const Segment* segments,
                 std::int64_t count,
                 T* memory) {
  detail::simd([=] {
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t k = 0; k < count; ++k) {
        const T* __restrict p = from + i * from_row + segments[k].to;
        T* __restrict q = memory + starts[i] + segments[k].from;
        for (std::int64_t x = 0; x < segments[k].length; ++x) q[x] += p[x];
      }
  });
}

template void Patches::store(const Block&,
                             const float*,
                             std::int64_t,
                             std::int64_t,
                             std::int64_t,
                             std::int64_t,
                             float*) const;
template void scatter_add(const float*,
                          std::int64_t,
                          const std::int64_t*,
                          std::int64_t,
                          const Segment*,
                          std::int64_t,
                          float*);
template void Patches::store(const Block&,
                             const double*,
                             std::int64_t,
                             std::int64_t,
                             std::int64_t,
                             std::int64_t,
                             double*) const;
template void scatter_add(const double*,
                          std::int64_t,
                          const std::int64_t*,
                          std::int64_t,
                          const Segment*,
                          std::int64_t,
                          double*);

}  // namespace capsfw::kernels
