// Clusters the rows of a table by any of the methods of the library, and shows how it came about.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/chart.hpp"
#include "common/cluster_fit.hpp"
#include "common/plane.hpp"
#include "common/scatter.hpp"
#include "common/table.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  std::vector<std::string> files;
  std::string method = "kmeans", covariance = "full", metric = "euclid", init = "k-means++",
              format = "auto", out = "out/cluster";
  int k = 3, iterations = 30, restarts = 1;
  double sharpness = 1, eps = 1e-6;
  std::uint64_t seed = 1;
};

/// Three groups of 200 points, long and round, in different directions from 0.
Tensor demo_data(Rng& rng) {
  TensorList groups;
  const double at[3][2] = {{4, 1}, {-2, 3}, {-1.5, -3}};
  const double shape[3][4] = {{1.2, 0.5, 0, 0.3}, {0.4, 0, 0, 0.9}, {0.6, 0, -0.7, 0.5}};
  for (int j = 0; j < 3; ++j) {
    const Tensor centre = from_vector(std::vector<double>(at[j], at[j] + 2), {1, 2}),
                 spread = from_vector(std::vector<double>(shape[j], shape[j] + 4), {2, 2});
    groups.push_back(matmul(randn({200, 2}, rng, DType::f64), spread) + centre);
  }
  return cat(groups);
}

/// Flags of one method given to another are mistakes.
void check_flags(const Args& args, Flags& f) {
  const auto only = [&](const char* flag, bool fits, const char* methods) {
    args.refuse_idle(!fits, fmt::format("is for {}; got --method {}", methods, f.method), {flag});
  };
  const bool kmeans = f.method == "kmeans" || f.method == "kmeans-soft", gmm = f.method == "gmm";
  only("--covariance", gmm, "gmm");
  only("--eps", gmm, "gmm");
  only("--metric", kmeans, "kmeans and kmeans-soft");
  only("--sharpness", f.method == "kmeans-soft" || f.method == "fuzzy-entropy",
       "kmeans-soft and fuzzy-entropy");
  if (f.files.size() > 1)
    throw UsageError(fmt::format("FILE: takes one; got '{}' and '{}'", f.files[0], f.files[1]));
  args.refuse_idle(!f.files.empty() && f.init != "k-means++",
                   fmt::format("of k-means++ and of the demonstration; got --init {} and a FILE. "
                               "Hint: --init k-means++",
                               f.init),
                   {"--seed"});
  if (f.restarts > 1 && f.init != "k-means++")
    throw UsageError("--restarts: needs --init k-means++; any other start gives the same again");
}

Tensor first_centres(const Flags& f,
                     const Tensor& x,
                     const std::optional<Tensor>& given,
                     Rng& rng) {
  if (given) return *given;
  return f.init == "first" ? narrow(x, 0, 0, f.k) : kmeans_plus_plus(x, f.k, rng);
}

/// The panels and curves of a fit.
struct History {
  std::vector<ScatterPanel> panels;
  std::vector<double> iterations, scores;
};

class Program {
 public:
  Program(Flags flags, Tensor x, std::optional<Tensor> start)
      : f_(std::move(flags)),
        x_(std::move(x)),
        start_(std::move(start)),
        options_{.method = f_.method,
                 .covariance = covariance_kind(f_.covariance),
                 .metric = cluster_metric(f_.metric),
                 .sharpness = f_.sharpness,
                 .eps = f_.eps},
        plane_(principal_plane(x_, !directional(options_))),
        points_(plane_.points(x_)),
        dir_(f_.out) {
    std::filesystem::create_directories(dir_);
    log_.emplace(dir_ / "metrics.jsonl", JsonLogOptions{.fresh = true});
  }

  int run() {
    const auto begin = std::chrono::steady_clock::now();
    fmt::print("{} points of size {}, {} clusters by {}\n", x_.size(0), x_.size(1), f_.k,
               f_.method);
    Rng rng(f_.seed);
    Progress bar("clustering", std::int64_t{f_.restarts} * f_.iterations, "iterations");
    for (int restart = 1; restart <= f_.restarts && !(interrupted() && best_); ++restart)
      fit(restart, first_centres(f_, x_, start_, rng), bar);
    bar.finish();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    save(seconds);
    return interrupted() ? kInterruptedExit : 0;
  }

