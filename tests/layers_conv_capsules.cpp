// Convolutional capsules, coordinate addition, class capsules.

#include <doctest/doctest.h>

#include <capsfw/layers/conv_capsules.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/matmul.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// Matrix capsules on a map, with weights and betas for a convolution.
struct Map {
  Tensor pose, activation, weight, beta_a, beta_u;
  std::vector<double> lambdas = {0.3, 0.4, 0.5};
  PatchOptions patches;
  ConvEmOptions options = {};

  /// B, C, H, W, P and J.
  Map(std::uint64_t seed, const Shape& s, std::int64_t parents, PatchOptions geometry)
      : pose(normal({s[0], s[1], s[2], s[3], s[4], s[4]}, seed)),
        activation(uniform({s[0], s[1], s[2], s[3]}, 0.1, 0.95, seed + 1)),
        weight(normal({s[1] * geometry.kernel.numel(), parents, s[4], s[4]}, seed + 2)),
        beta_a(normal({parents}, seed + 3) * 0.5),
        beta_u(normal({parents}, seed + 4) * 0.5),
        patches(geometry) {
    options.em.eps_var = 1e-2;
  }

  ConvEmRouted route(Competition who) const {
    ConvEmOptions o = options;
    o.competition = who;
    return conv_caps_em(pose, activation, weight, beta_a, beta_u, lambdas, patches, o);
  }
  Map sample(std::int64_t b) const {
    Map m = *this;
    m.pose = narrow(pose, 0, b, 1);
    m.activation = narrow(activation, 0, b, 1);
    return m;
  }
};

constexpr Competition kBoth[] = {Competition::patch, Competition::child};

/// Σ over all parents of all positions of the shares of every child: [B, C·H·W].
Tensor shares_of_children(const Map& m, const Tensor& assignments) {
  const std::int64_t children = m.activation.size(1) * m.activation.size(2) * m.activation.size(3);
  // The number of each child as its only "pose", so that patches tell where every child went; + 1
  // because the padding is 0.
  const Tensor numbers =
      reshape(arange(1, static_cast<double>(children) + 1, 1, DType::f64),
              {1, m.activation.size(1), m.activation.size(2), m.activation.size(3)});
  const Tensor went = reshape(to(capsule_patches(numbers, m.patches).values, DType::i64), {-1});
  const Tensor total = reshape(sum(assignments, {3}), {m.pose.size(0), -1});
  return index_add(children + 1, 1, went, total);
}

}  // namespace

TEST_CASE("conv_caps_dynamic routes every patch alone, equal full weights are shared weights") {
  const Tensor x = normal({2, 2, 5, 4, 3}, 5), shared = normal({3, 4, 3}, 6);
  const PatchOptions o{.kernel = {3, 2}, .stride = {2, 1}};
  const Tensor v = conv_caps_dynamic(x, shared, o);
  REQUIRE(v.shape() == Shape{2, 3, 2, 3, 4});
  const Tensor full = contiguous(broadcast_to(unsqueeze(shared, 0), {12, 3, 4, 3}));
  CHECK(max_difference(v, conv_caps_dynamic(x, full, o)) < 1e-12);
  const Tensor patch = reshape(narrow(narrow(narrow(x, 0, 1, 1), 2, 2, 3), 3, 1, 2), {1, 12, 3});
  const Tensor alone =
      dynamic_routing(votes_shared(patch, shared)).poses;  // sample 1, position (1, 1)
  CHECK(max_difference(select(alone, 0, 0), select(select(select(v, 0, 1), 1, 1), 1, 1)) < 1e-12);
}

