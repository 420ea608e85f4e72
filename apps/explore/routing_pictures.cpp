// What the routing does: couplings over the map of the first capsules, and votes on a plane.

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "common/canvas.hpp"
#include "common/grid.hpp"
#include "common/heat.hpp"
#include "common/plane.hpp"
#include "common/scatter.hpp"

#include "pictures.hpp"

namespace capsfw::apps {
namespace {

constexpr double kSmall = 9.5;  // of words beside a scale

/// Numbers on a small map, one for each class and iteration.
struct CouplingMaps {
  std::int64_t rows = 1, columns = 1;
  bool of_places = true;  ///< false: there is one place only, and every cell is a type
  std::vector<std::vector<std::vector<double>>> values = {};  ///< [iteration][class][row · column]
  double equal = 0;     ///< the mean share of a class in the first iteration
  double furthest = 0;  ///< of all values from that
};

CouplingMaps coupling_maps(const RoutingTrace& trace) {
  const std::int64_t types = trace.grid[0], places = trace.grid[1] * trace.grid[2];
  CouplingMaps maps{.rows = trace.grid[1], .columns = trace.grid[2], .of_places = places > 1};
  if (!maps.of_places) {
    maps.columns = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(types))));
    maps.rows = (types + maps.columns - 1) / maps.columns;
  }
  const auto weights = trace.sizes.defined()
                           ? trace.sizes.to_vector<double>()
                           : std::vector<double>(static_cast<std::size_t>(types * places), 1.0);
  for (const Tensor& shares : trace.shares) {
    const auto c = shares.to_vector<double>();
    const std::int64_t classes = shares.size(1);
    // Less than 1 / classes where a noise class, or an extra logit, has a share of its own.
    if (maps.values.empty()) maps.equal = mean(shares).item();
    auto& of_iteration = maps.values.emplace_back();
    for (std::int64_t j = 0; j < classes; ++j) {
      std::vector<double> sums(static_cast<std::size_t>(maps.rows * maps.columns)), all = sums;
      for (std::int64_t i = 0; i < types * places; ++i) {
        const auto cell = static_cast<std::size_t>(maps.of_places ? i % places : i);
        const double weight = weights[static_cast<std::size_t>(i)];
        sums[cell] += weight * c[static_cast<std::size_t>(i * classes + j)];
        all[cell] += weight;
      }
      for (std::size_t k = 0; k < sums.size(); ++k) {
        sums[k] = all[k] > 0 ? sums[k] / all[k] : 0;
        maps.furthest = std::max(maps.furthest, std::abs(sums[k] - maps.equal));
      }
      of_iteration.push_back(std::move(sums));
    }
  }
  return maps;
}

/// At most ten classes, in their order: `always` and those with the largest scores, where there are
/// more.
std::vector<std::size_t> classes_shown(const std::vector<double>& scores, std::size_t always) {
  constexpr std::size_t kMost = 10;
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return a != b && (a == always || (b != always && scores[a] > scores[b]));
  });
  order.resize(std::min(order.size(), kMost));
  std::sort(order.begin(), order.end());
  return order;
}

/// Orange for less than an equal share, blue for more.
Rgb color_of(const CouplingMaps& maps, double value) {
  return heat_color(maps.furthest > 1e-6 ? (value - maps.equal) / maps.furthest : 0);
}

/// The colours from -1 to 1, with words below: from one end to the other, evenly.
void draw_scale(Canvas& canvas, int x, int y, const std::vector<std::string>& words) {
  constexpr int kWidth = 160, kHeight = 10;
  for (int i = 0; i < kWidth; ++i)
    canvas.fill_rect(x + i, y, 1, kHeight, heat_color(2 * i / (kWidth - 1.0) - 1));
  for (std::size_t i = 0; i < words.size(); ++i)
    canvas.text({x + static_cast<double>(i) * kWidth / (words.size() - 1.0), y + 24.0}, words[i],
                {.size = kSmall, .color = kGreyInk, .align = Align::centre});
}

/// Couplings of votes as places on the scale of colours. Shares count by their ratio to an equal
/// one, since a few may be many times as large as the others; with negative ones (self-attention),
/// differences count.
struct VoteScale {
  bool ratios = true;
  double equal = 0;  ///< the mean of the first iteration
  double reach = 0;  ///< from there to the ends: the logarithm of a ratio, or a difference

