#include "conv_transform.hpp"

#include <algorithm>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "transform_steps.hpp"
#include "workspace.hpp"

namespace capsfw::kernels {
namespace {

/// body(task, memory of `images` numbers, of `outputs` numbers, and for one image of vectors) for
/// all tasks, a thread each.
template <class Body>
void each_apart(const Plan& p,
                std::int64_t tasks,
                std::int64_t images,
                std::int64_t outputs,
                const Body& body) {
  const std::int64_t scratch = std::max(p.s.image(), p.s.positions()) * p.lanes,
                     products = p.s.batch * p.tiles() * p.planes * p.depth(p.channels) * p.filters;
  using Rooms = Workspaces<float>;
  Rooms rooms(tasks, Rooms::padded(images) + Rooms::padded(outputs) + scratch);
  parallel_for(tasks, products / tasks / 32, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Rooms::Lease room(rooms);
    float *of_images = room.take(images), *of_outputs = room.take(outputs),
          *own = room.take(scratch);
    for (std::int64_t t = begin; t < end; ++t) body(t, of_images, of_outputs, own);
  });
}

/// body(first image, images, Rows of images, Rows of outputs, memory of its own) for all blocks of
/// images.
template <class Body>
void each_own_block(const Plan& p, const Body& body) {
  const std::int64_t most = p.rows(p.own_images), depth = p.depth(p.channels);
  each_apart(p, divide_up(p.s.batch, p.own_images), Rows::size(p.planes, most, depth),
             Rows::size(p.planes, most, p.filters),
             [&](std::int64_t b, float* images, float* outputs, float* own) {
               const std::int64_t image = b * p.own_images;
               body(image, std::min(p.own_images, p.s.batch - image), Rows(most, depth, images),
                    Rows(most, p.filters, outputs), own);
             });
}

/// What all threads share: a block of images, its outputs, and weights.
struct Shared {
  Shared(const Plan& p, std::int64_t weight_size)
      : of_images(Rows::size(p.planes, p.rows(p.images), p.depth(p.channels))),
        of_outputs(Rows::size(p.planes, p.rows(p.images), p.filters)),
        of_weights(weight_size),
        images(p.rows(p.images), p.depth(p.channels), of_images.data()),
        outputs(p.rows(p.images), p.filters, of_outputs.data()),
        weights(of_weights.data()) {}
  Buffer<float> of_images, of_outputs, of_weights;
  Rows images, outputs;
  Columns weights;
};

}  // namespace

void transform_forward(const ConvShape& s,
                       const TileSize& tile,
                       const float* x,
                       const float* w,
                       const float* bias,
                       float* y) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const auto weight_size = Columns::size(p.planes, most_depth, p.filters);
  if (p.apart) {
    const Buffer<float> of_weights(weight_size);
    Columns weights(of_weights.data());
    put_weights(p, w, 0, s.channels, weights);
    return each_own_block(p, [&](std::int64_t image, std::int64_t n, const Rows& images,
                                 const Rows& outputs, float* own) {
      put_images(p, own, x, image, n, 0, s.channels, images);
      multiply(p, own, n * p.tiles(), images, false, weights, outputs, false);
      take_outputs(p, own, outputs, bias, image, n, y);
    });
  }
  Shared all(p, weight_size);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image);
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel);
      put_images(p, nullptr, x, image, n, channel, channels, all.images);
      if (image == 0 || p.channels < s.channels) put_weights(p, w, channel, channels, all.weights);
      multiply(p, nullptr, n * p.tiles(), all.images, false, all.weights, all.outputs, channel > 0);
    }
    take_outputs(p, nullptr, all.outputs, bias, image, n, y);
  }
}

void transform_input(
    const ConvShape& s, const TileSize& tile, const float* gy, const float* w, float* gx) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const auto weight_size = Columns::size(p.planes, s.filters, most_depth);
  if (p.apart) {
    const Buffer<float> of_weights(weight_size);
    Columns weights(of_weights.data());
    put_transposed(p, w, 0, s.channels, weights);
    return each_own_block(p, [&](std::int64_t image, std::int64_t n, const Rows& images,
                                 const Rows& outputs, float* own) {
      put_outputs(p, own, gy, image, n, outputs);
      multiply(p, own, n * p.tiles(), outputs, false, weights, images, false);
      take_images(p, own, images, image, n, 0, s.channels, gx);
    });
  }
  Shared all(p, weight_size);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image);
    put_outputs(p, nullptr, gy, image, n, all.outputs);
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel);
      if (image == 0 || p.channels < s.channels)
        put_transposed(p, w, channel, channels, all.weights);
      multiply(p, nullptr, n * p.tiles(), all.outputs, false, all.weights, all.images, false);
      take_images(p, nullptr, all.images, image, n, channel, channels, gx);
    }
  }
}

void transform_weight(
    const ConvShape& s, const TileSize& tile, const float* x, const float* gy, float* gw) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels),
                     size = Rows::size(p.planes, p.filters, most_depth);
  if (const std::int64_t groups = p.weight_groups(); groups > 0) {
    const Buffer<float> of_weights(groups * size);
    const std::int64_t most = p.rows(p.own_images);
    each_apart(p, groups, Columns::size(p.planes, most, most_depth),
               Rows::size(p.planes, most, p.filters),
               [&](std::int64_t g, float* of_images, float* of_outputs, float* own) {
                 const Rows outputs(most, p.filters, of_outputs),
                     weights(p.filters, most_depth, of_weights.data() + g * size);
                 Columns images(of_images);
                 const std::int64_t first = g * s.batch / groups, end = (g + 1) * s.batch / groups;
                 for (std::int64_t image = first; image < end; image += p.own_images) {
                   const std::int64_t n = std::min(p.own_images, end - image);
                   put_outputs(p, own, gy, image, n, outputs);
                   images.shape(n * p.tiles(), most_depth);
                   put_images(p, own, x, image, n, 0, s.channels, images);
                   multiply(p, own, s.filters, outputs, true, images, weights, image > first);
                 }
               });
    float* sum = of_weights.data();
    parallel_for(size, groups, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = 1; g < groups; ++g)
        for (std::int64_t e = begin; e < end; ++e) sum[e] += sum[g * size + e];
    });
    return take_weights(p, Rows(p.filters, most_depth, sum), 0, s.channels, gw);
  }
  const std::int64_t most = p.rows(p.images);
  const Buffer<float> of_outputs(Rows::size(p.planes, most, p.filters)), of_weights(size),
      of_images(Columns::size(p.planes, most, most_depth));
  const Rows outputs(most, p.filters, of_outputs.data()),
      weights(p.filters, most_depth, of_weights.data());
  Columns images(of_images.data());
  for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
    const std::int64_t channels = std::min(p.channels, s.channels - channel);
    for (std::int64_t image = 0; image < s.batch; image += p.images) {
      const std::int64_t n = std::min(p.images, s.batch - image);
      if (channel == 0 || p.images < s.batch) put_outputs(p, nullptr, gy, image, n, outputs);
      images.shape(n * p.tiles(), p.depth(channels));
      put_images(p, nullptr, x, image, n, channel, channels, images);
      multiply(p, nullptr, s.filters, outputs, true, images, weights, image > 0);
    }
    take_weights(p, weights, channel, channels, gw);
  }
}

}  // namespace capsfw::kernels