TEST_CASE("capsules in the padding have share 0: patches route as without them") {
  const PatchOptions o{.kernel = {3, 2}, .stride = {2, 2}, .padding = {1, 1}};
  Map m(7, {2, 2, 4, 5, 2}, 3, o);
  const Tensor vectors = reshape(m.pose, {2, 2, 4, 5, 4}), weight = normal({12, 3, 4, 4}, 8);
  const Tensor dynamic = conv_caps_dynamic(vectors, weight, o);
  const ConvEmRouted em = m.route(Competition::patch);
  REQUIRE(em.poses.shape() == Shape{2, 3, 2, 3, 2, 2});
  // Position (0, 0) sees rows −1, 0, 1 and columns −1, 0: of its places those with ky ≥ 1, kx = 1.
  const Tensor places = from_vector(std::vector<std::int64_t>{3, 5, 9, 11});
  const Tensor poses = index_select(select(capsule_patches(m.pose, o).values, 1, 0), 1, places);
  const Tensor u = reshape(poses, {2, 4, 4}),
               a = index_select(select(capsule_patches(m.activation, o).values, 1, 0), 1, places);
  const Tensor v = dynamic_routing(votes_full(u, index_select(weight, 0, places))).poses;
  CHECK(max_difference(v, select(select(dynamic, 2, 0), 2, 0)) < 1e-12);
  const EmRouted r = em_routing(votes_matrix(poses, index_select(m.weight, 0, places)), a, m.beta_a,
                                m.beta_u, m.lambdas, m.options.em);
  const Tensor first = reshape(select(select(em.poses, 2, 0), 2, 0), {2, 3, 4});
  CHECK(max_difference(r.poses, first) < 1e-12);
  CHECK(max_difference(r.activations, select(select(em.activations, 2, 0), 2, 0)) < 1e-12);
  CHECK(largest(select(select(em.assignments, 1, 0), 1, 0)) == 0);
  for (const Competition who : kBoth)
    check_gradients(
        [m, who](const TensorList& in) -> TensorList {
          Map q = m;
          q.pose = in[0];
          q.activation = in[1];
          q.lambdas = {0.3, 0.4};
          const ConvEmRouted y = q.route(who);
          return {y.poses, y.activations};
        },
        {m.pose, m.activation});
}

TEST_CASE("E5 all parents at all positions compete for a child") {
  for (const PatchOptions& o : {PatchOptions{.kernel = {3, 3}, .stride = {1, 1}},
                                PatchOptions{.kernel = {2, 3}, .stride = {1, 2}},
                                PatchOptions{.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 2}},
                                PatchOptions{.kernel = {1, 1}, .stride = {2, 2}}}) {
    Map m(9, {2, 2, 5, 7, 2}, 3, o);
    CAPTURE(o.kernel.str());
    CAPTURE(o.stride.str());
    std::vector<Tensor> seen;
    m.options.em.observe = [&](const EmRouted& r) { seen.push_back(r.assignments); };
    const ConvEmRouted r = m.route(Competition::child);
    seen.push_back(r.assignments);
    const Tensor reached = index_add(
        71, 0,
        reshape(to(capsule_patches(reshape(arange(1, 71, 1, DType::f64), {1, 2, 5, 7}), o).values,
                   DType::i64),
                {-1}),
        ones({r.assignments.size(1) * r.assignments.size(2)}, DType::f64));
    for (const Tensor& assignments : seen) {
      const Tensor total = shares_of_children(m, reshape(assignments, r.assignments.shape()));
      for (std::int64_t k = 1; k <= 70; ++k)
        for (std::int64_t b = 0; b < 2; ++b) {
          const double expected = select(reached, 0, k).item() > 0 ? 1 : 0;
          CHECK(select(select(total, 0, b), 0, k).item() == doctest::Approx(expected));
        }
      CHECK(largest(select(total, 1, 0)) == 0);  // the padding
    }
    // In a patch of its own a child gets a share of 1 from every position that sees it.
    const Tensor shares = sum(m.route(Competition::patch).assignments, {3});
    const Tensor mask = capsule_patches(m.activation, o).mask;
    const Tensor expected = mask.defined() ? to(mask, DType::f64) : ones_like(select(shares, 0, 0));
    CHECK(max_difference(select(shares, 0, 1), expected) < 1e-12);
  }
}

TEST_CASE("both competitions agree where patches do not overlap") {
  const Map m(10, {2, 2, 5, 7, 2}, 3, {.kernel = {2, 3}, .stride = {2, 3}});  // leaves a border
  const ConvEmRouted a = m.route(Competition::patch), b = m.route(Competition::child);
  CHECK(max_difference(a.poses, b.poses) < 1e-11);
  CHECK(max_difference(a.activations, b.activations) < 1e-11);
  CHECK(max_difference(a.assignments, b.assignments) < 1e-11);
  CHECK(max_difference(a.variance, b.variance) < 1e-11);
  Map overlapping = m;
  overlapping.patches.stride = {1, 1};
  CHECK(max_difference(overlapping.route(Competition::patch).poses,
                       overlapping.route(Competition::child).poses) > 1e-2);
}

TEST_CASE("children outside all patches have no influence and gradient 0") {
  Map m(11, {1, 1, 5, 4, 2}, 2, {.kernel = {2, 2}, .stride = {2, 2}});
  for (const Competition who : kBoth) {
    Tensor pose = m.pose.detach().requires_grad_();
    Map q = m;
    q.pose = pose;
    const ConvEmRouted r = q.route(who);
    const Tensor g = grad(sum(r.poses) + sum(r.activations), pose);
    CHECK(largest(select(g, 2, 4)) == 0);
    CHECK(largest(select(g, 2, 0)) > 0);
    CHECK(all(isfinite(g)));
  }
}