  double distance(double coupling) const {
    constexpr double kLeast = 0.1;  // of an equal share: hard couplings are 0
    return ratios ? std::log(std::max(coupling / equal, kLeast)) : coupling - equal;
  }
  Rgb color(double coupling) const {
    return heat_color(reach > 1e-6 ? distance(coupling) / reach : 0);
  }
  std::vector<std::string> words() const {
    std::vector<std::string> out;
    for (int place = -2; place <= 2; place += ratios ? 1 : 2)
      out.push_back(fmt::format(
          "{:.2g}", ratios ? equal * std::exp(place / 2.0 * reach) : equal + place / 2 * reach));
    return out;
  }
};

VoteScale vote_scale(const Specimen& s) {
  VoteScale scale{.equal = mean(s.trace.couplings.front()).item()};
  std::vector<double> shown;
  for (const Tensor& c : s.trace.couplings)
    for (const std::int64_t j : {s.winner, s.other})
      for (const double v : select(c, 1, j).to_vector<double>()) shown.push_back(v);
  scale.ratios = scale.equal > 0 && *std::min_element(shown.begin(), shown.end()) >= 0;
  for (const double v : shown) scale.reach = std::max(scale.reach, std::abs(scale.distance(v)));
  return scale;
}

}  // namespace

Tensor draw_couplings(const Specimen& s, const std::vector<std::string>& names) {
  constexpr int kMargin = 24, kTitle = 14, kMap = 66, kGap = 10, kImage = 140, kHead = 64;
  constexpr double kText = 10;
  const CouplingMaps maps = coupling_maps(s.trace);
  const auto scores = s.trace.out.lengths.to_vector<double>();
  const std::vector<std::size_t> shown = classes_shown(scores, static_cast<std::size_t>(s.winner));
  const int side = static_cast<int>(std::max(maps.rows, maps.columns)),
            cell = std::max(1, kMap / side);
  const int map_w = cell * static_cast<int>(maps.columns),
            map_h = cell * static_cast<int>(maps.rows);
  const int wide = std::max(map_w, 58), iterations = static_cast<int>(maps.values.size());
  const int image_scale =
      std::max(1, kImage / static_cast<int>(std::max(s.image.size(1), s.image.size(2))));
  const int image_w = image_scale * static_cast<int>(s.image.size(2)),
            image_h = image_scale * static_cast<int>(s.image.size(1));
  const int row_words = 84, left = kMargin + image_w + 28 + row_words;
  const int top = kMargin + kTitle + kHead, body = std::max(image_h, iterations * (map_h + kGap));
  Canvas canvas(std::max(left + static_cast<int>(shown.size()) * (wide + kGap) + kMargin, 760),
                top + body + 72);
  canvas.text({kMargin, kMargin + kTitle},
              fit_text(fmt::format("{}: where the {} first capsules send what they found", s.title,
                                   s.trace.grid.numel()),
                       kTitle, canvas.width() - 2 * kMargin),
              {.size = kTitle, .bold = true});
  canvas.image(kMargin, top, select(drawable(unsqueeze(s.image, 0)), 0, 0), image_scale);
  for (std::size_t k = 0; k < shown.size(); ++k) {
    const std::size_t j = shown[k];
    const double x = left + static_cast<double>(k) * (wide + kGap) + wide / 2.0;
    const bool winner = static_cast<std::int64_t>(j) == s.winner;
    canvas.text({x, top - 26.0}, fit_text(names[j], kText, wide),
                {.size = kText, .align = Align::centre, .bold = winner});
    canvas.text({x, top - 9.0}, fmt::format("{:.2f}", scores[j]),
                {.size = kText - 1, .color = winner ? kInk : kGreyInk, .align = Align::centre});
    for (int t = 0; t < iterations; ++t) {
      const int x0 = static_cast<int>(x) - map_w / 2, y0 = top + t * (map_h + kGap);
      canvas.fill_rect(x0 - 1, y0 - 1, map_w + 2, map_h + 2, kRule);
      const std::vector<double>& values = maps.values[static_cast<std::size_t>(t)][j];
      for (std::size_t i = 0; i < values.size(); ++i) {
        const int r = static_cast<int>(i) / static_cast<int>(maps.columns),
                  c = static_cast<int>(i) % static_cast<int>(maps.columns);
        canvas.fill_rect(x0 + c * cell, y0 + r * cell, cell, cell, color_of(maps, values[i]));
      }
    }
  }
  canvas.text({left - 14.0, top - 9.0}, "score",
              {.size = kText - 1, .color = kGreyInk, .align = Align::right});
  for (int t = 0; t < iterations; ++t)
    canvas.text({left - 14.0, top + t * (map_h + kGap) + map_h / 2.0 + 5},
                s.trace.all_iterations ? fmt::format("iteration {}", t + 1) : "last one",
                {.size = kText, .align = Align::right});
  const std::string what =
      !maps.of_places ? "Each square is one of the first capsules: its coupling to the class."
      : s.trace.sizes.defined()
          ? fmt::format(
                "Each square is a place of the {}x{} map: the mean coupling of its {} "
                "capsules, weighted by their lengths.",
                maps.rows, maps.columns, s.trace.grid[0])
          : fmt::format("Each square is a place of the {}x{} map: the mean over its {} capsules.",
                        maps.rows, maps.columns, s.trace.grid[0]);
  const double bottom = top + body + 24;
  draw_scale(canvas, kMargin + 14, static_cast<int>(bottom),
             {fmt::format("{:.2f}", maps.equal - maps.furthest), fmt::format("{:.2f}", maps.equal),
              fmt::format("{:.2f}", maps.equal + maps.furthest)});
  canvas.text({kMargin + 250.0, bottom + 10}, what, {.size = kSmall, .color = kGreyInk});
  return canvas.to_tensor();
}

