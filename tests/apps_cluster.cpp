// What the program `cluster` is made of: tables, the plane, the picture, the methods behind one
// interface.

#include <cmath>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "apps_support.hpp"
#include "common/canvas.hpp"
#include "common/cluster_fit.hpp"
#include "common/plane.hpp"
#include "common/scatter.hpp"
#include "common/table.hpp"
#include "pixels.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using apps_test::count;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Tensor random(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

}  // namespace

TEST_CASE("table: matrices by the ending of the file, and only finite numbers") {
  const apps_test::Folder folder;
  const Tensor x = random({4, 3});
  for (const char* name : {"x.csv", "x.npy"}) {
    save_matrix(folder.path / name, x);
    CHECK(max_difference(load_matrix(folder.path / name), x) == 0);
  }
  save_matrix(folder.path / "n.npy", from_vector(std::vector<std::int64_t>{1, 2}));
  CHECK(load_matrix(folder.path / "n.npy").shape() == Shape{2, 1});
  CHECK(load_matrix(folder.path / "n.npy").dtype() == DType::f64);
  Tensor bad = empty_like(x).copy_(x);
  narrow(select(bad, 0, 2), 0, 1, 1).fill_(-INFINITY);
  save_matrix(folder.path / "x.npy", bad);
  CHECK(message_of<ValueError>([&] {
          load_matrix(folder.path / "x.npy");
        }).ends_with("row 3, column 2: must be finite; got -inf"));
  save_matrix(folder.path / "x.npy", zeros({2, 2, 2}));
  CHECK(message_of<ValueError>([&] {
          load_matrix(folder.path / "x.npy");
        }).ends_with("must be a matrix of numbers; got [2, 2, 2]"));
  save_matrix(folder.path / "x.npy", zeros({0, 2}));
  CHECK_THROWS_AS(load_matrix(folder.path / "x.npy"), ValueError);
  CHECK_THROWS_AS(load_matrix(folder.path / "x.txt"), ValueError);
}

TEST_CASE("plane: the first two principal axes, in order, and data of one or two columns as is") {
  // Spread 5, 2 and 0.1 along three orthogonal axes that are those of the space, turned.
  Tensor z = random({400, 3}, 3) * from_vector(std::vector<double>{5, 2, 0.1}, {1, 3});
  const double c = std::cos(0.4), s = std::sin(0.4);
  const Tensor turn = from_vector(std::vector<double>{c, s, 0, -s, c, 0, 0, 0, 1}, {3, 3});
  const Tensor x = matmul(z, turn) + 7.0;
  const Plane plane = principal_plane(x);
  CHECK(max_difference(plane.axes, narrow(turn, 0, 0, 2)) < 0.03);
  CHECK(max_difference(matmul(plane.axes, transpose(plane.axes, 0, 1)), eye(2, DType::f64)) <
        1e-12);
  CHECK(plane.share > 0.99);
  CHECK(plane.share < 1);
  // The axes are exact: the projected points are uncorrelated.
  const Tensor y = plane.points(x), gram = matmul(transpose(y, 0, 1), y) / 400.0;
  CHECK(std::abs(gram.to_vector<double>()[1]) < 1e-6);
  CHECK(gram.to_vector<double>()[0] > gram.to_vector<double>()[3]);
  CHECK(max_difference(mean(y, {0}), zeros({2}, DType::f64)) < 1e-12);
  // Around 0, the direction to the mean is most of it.
  CHECK(max(abs(principal_plane(x, false).origin)).item() == 0);
  for (const std::int64_t d : {1, 2}) {
    const Tensor w = random({5, d}), seen = principal_plane(w).points(w);
    CHECK(seen.shape() == Shape{5, 2});
    CHECK(max_difference(narrow(seen, 1, 0, d), w) == 0);
  }
  // On a line there is one axis, at a point none: zeros, no NaN.
  const Tensor line = random({9, 1}) * from_vector(std::vector<double>{1, 2, 3}, {1, 3});
  CHECK(principal_plane(line).share == doctest::Approx(1));
  CHECK(max_difference(principal_plane(ones({4, 3}, DType::f64)).points(ones({4, 3}, DType::f64)),
                       zeros({4, 2}, DType::f64)) == 0);
}

