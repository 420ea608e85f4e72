// What the decoder says where the entries of a pose are changed one by one.

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "common/canvas.hpp"
#include "common/grid.hpp"

#include "pictures.hpp"

namespace capsfw::apps {
namespace {

constexpr std::int64_t kSide = 56;  // of a small image, in pixels, about

/// Pictures side by side on white, tops aligned.
Tensor beside(const Tensor& a, const Tensor& b) {
  Canvas canvas(static_cast<int>(a.size(2) + b.size(2)),
                static_cast<int>(std::max(a.size(1), b.size(1))));
  canvas.image(0, 0, a, 1);
  canvas.image(static_cast<int>(a.size(2)), 0, b, 1);
  return canvas.to_tensor();
}

const std::string& name_of(const std::vector<std::string>& names, std::int64_t k) {
  return names[static_cast<std::size_t>(k)];
}

}  // namespace

std::vector<double> pose_changes() {
  std::vector<double> changes;
  for (int k = -5; k <= 5; ++k) changes.push_back(0.05 * k);
  return changes;
}

Tensor draw_poses(CapsNet& net, const Specimen& s, const std::vector<std::string>& names) {
  const NoGradGuard no_grad;
  const std::vector<double> changes = pose_changes();
  const auto columns = static_cast<std::int64_t>(changes.size());
  const Tensor poses = s.trace.out.poses;  // [1, J, D]
  const std::int64_t classes = poses.size(1), dims = poses.size(2);
  const Tensor mask = one_hot(from_vector<std::int64_t>({s.winner}), classes);  // [1, J]
  TensorList rows;
  GridOptions grid{.columns = static_cast<int>(columns)};
  for (const double change : changes) grid.headers.push_back(fmt::format("{:+.2f}", change));
  grid.headers[changes.size() / 2] = "0";
  for (std::int64_t d = 0; d < dims; ++d) {
    const Tensor direction = one_hot(from_vector<std::int64_t>({d}), dims);  // [1, D]
    const Tensor steps =
        reshape(cast_data(from_vector(changes), DType::f32), {columns, 1, 1}) * direction;
    const Tensor factors = mask + zeros({columns, classes});
    rows.push_back(net.decode(poses + steps, factors));
    grid.rows.push_back(fmt::format("{}", d + 1));
  }
  const Tensor images = drawable(cat(rows));
  grid.scale = scale_to(images, kSide);
  grid.title = fmt::format("{}: the {} entries of the pose of capsule '{}', changed one by one",
                           s.title, dims, name_of(names, s.winner));
  const Tensor unchanged = net.decode(poses, mask);
  const double length = s.trace.out.lengths.to_vector<double>()[static_cast<std::size_t>(s.winner)];
  const Tensor left = labelled_grid(
      drawable(cat({unsqueeze(s.image, 0), unchanged})),
      {.columns = 1,
       .scale = 2 * grid.scale,
       .title = " ",
       .headers = {"input"},
       .captions = {"",
                    fmt::format("capsule {}, length {:.2f}", name_of(names, s.winner), length)}});
  return beside(left, labelled_grid(images, grid));
}

}  // namespace capsfw::apps
