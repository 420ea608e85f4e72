// Image files. The only user of stb.

#include <capsfw/data/image.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

#include "detail/image_check.hpp"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-align"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#if defined(CAPSFW_NO_SIMD)
#define STBI_NO_SIMD
#endif
// Zeroed memory: what a damaged JPEG leaves undecoded is black, and the same in every run.
#define STBI_MALLOC(bytes) std::calloc(1, bytes)
#define STBI_REALLOC(p, bytes) std::realloc(p, bytes)
#define STBI_FREE(p) std::free(p)
#include <stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>
#pragma GCC diagnostic pop

namespace capsfw {
namespace {

constexpr std::int64_t kMaxFile = std::int64_t{256} << 20;

using Bytes = std::vector<std::uint8_t>;

bool starts_with(const Bytes& file, const std::string& start) {
  return file.size() >= start.size() &&
         std::equal(start.begin(), start.end(), file.begin(),
                    [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; });
}

struct Decoded {
  std::unique_ptr<stbi_uc, decltype(&stbi_image_free)> pixels{nullptr, stbi_image_free};
  int width = 0, height = 0, channels = 0;
};

Decoded decode(const std::filesystem::path& path) {
  const auto fail = [&](const std::string& rule) {
    throw IoError(fmt::format("load_image: '{}': {}", path.string(), rule));
  };
  const Bytes file = read_file(path, kMaxFile);
  const bool png = starts_with(file, "\x89PNG\r\n\x1a\n");
  if (!png && !starts_with(file, "\xff\xd8\xff"))
    fail("must be a PNG or JPEG file; its first bytes are of neither");
  if (const std::string wrong = png ? detail::check_png(file) : detail::check_jpeg(file);
      !wrong.empty())
    fail(wrong);

  Decoded d;
  const int bytes = static_cast<int>(file.size());
  if (stbi_info_from_memory(file.data(), bytes, &d.width, &d.height, &d.channels) == 0)
    fail(fmt::format("the header must be valid; {}", shown(stbi_failure_reason())));
  if (std::int64_t{d.width} * d.height > detail::kMaxPixels)
    fail(fmt::format("at most {} pixels; got {} x {}", detail::kMaxPixels, d.width, d.height));
  if (!detail::can_hold(file, png, std::int64_t{d.width} * d.height))
    fail(fmt::format("{} bytes cannot hold {} x {} pixels", file.size(), d.width, d.height));
  d.pixels.reset(stbi_load_from_memory(file.data(), bytes, &d.width, &d.height, &d.channels, 0));
  if (!d.pixels)
    fail(fmt::format("the picture must be decodable; {}", shown(stbi_failure_reason())));
  return d;
}

}  // namespace

Tensor load_image(const std::filesystem::path& path, ImageOptions options) {
  if (options.channels != 0 && options.channels != 1 && options.channels != 3)
    throw ValueError(
        fmt::format("load_image: channels must be 0, 1 or 3; got {}", options.channels));
  if (!(options.background >= 0 && options.background <= 1))
    throw ValueError(
        fmt::format("load_image: background must lie in [0, 1]; got {}", options.background));
  const Decoded d = decode(path);
  const bool colour = d.channels >= 3, alpha = d.channels % 2 == 0;
  const int channels = options.channels != 0 ? options.channels : colour ? 3 : 1;
  const auto back = static_cast<float>(options.background);

  Tensor y = empty({channels, d.height, d.width});
  float* out = y.mutable_data<float>();
  const std::int64_t n = std::int64_t{d.width} * d.height;
  const stbi_uc* in = d.pixels.get();
  for (std::int64_t i = 0; i < n; ++i, in += d.channels) {
    const float opacity = alpha ? static_cast<float>(in[d.channels - 1]) / 255.0f : 1.0f;
    const auto value = [&](int c) {
      const float v = static_cast<float>(in[colour ? c : 0]) / 255.0f;
      return alpha ? opacity * v + (1 - opacity) * back : v;
    };
    if (channels == 3)
      for (int c = 0; c < 3; ++c) out[c * n + i] = value(c);
    else
      out[i] = colour ? 0.299f * value(0) + 0.587f * value(1) + 0.114f * value(2) : value(0);
  }
  return y;
}

std::vector<std::uint8_t> encode_png(const Tensor& image) {
  check_floating(image, "encode_png");
  const Shape& shape = image.shape();
  const std::int64_t channels = shape.rank() == 3 ? shape[0] : 1;
  if ((shape.rank() != 2 && shape.rank() != 3) || (channels != 1 && channels != 3) ||
      shape.numel() == 0 || shape.numel() / channels > detail::kMaxPixels)
    throw ShapeError(
        fmt::format("encode_png: takes [H, W], [1, H, W] or [3, H, W] with 1 to {} "
                    "pixels; got {}",
                    detail::kMaxPixels, shape.str()));
  const Tensor x = cast_data(image, DType::f32);
  const float* p = x.data<float>();
  const std::int64_t height = shape[shape.rank() - 2], width = shape.back(), n = height * width;
  Bytes pixels(static_cast<std::size_t>(n * channels));
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t i = 0; i < n; ++i) {
      const float v = p[c * n + i];
      if (std::isnan(v))
        throw ValueError(
            fmt::format("encode_png: the values must be numbers; got NaN at [{}, {}, {}]", c,
                        i / width, i % width));
      pixels[static_cast<std::size_t>(i * channels + c)] =
          static_cast<std::uint8_t>(std::lround(std::clamp(v, 0.0f, 1.0f) * 255.0f));
    }

  Bytes encoded;
  const auto collect = [](void* context, void* data, int size) {
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    static_cast<Bytes*>(context)->assign(bytes, bytes + size);
  };
  if (stbi_write_png_to_func(collect, &encoded, static_cast<int>(width), static_cast<int>(height),
                             static_cast<int>(channels), pixels.data(), 0) == 0)
    throw IoError("encode_png: no memory for the file");
  return encoded;
}

void save_png(const std::filesystem::path& path, const Tensor& image) {
  const Bytes encoded = encode_png(image);
  AtomicFile file(path);
  file.write(encoded.data(), encoded.size());
  file.commit();
}

}  // namespace capsfw