TEST_CASE("E12 gradients flow through convolutional and class capsules, 1, 2 and 3 iterations") {
  for (const std::size_t iterations : {1U, 2U, 3U}) {
    Map m(12, {1, 2, 3, 4, 2}, 2, {.kernel = {2, 2}, .stride = {1, 2}});
    m.lambdas.resize(iterations);
    for (const Competition who : kBoth)
      check_gradients(
          [m, who](const TensorList& in) -> TensorList {
            Map q = m;
            q.pose = in[0], q.activation = in[1], q.weight = in[2], q.beta_a = in[3],
            q.beta_u = in[4];
            const ConvEmRouted r = q.route(who);
            return {r.poses, r.activations, r.assignments, r.variance};
          },
          {m.pose, m.activation, m.weight, m.beta_a, m.beta_u});
    check_gradients(
        [m](const TensorList& in) -> TensorList {
          const EmRouted r =
              class_caps_em(in[0], in[1], in[2], in[3], in[4], m.lambdas, {.em = m.options.em});
          return {r.poses, r.activations};
        },
        {m.pose, m.activation, normal({2, 2, 2, 2}, 13), m.beta_a, m.beta_u});
  }
}

TEST_CASE("E11 coordinates go to the right-hand column, or where they are asked to") {
  const Tensor votes = normal({2, 2, 3, 5, 2, 4, 4}, 14);
  for (const Dims& at : {Dims{}, Dims{3, 7}, Dims{0, 1}, Dims{12, 3}}) {
    CAPTURE(at.str());
    const Tensor added = coordinate_addition(votes, at) - votes;
    for (std::int64_t y = 0; y < 3; ++y)
      for (std::int64_t x = 0; x < 5; ++x) {
        const auto v =
            values(select(select(select(select(select(added, 0, 1), 0, 1), 0, y), 0, x), 0, 1));
        const std::int64_t row = at.empty() ? 3 : at[0], column = at.empty() ? 7 : at[1];
        for (std::int64_t e = 0; e < 16; ++e) {
          const double expected = e == row      ? (static_cast<double>(y) + 0.5) / 3
                                  : e == column ? (static_cast<double>(x) + 0.5) / 5
                                                : 0;
          CHECK(v[static_cast<std::size_t>(e)] == doctest::Approx(expected).epsilon(1e-12));
        }
      }
  }
  CHECK(message_of<ShapeError>([&] {
          coordinate_addition(votes, {3, 16});
        }) == "coordinate_addition: two different places in a pose of 16 elements; got [3, 16]");
  CHECK(contains(message_of<ShapeError>([&] {
                   coordinate_addition(zeros({1, 1, 2, 2, 1, 1, 1}));
                 }),
                 "in a pose of 1 elements"));
  CHECK(contains(message_of<ShapeError>([&] {
                   coordinate_addition(zeros({1, 2, 3}));
                 }),
                 "[B, C, H, W, J, P, P]; got [1, 2, 3]"));
}

TEST_CASE("class capsules route all children with weights shared by the positions") {
  const Map m(15, {2, 2, 3, 2, 2}, 3, {.kernel = {1, 1}});
  const Tensor weight = normal({2, 3, 2, 2}, 16);
  const EmRouted r = class_caps_em(m.pose, m.activation, weight, m.beta_a, m.beta_u, m.lambdas,
                                   {.em = m.options.em, .coordinates = false});
  const Tensor each = reshape(broadcast_to(unsqueeze(weight, 1), {2, 6, 3, 2, 2}), {12, 3, 2, 2});
  const EmRouted s =
      em_routing(votes_matrix(reshape(m.pose, {2, 12, 2, 2}), each), reshape(m.activation, {2, 12}),
                 m.beta_a, m.beta_u, m.lambdas, m.options.em);
  CHECK(max_difference(r.poses, s.poses) < 1e-12);
  CHECK(max_difference(r.activations, s.activations) < 1e-12);
  const EmRouted moved = class_caps_em(m.pose, m.activation, weight, m.beta_a, m.beta_u, m.lambdas,
                                       {.em = m.options.em});
  CHECK(max_difference(r.poses, moved.poses) > 0.1);
}