 private:
  /// From given centres to the last iteration, seen after 0, 1, 2, 4, 8, ... of them.
  void fit(int restart, const Tensor& centres, Progress& bar) {
    ClusterFit fit(x_, centres, options_);
    History history;
    std::size_t logged = 0;
    for (int stop = 0;;) {
      for (; logged < fit.scores().size(); ++logged) {
        log_->write({{"event", "iteration"},
                     {"restart", restart},
                     {"iteration", logged},
                     {score_name(options_), fit.scores()[logged]}});
        history.iterations.push_back(static_cast<double>(logged));
      }
      const int done = fit.iterations();
      bar.update(std::int64_t{restart - 1} * f_.iterations + done,
                 fmt::format("{} {:.6g}", score_name(options_), fit.scores().back()));
      const bool end = done == f_.iterations || interrupted();
      if (end || done == stop) {
        history.panels.push_back(panel(fit));
        stop = std::min(f_.iterations, std::max(1, 2 * done));
      }
      if (end) break;
      // In pieces, so that an interrupt is heard soon; fuzzy-kl would start afresh for each.
      fit.advance(f_.method == "fuzzy-kl" ? stop - done : std::min(stop - done, 16));
    }
    history.scores = fit.scores();
    if (best_ && !better(options_, fit.scores().back(), best_->scores().back())) return;
    best_.emplace(std::move(fit));
    best_restart_ = restart;
    history_ = std::move(history);
  }

  ScatterPanel panel(const ClusterFit& fit) const {
    ScatterPanel p;
    p.points = points_;
    p.labels = fit.labels().to_vector<std::int64_t>();
    p.directions = directional(options_);
    p.centres = p.directions ? matmul(fit.centres(), transpose(plane_.axes, 0, 1))
                             : plane_.points(fit.centres());
    if (!p.directions) p.covariances = fit.covariances(plane_);
    const int t = fit.iterations();
    p.title = t == 0 ? "start" : fmt::format("after {} iteration{}", t, t == 1 ? "" : "s");
    return p;
  }

  void save(double seconds) {
    const ClusterFit& fit = *best_;
    const std::string given = f_.files.empty() ? "" : f_.files[0],
                      format = f_.format == "auto" ? (given.ends_with(".npy") ? "npy" : "csv")
                                                   : f_.format;
    std::string made;
    const auto write = [&](const std::string& name, const Tensor& values, const char* prefix,
                           const char* what) {
      std::vector<std::string> names;
      const bool column = values.dim() == 1;
      const Tensor table = format == "csv" && values.dim() > 2 ? flatten(values, 1) : values;
      for (std::int64_t c = 1; c <= (column ? 1 : table.size(1)); ++c)
        names.push_back(column ? prefix : fmt::format("{}{}", prefix, c));
      save_matrix(dir_ / (name + "." + format), table, names);
      made += fmt::format("  {:<20} {}\n", name + "." + format, what);
    };
    if (given.empty()) write("data", x_, "x", "the points");
    const Tensor labels = fit.labels();
    write("labels", labels, "label", "the cluster of each point, from 0");
    write("centres", fit.centres(), "x", "one row per cluster");
    write("couplings", fit.couplings(), "c", "how much each point belongs to each cluster");
    if (fit.mixture()) {
      write("covariances", fit.mixture()->covariance, "s", "of each component, row by row");
      write("weights", fit.mixture()->weights, "weight", "of each component");
    }
    draw();
    made +=
        "  clusters.png         the points by cluster, with centres and ellipses\n"
        "  iterations.png       the same after 0, 1, 2, 4, ... iterations\n"
        "  score.png            over the iterations\n"
        "  metrics.jsonl        the run, a JSON object per line\n";
    const Tensor sizes = sum(one_hot(labels, f_.k, DType::f64), {0});
    const double score = fit.scores().back();
    log_->write({{"event", "result"},
                 {"method", f_.method},
                 {"points", x_.size(0)},
                 {"k", f_.k},
                 {"restart", best_restart_},
                 {"iteration", fit.iterations()},
                 {"sizes", sizes.to_vector<double>()},
                 {"seconds", seconds},
                 {score_name(options_), score}});
    fmt::print("\n{} {:.8g} after {} iterations ({:.2f} s)\n\ncluster   points   centre\n",
               score_name(options_), score, fit.iterations(), seconds);
    for (std::int64_t j = 0; j < f_.k; ++j) {
      const auto centre = select(fit.centres(), 0, j).to_vector<double>();
      const auto shown = static_cast<std::ptrdiff_t>(std::min<std::size_t>(centre.size(), 6));
      fmt::print("{:<9} {:<8} {:.4g}{}\n", j, select(sizes, 0, j).item(),
                 fmt::join(centre.begin(), centre.begin() + shown, ", "),
                 centre.size() > 6 ? ", ..." : "");
    }
    if (interrupted()) fmt::print("\nInterrupted: the files hold the iterations so far\n");
    fmt::print("\nMade in {}:\n{}", dir_.string(), made);
  }

