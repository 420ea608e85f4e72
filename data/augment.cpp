#include <capsfw/data/augment.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <capsfw/core/error.hpp>

#include "detail/affine.hpp"

namespace capsfw {
namespace {

/// Of a side in pixels: longer than that of any image, and far from overflow.
constexpr std::int64_t kMaxLength = std::int64_t{1} << 20;

void require(bool good, const char* who, const std::string& rule) {
  if (!good) throw ValueError(fmt::format("{}: {}", who, rule));
}

/// Sizes of a batch [B, C, H, W].
struct Sizes {
  explicit Sizes(const Tensor& x)
      : channels(x.size(1)), height(x.size(2)), width(x.size(3)), area(height * width) {}
  std::int64_t channels, height, width, area;
};

/// `height` x `width` pixels of each image, from (top(i), left(i)) on; zeros outside of it.
template <class Corner>
Tensor cropped(const Tensor& x, std::int64_t height, std::int64_t width, const Corner& corner) {
  const Sizes from(x);
  Tensor y = zeros({x.size(0), from.channels, height, width});
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const auto [top, left] = corner();
    const std::int64_t first = std::max<std::int64_t>(0, -left),
                       last = std::min(width, from.width - left);
    for (std::int64_t c = 0; c < from.channels; ++c, in += from.area)
      for (std::int64_t r = 0; r < height; ++r, out += width) {
        const std::int64_t row = top + r;
        if (row >= 0 && row < from.height && first < last)
          std::copy(in + row * from.width + left + first, in + row * from.width + left + last,
                    out + first);
      }
  }
  return y;
}

}  // namespace

Transform random_affine(const AffineOptions& options) {
  const AffineOptions o = options;
  require(o.degrees >= 0 && o.degrees <= 180 && o.scale >= 0 && o.scale < 1 && o.shear >= 0 &&
              std::isfinite(o.shear) && o.translate >= 0 && std::isfinite(o.translate) &&
              o.elastic >= 0 && std::isfinite(o.elastic) && o.sigma > 0 && std::isfinite(o.sigma),
          "random_affine",
          fmt::format("degrees must lie in [0, 180], scale in [0, 1), shear, translate and elastic "
                      "must not be negative, sigma must be positive; got {}, {}, {}, {}, {} and {}",
                      o.degrees, o.scale, o.shear, o.translate, o.elastic, o.sigma));
  return [o, before = std::vector<float>(), field = std::vector<float>()](Batch& batch,
                                                                          Rng& rng) mutable {
    const Sizes s(batch.images);
    float* image = batch.images.mutable_data<float>();
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const double degrees = detail::uniform_in(o.degrees, rng),
                   zoom = 1 + detail::uniform_in(o.scale, rng),
                   shear = detail::uniform_in(o.shear, rng);
      detail::AffineMap map = detail::affine_map(degrees, zoom, zoom, shear);
      if (o.translate > 0) {
        const double dy = detail::uniform_in(o.translate, rng),
                     dx = detail::uniform_in(o.translate, rng);
        map.y0 = -(map.yy * dy + map.yx * dx);
        map.x0 = -(map.xy * dy + map.xx * dx);
      }
      if (o.elastic > 0) field = detail::elastic_field(o.elastic, o.sigma, s.height, s.width, rng);
      for (std::int64_t c = 0; c < s.channels; ++c, image += s.area) {
        before.assign(image, image + s.area);
        detail::resample_affine(before.data(), s.height, s.width, map, s.height, s.width, image,
                                o.elastic > 0 ? field.data() : nullptr);
      }
    }
  };
}

Transform random_flip(double probability) {
  require(probability >= 0 && probability <= 1, "random_flip",
          fmt::format("the probability must lie in [0, 1]; got {}", probability));
  return [probability](Batch& batch, Rng& rng) {
    const Sizes s(batch.images);
    float* row = batch.images.mutable_data<float>();
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const bool mirrored = rng.uniform() < probability;
      for (std::int64_t r = 0; r < s.channels * s.height; ++r, row += s.width)
        if (mirrored) std::reverse(row, row + s.width);
    }
  };
}

Transform random_crop(std::int64_t padding, std::int64_t height, std::int64_t width) {
  require(padding >= 0 && padding <= kMaxLength && height >= 0 && height <= kMaxLength &&
              width >= 0 && width <= kMaxLength && (height == 0) == (width == 0),
          "random_crop",
          fmt::format("padding must not be negative, height and width both at least 1 or both 0, "
                      "and none above {}; got {}, {} and {}",
                      kMaxLength, padding, height, width));
  return [=](Batch& batch, Rng& rng) {
    const Sizes s(batch.images);
    const std::int64_t h = height == 0 ? s.height : height, w = width == 0 ? s.width : width;
    const std::int64_t rows = s.height + 2 * padding - h, columns = s.width + 2 * padding - w;
    if (rows < 0 || columns < 0)
      throw ShapeError(
          fmt::format("random_crop: {} x {} pixels of images {} with {} zeros around "
                      "them are too many",
                      h, w, batch.images.shape().str(), padding));
    batch.images = cropped(batch.images, h, w, [&] {
      const std::int64_t top = rng.below(rows + 1) - padding;
      return std::pair(top, rng.below(columns + 1) - padding);
    });
  };
}