TEST_CASE("scatter: points in the colour of their cluster, ellipses, rays, several panels") {
  ScatterPanel p;
  p.points = random({200, 2});
  for (std::int64_t i = 0; i < 200; ++i) p.labels.push_back(i % 2);
  p.centres = from_vector(std::vector<double>{-0.5, 0, 0.5, 0}, {2, 2});
  const Tensor plain = draw_scatter({p});
  CHECK(plain.size(0) == 3);
  CHECK(min(plain).item() >= 0);
  CHECK(max(plain).item() <= 1);
  CHECK(count(plain, palette(0)) > 20);
  CHECK(count(plain, palette(1)) > 20);
  CHECK(count(plain, palette(2)) == 0);
  p.covariances = stack({eye(2, DType::f64), eye(2, DType::f64)});
  CHECK(count(draw_scatter({p}), palette(0)) > count(plain, palette(0)) + 200);
  p.covariances = {};
  // A fill of its own, with an outline, in place of the colour of the cluster.
  const Rgb fill = rgb(0x123456);
  p.fills.assign(200, fill);
  const Tensor filled = draw_scatter({p});
  CHECK(count(filled, fill) > 200);
  CHECK(count(filled, kGreyInk) > 20);
  CHECK(count(plain, fill) == 0);
  // The last point lies above the others.
  ScatterPanel pile{
      .points = zeros({2, 2}, DType::f64), .fills = {fill, rgb(0x654321)}, .centres = p.centres};
  CHECK(count(draw_scatter({pile}), fill) == 0);
  CHECK(count(draw_scatter({pile}), rgb(0x654321)) > 20);
  p.fills = {fill};
  CHECK_THROWS_AS(draw_scatter({p}), ShapeError);
  p.fills = {};
  p.directions = true;
  CHECK(count(draw_scatter({p}), kInk) > count(plain, kInk) + 200);
  // As high as the points need, and the same unit along both axes.
  ScatterPanel wide = p;
  wide.points = p.points * from_vector(std::vector<double>{1, 0.1}, {1, 2});
  const ScatterOptions square{.panel_size = 300}, flat{.panel_size = 300, .flat = true};
  CHECK(draw_scatter({wide}, square).size(1) - draw_scatter({wide}, flat).size(1) == 150);
  CHECK(draw_scatter({wide}, square).size(2) == draw_scatter({wide}, flat).size(2));
  const Tensor three = draw_scatter({p, p, p}, {.columns = 2, .panel_size = 200});
  CHECK(three.size(2) > 400);
  CHECK(three.size(1) > 400);
  // Odd numbers are left out, a single place is drawn, nothing crashes.
  p.points = full({3, 2}, NAN, DType::f64);
  p.labels = {0, 1, 0};
  p.centres = from_vector(std::vector<double>{NAN, 0, INFINITY, 0}, {2, 2});
  p.covariances = full({2, 2, 2}, NAN, DType::f64);
  CHECK(min(draw_scatter({p})).item() >= 0);
  p.points = ones({3, 2}, DType::f64);
  CHECK(count(draw_scatter({p}), kWhite) > 1000);
  p.labels = {0};
  CHECK_THROWS_AS(draw_scatter({p}), ShapeError);
  CHECK_THROWS_AS(draw_scatter({}), ValueError);
}

TEST_CASE("cluster fit: some iterations at a time are the same as all at once") {
  const Tensor x = random({60, 3}, 5), start = narrow(x, 0, 0, 4);
  for (const char* method : {"kmeans", "kmeans-soft", "gmm", "fuzzy-kl", "fuzzy-entropy"}) {
    CAPTURE(method);
    const ClusterOptions o{.method = method, .sharpness = 2, .eps = 0.1};
    ClusterFit once(x, start, o), parts(x, start, o);
    CHECK(once.iterations() == 0);
    CHECK(same_bits(once.centres(), contiguous(start)));
    CHECK(once.couplings().shape() == Shape{60, 4});
    once.advance(7);
    for (const int n : {1, 2, 4}) parts.advance(n);
    CHECK(parts.iterations() == 7);
    CHECK(max_difference(once.centres(), parts.centres()) < 1e-12);
    CHECK(max_difference(once.couplings(), parts.couplings()) < 1e-12);
    REQUIRE(parts.scores().size() == 8);
    for (std::size_t i = 0; i < 8; ++i)
      CHECK(once.scores()[i] == doctest::Approx(parts.scores()[i]).epsilon(1e-12));
    if (std::string(method) != "fuzzy-kl" && std::string(method) != "gmm")
      for (std::size_t i = 1; i < 8; ++i) CHECK(!better(o, once.scores()[i - 1], once.scores()[i]));
    CHECK(max_difference(sum(once.couplings(), {1}), ones({60}, DType::f64)) < 1e-12);
  }
}

TEST_CASE("cluster fit: couplings and covariances are those of the centres they come with") {
  const Tensor x = random({80, 2}, 6), start = narrow(x, 0, 0, 3);
  ClusterFit hard(x, start, {.method = "kmeans"});
  hard.advance(50);
  const Plane plane = principal_plane(x);
  // At rest, the moments around a mean are the covariance of the members.
  const Tensor c = hard.couplings(), cov = hard.covariances(plane);
  for (std::int64_t j = 0; j < 3; ++j) {
    const Tensor w = narrow(c, 1, j, 1), d = x - narrow(hard.centres(), 0, j, 1);
    const Tensor expected = matmul(transpose(d, 0, 1), d * w) / sum(w);
    CHECK(max_difference(select(cov, 0, j), expected) < 1e-12);
  }
  for (const Covariance kind : {Covariance::full, Covariance::diag, Covariance::spherical}) {
    ClusterFit fit(x, start, {.method = "gmm", .covariance = kind, .eps = 0.01});
    fit.advance(3);
    const Tensor seen = fit.covariances(plane);
    REQUIRE(seen.shape() == Shape{3, 2, 2});
    const auto v = seen.to_vector<double>(), own = fit.mixture()->covariance.to_vector<double>();
    if (kind == Covariance::full) CHECK(v == own);
    if (kind == Covariance::diag) CHECK((v[0] == own[0] && v[3] == own[1] && v[1] == 0));
    if (kind == Covariance::spherical) CHECK((v[0] == own[0] && v[3] == own[0] && v[1] == 0));
  }
  // An objective of a start is that of its couplings.
  ClusterFit fuzzy(x, start, {.method = "fuzzy-entropy", .sharpness = 2});
  const double first = fuzzy.scores()[0];
  const Tensor s = start / norm(start, {1}, true);
  const Tensor agreements = matmul(x, transpose(s, 0, 1)), k = fuzzy.couplings();
  CHECK(first == doctest::Approx(sum(k * log(k)).item() / 2 - sum(k * agreements).item()));
}
