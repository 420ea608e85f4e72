// What the decoder says: entries of a pose changed one by one, and two capsules of one image.

#include <algorithm>
#include <cmath>

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

int scale_for(const Tensor& images, std::int64_t side) {
  return static_cast<int>(std::max<std::int64_t>(
      1, (side + images.size(-1) / 2) / std::max(images.size(-1), images.size(-2))));
}

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

/// One grey image in a colour, [1, H, W] -> [3, H, W].
Tensor tinted(const Tensor& grey, Rgb color) {
  return grey * from_vector<float>({color.r, color.g, color.b}, {3, 1, 1});
}

Tensor grey(const Tensor& image) { return image.size(0) == 1 ? image : mean(image, {0}, true); }

/// Both on black, in blue and in orange: what they share is nearly white.
Tensor in_two_colours(const Tensor& a, const Tensor& b) {
  return tinted(grey(a), rgb(0x2D9CFF)) + tinted(grey(b), rgb(0xFF8A1E));
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
  grid.scale = scale_for(images, kSide);
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

Tensor draw_overlap(CapsNet& net, const PairBatch& pairs, const std::vector<std::string>& names) {
  const NoGradGuard no_grad;
  const ClassifierOutput out = net(pairs.images, {}, false);
  const Tensor order = argsort(out.lengths, 1, true);
  const auto ranking = order.to_vector<std::int64_t>(),
             labels = pairs.labels.to_vector<std::int64_t>();
  const auto scores = out.lengths.to_vector<double>();
  const std::int64_t n = pairs.size(), classes = net.classes();
  TensorList seen, apart, first, second, together;
  std::vector<std::string> captions(static_cast<std::size_t>(5 * n));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    std::int64_t a = ranking[at * static_cast<std::size_t>(classes)],
                 b = ranking[at * static_cast<std::size_t>(classes) + 1];
    // Each in the colour of the image that it is of.
    if (a == labels[2 * at + 1] || b == labels[2 * at]) std::swap(a, b);
    const Tensor pose = narrow(out.poses, 0, i, 1);
    const auto reconstruct = [&](std::int64_t k) {
      return select(net.decode(pose, one_hot(from_vector<std::int64_t>({k}), classes)), 0, 0);
    };
    const Tensor one = select(pairs.first, 0, i), two = select(pairs.second, 0, i);
    const Tensor ra = reconstruct(a), rb = reconstruct(b);
    seen.push_back(grey(select(pairs.images, 0, i)) * ones({3, 1, 1}));
    apart.push_back(in_two_colours(one, two));
    first.push_back(in_two_colours(ra, zeros_like(rb)));
    second.push_back(in_two_colours(zeros_like(ra), rb));
    together.push_back(in_two_colours(ra, rb));
    const auto caption = [&](std::int64_t row) -> std::string& {
      return captions[static_cast<std::size_t>(row * n + i)];
    };
    const auto found = [&](std::int64_t k) {
      return fmt::format(
          "{} {:.2f}", name_of(names, k),
          scores[at * static_cast<std::size_t>(classes) + static_cast<std::size_t>(k)]);
    };
    caption(1) = fmt::format("{} and {}", name_of(names, labels[2 * at]),
                             name_of(names, labels[2 * at + 1]));
    caption(2) = found(a);
    caption(3) = found(b);
  }
  TensorList all;
  for (const TensorList* list : {&seen, &apart, &first, &second, &together})
    all.insert(all.end(), list->begin(), list->end());
  const Tensor images = stack(all);
  return labelled_grid(
      images, {.columns = static_cast<int>(n),
               .scale = scale_for(images, kSide + 20),
               .title = "two images in one, and what the capsules of the two largest scores "
                        "reconstruct",
               .rows = {"input", "its two images", "one capsule", "the other", "both"},
               .captions = captions});
}

}  // namespace capsfw::apps
