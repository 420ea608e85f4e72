#pragma once
// Private: the steps of a convolution at points (conv_transform.hpp): operands from images, outputs
// and weights, their products in every plane, and the way back.
//
// `own`: working memory for one image as vectors, of a thread that takes a block of images through
// all steps; null where all threads take each step together.

#include <cstdint>

#include "transform_plan.hpp"

namespace capsfw::kernels {

/// c (+)= a · b, or aᵀ · b, in every plane.
void multiply(const Plan& plan,
              const float* own,
              std::int64_t rows,
              const Rows& a,
              bool transposed,
              const Columns& b,
              const Rows& c,
              bool add);

/// Images [image, image + n) and channels [channel, channel + channels) of x as an operand.
template <class Operand>
void put_images(const Plan& p,
                float* own,
                const float* x,
                std::int64_t image,
                std::int64_t n,
                std::int64_t channel,
                std::int64_t channels,
                const Operand& to);

/// Images [image, image + n) of gy as a left operand.
void put_outputs(
    const Plan& p, float* own, const float* gy, std::int64_t image, std::int64_t n, const Rows& to);

/// Weights from channel `channel` on as the right operand of the outputs.
void put_weights(
    const Plan& p, const float* w, std::int64_t channel, std::int64_t channels, Columns& to);

/// The same, transposed: of the images.
void put_transposed(
    const Plan& p, const float* w, std::int64_t channel, std::int64_t channels, Columns& to);

/// Images [image, image + n) of y.
void take_outputs(const Plan& p,
                  float* own,
                  const Rows& outputs,
                  const float* bias,
                  std::int64_t image,
                  std::int64_t n,
                  float* y);

/// Images [image, image + n) and channels [channel, channel + channels) of gx.
void take_images(const Plan& p,
                 float* own,
                 const Rows& images,
                 std::int64_t image,
                 std::int64_t n,
                 std::int64_t channel,
                 std::int64_t channels,
                 float* gx);

/// Channels [channel, channel + channels) of gw.
void take_weights(
    const Plan& p, const Rows& weights, std::int64_t channel, std::int64_t channels, float* gw);

}  // namespace capsfw::kernels