Transform center_crop(std::int64_t height, std::int64_t width) {
  require(height >= 1 && width >= 1, "center_crop",
          fmt::format("lengths must be at least 1; got {} and {}", height, width));
  return [=](Batch& batch, Rng& /*rng*/) {
    const Sizes s(batch.images);
    if (height > s.height || width > s.width)
      throw ShapeError(fmt::format("center_crop: {} x {} pixels of images {} are too many", height,
                                   width, batch.images.shape().str()));
    batch.images = cropped(batch.images, height, width, [&] {
      return std::pair((s.height - height) / 2, (s.width - width) / 2);
    });
  };
}

Transform cutout(std::int64_t size) {
  require(size >= 1 && size <= kMaxLength, "cutout",
          fmt::format("the size must be at least 1 and at most {}; got {}", kMaxLength, size));
  return [size](Batch& batch, Rng& rng) {
    const Sizes s(batch.images);
    float* image = batch.images.mutable_data<float>();
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const auto side = [&](std::int64_t length) {
        const std::int64_t begin = rng.below(length) - (size - 1) / 2;
        return std::pair(std::max<std::int64_t>(begin, 0), std::min(begin + size, length));
      };
      const auto [top, bottom] = side(s.height);
      const auto [left, right] = side(s.width);
      for (std::int64_t c = 0; c < s.channels; ++c, image += s.area)
        for (std::int64_t r = top; r < bottom; ++r)
          std::fill(image + r * s.width + left, image + r * s.width + right, 0.0f);
    }
  };
}

Transform normalize(const std::vector<double>& mean, const std::vector<double>& std) {
  const auto good = [](double m, double d) {
    return std::isfinite(m) && std::isfinite(d) && d > 0;
  };
  require(!mean.empty() && mean.size() == std.size() &&
              std::equal(mean.begin(), mean.end(), std.begin(), good),
          "normalize",
          fmt::format("as many means as positive deviations, at least one, all finite; got [{}] "
                      "and [{}]",
                      fmt::join(mean, ", "), fmt::join(std, ", ")));
  return [mean, std](Batch& batch, Rng& /*rng*/) {
    const Sizes s(batch.images);
    if (s.channels != static_cast<std::int64_t>(mean.size()))
      throw ShapeError(fmt::format("normalize: {} means for images {}", mean.size(),
                                   batch.images.shape().str()));
    float* x = batch.images.mutable_data<float>();
    for (std::int64_t i = 0; i < batch.size(); ++i)
      for (std::size_t c = 0; c < mean.size(); ++c, x += s.area) {
        const auto m = static_cast<float>(mean[c]), d = static_cast<float>(std[c]);
        std::transform(x, x + s.area, x, [m, d](float v) { return (v - m) / d; });
      }
  };
}

Transform compose(std::vector<Transform> transforms) {
  std::erase_if(transforms, [](const Transform& t) { return !t; });
  if (transforms.size() == 1) return transforms[0];
  if (transforms.empty()) return {};
  return [transforms = std::move(transforms)](Batch& batch, Rng& rng) {
    for (const Transform& t : transforms) t(batch, rng);
  };
}

ChannelStatistics channel_statistics(const ImageSet& set) {
  require(set.size() > 0, "channel_statistics", "the set must hold at least one image");
  const std::int64_t channels = set.image_shape()[0], area = set.image_shape().numel() / channels;
  // Sums of bytes and of their squares are whole numbers: exact up to 2^47 pixels.
  std::vector<std::int64_t> sum(static_cast<std::size_t>(channels)), squares(sum);
  for (std::int64_t i = 0; i < set.size(); ++i) {
    const std::uint8_t* p = set.pixels(i);
    for (std::size_t c = 0; c < sum.size(); ++c)
      for (std::int64_t k = 0; k < area; ++k, ++p) {
        sum[c] += *p;
        squares[c] += std::int64_t{*p} * *p;
      }
  }
  const auto n = static_cast<double>(set.size() * area);
  ChannelStatistics out;
  for (std::size_t c = 0; c < sum.size(); ++c) {
    const double mean = static_cast<double>(sum[c]) / n;
    const double variance = static_cast<double>(squares[c]) / n - mean * mean;
    out.mean.push_back(mean / 255);
    out.std.push_back(std::sqrt(std::max(variance, 0.0)) / 255);
  }
  return out;
}

}  // namespace capsfw