  void draw() const {
    const bool plain = x_.size(1) <= 2;
    ScatterOptions o{.title = fmt::format("{} clusters by {}", f_.k, f_.method),
                     .x_label = plain ? "x1" : "first principal axis",
                     .y_label = plain ? "x2" : "second principal axis"};
    if (x_.size(1) == 1) o.y_label.clear();
    if (!plain) o.title += fmt::format(" ({:.0f} % of the spread seen)", 100 * plane_.share);
    save_png(dir_ / "clusters.png", draw_scatter({history_.panels.back()}, o));
    o.columns = std::min<int>(4, static_cast<int>(history_.panels.size()));
    o.panel_size = 280;
    save_png(dir_ / "iterations.png", draw_scatter(history_.panels, o));
    Chart chart(o.title);
    const std::string name = score_name(options_);
    chart.panel(name, {"iteration", name}).line(name, history_.iterations, history_.scores);
    chart.save(dir_ / "score.png");
  }

  Flags f_;
  Tensor x_;
  std::optional<Tensor> start_;
  ClusterOptions options_;
  Plane plane_;
  Tensor points_;
  std::filesystem::path dir_;
  std::optional<JsonLog> log_;
  std::optional<ClusterFit> best_;
  int best_restart_ = 0;
  History history_;
};

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  Args args("cluster",
            "Clusters the rows of a table (.csv, .tsv or .npy). Without FILE: a demonstration on "
            "600 points on a plane, which it makes itself.");
  args.positional("FILE", f.files, "one point per row, numbers only", 0);
  args.section("Clustering")
      .choice("--method", f.method, {"kmeans", "kmeans-soft", "gmm", "fuzzy-kl", "fuzzy-entropy"},
              "kmeans: Lloyd; gmm: Gaussian mixture by EM; fuzzy: by direction from 0")
      .add("--k N", f.k, "clusters", {.min = 1, .max = 100000})
      .choice("--covariance", f.covariance, {"full", "diag", "spherical"}, "of gmm")
      .add("--eps X", f.eps, "of gmm: added to the variances", {.min = 0})
      .choice("--metric", f.metric, {"euclid", "inner"},
              "of kmeans and kmeans-soft: squared distance, or inner product with the direction")
      .add("--sharpness K", f.sharpness,
           "inverse temperature of kmeans-soft; 1/alpha of fuzzy-entropy", {.above = 0})
      .add("--iterations N", f.iterations, "iterations", {.min = 1, .max = 1000000})
      .add("--init WHAT", f.init, "k-means++, first (the first K points) or a FILE of centres")
      .add("--restarts N", f.restarts, "starts from k-means++, of which the best is kept",
           {.min = 1, .max = 100000})
      .add("--seed N", f.seed, "of k-means++ and of the demonstration");
  args.section("Output")
      .add("--out DIR", f.out, "folder for tables, pictures and log")
      .choice("--format", f.format, {"auto", "csv", "npy"}, "of the tables; auto: that of FILE");
  args.example("cluster --method gmm --iterations 60")
      .example("cluster iris.csv --k 3 --restarts 10 --out out/iris");
  return run_main(args, argc, argv, [&] {
    const NoGradGuard no_grad;
    catch_interrupts();
    check_flags(args, f);
    Rng rng(f.seed);
    const Tensor x = f.files.empty() ? demo_data(rng) : load_matrix(f.files[0]);
    std::optional<Tensor> start;
    if (f.init != "k-means++" && f.init != "first") {
      start = load_matrix(f.init);
      if (!args.given("--k")) f.k = static_cast<int>(start->size(0));
      if (start->shape() != Shape{f.k, x.size(1)})
        throw ValueError(fmt::format("'{}': must be {} centres of size {}; got {}", f.init, f.k,
                                     x.size(1), start->shape().str()));
    } else if (f.k > x.size(0)) {
      throw ValueError(fmt::format("--k: must be at most the {} points; got {}", x.size(0), f.k));
    }
    return Program(f, x, start).run();
  });
}