TEST_CASE("convolutional capsules: a sample alone, threads, and the smallest sizes") {
  const Map m(17, {3, 2, 4, 5, 2}, 3, {.kernel = {3, 2}, .padding = {1, 0}});
  for (const Competition who : kBoth) {
    const ConvEmRouted all = m.route(who);
    {
      const Threads one(1);
      CHECK(same_bits(all.poses, m.route(who).poses));
    }
    for (std::int64_t b = 0; b < 3; ++b) {
      const ConvEmRouted alone = m.sample(b).route(who);
      CHECK(max_difference(alone.poses, narrow(all.poses, 0, b, 1)) < 1e-12);
      CHECK(max_difference(alone.activations, narrow(all.activations, 0, b, 1)) < 1e-12);
    }
    Map one(18, {1, 1, 1, 1, 1}, 1, {.kernel = {1, 1}});
    one.lambdas = {0.5};
    CHECK(one.route(who).poses.shape() == Shape{1, 1, 1, 1, 1, 1});
  }
}

TEST_CASE("convolutional and class capsules: parents that are not kept, and no sample at all") {
  Map m(23, {2, 2, 3, 4, 2}, 3, {.kernel = {2, 2}});
  const Map all = m;
  const ConvEmOptions before = m.options;
  for (const Competition who : kBoth) {
    const Tensor total = shares_of_children(m, all.route(who).assignments);
    const std::int64_t patches = 2 * 2 * 3;
    m.options.em.kept = ones({patches, 3}, DType::b8);
    CHECK(max_difference(m.route(who).poses, all.route(who).poses) < 1e-11);
    m.options.em.kept = broadcast_to(ne(arange(3), 1), {patches, 3});
    const ConvEmRouted some = m.route(who);
    CHECK(largest(select(some.assignments, 3, 1)) == 0);
    CHECK(max_difference(shares_of_children(m, some.assignments), total) < 1e-11);
    m.lambdas = {0.5};  // the start alone
    CHECK(max_difference(shares_of_children(m, m.route(who).assignments), total) < 1e-11);
    m.lambdas = all.lambdas;
    m.options = before;
    Map none = m;
    none.pose = narrow(m.pose, 0, 0, 0);
    none.activation = narrow(m.activation, 0, 0, 0);
    CHECK(none.route(who).poses.shape() == Shape{0, 3, 2, 3, 2, 2});
  }
  ClassEmOptions o;
  o.em.kept = broadcast_to(ne(arange(3), 2), {2, 3});
  const Tensor weight = narrow(m.weight, 0, 0, 2);
  const EmRouted r = class_caps_em(m.pose, m.activation, weight, m.beta_a, m.beta_u, m.lambdas, o);
  CHECK(largest(select(r.poses, 1, 2)) == 0);
  CHECK(max_difference(sum(r.assignments, {2}), ones({2, 24}, DType::f64)) < 1e-11);
}

TEST_CASE("convolutional and class capsules say what is wrong") {
  const Map m(19, {1, 2, 4, 4, 2}, 3, {.kernel = {3, 3}});
  const auto text = [&](const auto& change) {
    Map q = m;
    change(q);
    return message_of<Error>([&] { q.route(Competition::patch); });
  };
  CHECK(text([](Map& q) {
          q.pose = zeros({1, 2, 4, 4, 2, 3});
        }) == "conv_caps_em: poses must be [B, C, H, W, P, P]; got [1, 2, 4, 4, 2, 3]");
  CHECK(text([](Map& q) { q.activation = {}; }) ==
        "conv_caps_em: activations must be [1, 2, 4, 4] for poses [1, 2, 4, 4, 2, 2]; got none");
  CHECK(text([](Map& q) {
          q.weight = zeros({9, 3, 2, 2});
        }) == "conv_caps_em: the weight must be [18, J, 2, 2]; got [9, 3, 2, 2]");
  CHECK(contains(text([](Map& q) { q.patches.kernel = {3}; }), "takes capsules [B, C, L]"));
  CHECK(contains(text([](Map& q) { q.beta_a = zeros({2}, DType::f64); }),
                 "conv_caps_em: beta_a must be [3]"));
  CHECK(text([](Map& q) { q.options.em.mask = zeros({1}, DType::b8); }) ==
        "conv_caps_em: takes no initial Gaussians and no mask");
  CHECK(contains(
      message_of<ShapeError>([&] {
        class_caps_em(m.pose, m.activation, zeros({3, 3, 2, 2}), m.beta_a, m.beta_u, m.lambdas);
      }),
      "class_caps_em: the weight must be [2, J, 2, 2]; got [3, 3, 2, 2]"));
  CHECK(message_of<ValueError>([] { competition("all"); }) ==
        "competition: patch or child; got 'all'");
  CHECK(competition("child") == Competition::child);
}