Tensor draw_votes(const Specimen& s, const std::vector<std::string>& names) {
  const VoteScale scale = vote_scale(s);
  std::vector<ScatterPanel> panels;
  const int iterations = static_cast<int>(s.trace.couplings.size());
  for (const std::int64_t j : {s.winner, s.other}) {
    const Tensor votes = cast_data(contiguous(select(s.trace.votes, 1, j)), DType::f64);  // [M, D]
    const Plane plane = principal_plane(votes, false);
    for (int t = 0; t < iterations; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const auto couplings = select(s.trace.couplings[at], 1, j).to_vector<double>();
      // What is far from an equal share lies above the others.
      std::vector<std::int64_t> order(couplings.size());
      std::iota(order.begin(), order.end(), std::int64_t{0});
      const auto coupling = [&](std::int64_t i) { return couplings[static_cast<std::size_t>(i)]; };
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
        return std::abs(scale.distance(coupling(a))) < std::abs(scale.distance(coupling(b)));
      });
      const Tensor pose = cast_data(contiguous(narrow(s.trace.poses[at], 0, j, 1)), DType::f64);
      ScatterPanel panel{.title = fmt::format("votes for '{}', iteration {}",
                                              names[static_cast<std::size_t>(j)], t + 1),
                         .points = plane.points(index_select(votes, 0, from_vector(order))),
                         .centres = plane.points(pose),
                         .directions = true};
      if (t == 0) panel.title += fmt::format(" (plane: {:.0f} %)", 100 * plane.share);
      for (const std::int64_t i : order) panel.fills.push_back(scale.color(coupling(i)));
      panels.push_back(std::move(panel));
    }
  }
  const Tensor plots =
      draw_scatter(panels, {.title = fmt::format("{}: votes of the {} capsules below two classes",
                                                 s.title, s.trace.votes.size(0)),
                            .x_label = "first principal axis",
                            .y_label = "second",
                            .columns = std::max(iterations, 2),
                            .panel_size = iterations > 2 ? 300 : 380,
                            .flat = true});
  Canvas canvas(static_cast<int>(plots.size(2)), static_cast<int>(plots.size(1)) + 52);
  canvas.image(0, 0, plots, 1);
  const int y = static_cast<int>(plots.size(1)) + 4;
  draw_scale(canvas, 62, y, scale.words());
  canvas.text({280, y + 10.0},
              fmt::format("Colour: the coupling of the vote; white is {}. The ray is the pose "
                          "after the iteration.",
                          scale.ratios ? "an equal share" : "the mean"),
              {.size = kSmall, .color = kGreyInk});
  return canvas.to_tensor();
}

}  // namespace capsfw::apps
