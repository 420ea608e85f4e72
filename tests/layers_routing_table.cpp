// The family of routings behind one interface: what every kind in the table has to keep to, on
// random shapes, with masks, and by finite differences.

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_routing_table.hpp"
#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing::routings;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

/// Gives `small` the parameters of `routing` that belong to the parents of `order` [J'], or to all.
void keep_parents(const Routing& routing,
                  const Routing& small,
                  std::int64_t parents,
                  const Tensor& order) {
  const TensorList from = routing.parameters();
  TensorList into = small.parameters();
  for (std::size_t k = 0; k < into.size(); ++k) {
    Tensor p = from[k].detach();
    for (int axis = 0; axis < p.dim(); ++axis)
      if (p.shape() != into[k].shape() && p.size(axis) == parents) p = index_select(p, axis, order);
    into[k].copy_(p);
  }
}

Votes sample(const Votes& v, std::int64_t k) {
  return {.votes = narrow(v.votes, 0, k, 1), .poses = narrow(v.poses, 0, k, 1)};
}

}  // namespace

TEST_CASE("D1 every routing: shapes, couplings of a child sum to 1 over the parents, all finite") {
  const Setup s;
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    const Routed out = (*routing)(s.draw());
    CHECK(out.poses.shape() == Shape{s.b, s.j, s.d});
    CHECK(out.couplings.shape() == Shape{s.b, s.i, s.j});
    CHECK(activations_of(out).shape() == Shape{s.b, s.j});
    CHECK(all(isfinite(out.poses)));
    if (competes_over_parents(spec))
      CHECK(max_difference(sum(out.couplings, {2}), ones({s.b, s.i}, DType::f64)) < 1e-12);
  }
}

TEST_CASE("D3 D4 every routing: a sample alone as in its batch, and the same again") {
  const Setup s;
  const Votes v = s.draw();
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    const Routed batch = (*routing)(v);
    CHECK(same_bits(batch.poses, (*routing)(v).poses));
    for (std::int64_t k = 0; k < s.b; ++k) {
      const Routed alone = (*routing)(sample(v, k));
      CHECK(max_difference(alone.poses, narrow(batch.poses, 0, k, 1)) < 1e-12);
      CHECK(max_difference(activations_of(alone), narrow(activations_of(batch), 0, k, 1)) < 1e-12);
    }
  }
}

TEST_CASE("D12 every routing takes sizes of one and odd shapes") {
  for (const Setup s : {Setup{1, 1, 1, 1, 1}, Setup{2, 1, 3, 4, 2}, Setup{2, 5, 1, 2, 3},
                        Setup{2, 3, 2, 1, 1}, Setup{2, 6, 3, 9, 2, DType::f32}})
    for (const std::string& spec : specs()) {
      CAPTURE(spec);
      const Routed out = (*s.make(spec))(s.draw());
      CHECK(out.poses.shape() == Shape{s.b, s.j, s.d});
      CHECK(all(isfinite(out.poses)));
      CHECK(all(isfinite(activations_of(out))));
    }
}

TEST_CASE("every routing agrees with finite differences to second order, in votes and parameters") {
  Setup s{.b = 2, .i = 3, .j = 2, .d = 2, .e = 2};
  for (const std::string& spec : specs()) {
    if (spec == "hard" || spec == "longest" || spec == "hard:straight_through") continue;
    CAPTURE(spec);
    const auto routing = s.make(spec);
    NamedTensors params = routing->named_parameters();
    Rng rng(5);
    for (auto& [name, p] : params) p.copy_(rng.normal(p.shape(), 0, 0.3, DType::f64));
    const auto run = [&](const TensorList& in) -> TensorList {
      const Routed out = (*routing)({.votes = in[0], .poses = in[1]});
      return {out.poses, activations_of(out)};
    };
    const Votes v = s.draw(2);
    // Most do not look at the poses of the children.
    testing::check_gradients(run, {v.votes, v.poses}, testing::kGradcheck, testing::Reads::some);
    // Parameters: by a directional difference, since they live in the module.
    for (auto& [name, p] : params) {
      const std::string& parameter = name;
      CAPTURE(parameter);
      const auto value = [&] {
        return sum(run({v.votes, v.poses})[0] * v.votes.size(3)) +
               sum(square(run({v.votes, v.poses})[1]));
      };
      CHECK(testing::check_parameter(value, p, rng));
    }
  }
}

TEST_CASE("every routing: children that do not exist count for nothing, whatever they hold") {
  const Setup s;
  const Votes v = s.draw();
  const std::int64_t there = 5;
  for (const std::string& spec : specs_of_fixed_size()) {
    CAPTURE(spec);
    if (has_prior(spec)) continue;  // belongs to a fixed number of children
    const auto routing = s.make(spec);
    Setup fewer = s;
    fewer.i = there;
    const auto small = fewer.make(spec);
    if (!routing->parameters().empty() && routing->parameter_count() != small->parameter_count())
      continue;  // parameters for every child
    Votes masked = v;
    masked.exists = broadcast_to(unsqueeze(lt(arange(s.i), there), 0), {s.b, s.i});
    masked.votes = where(unsqueeze(unsqueeze(masked.exists, -1), -1), v.votes, 1e3);
    const Routed a = (*routing)(masked);
    const Routed b =
        (*small)({.votes = narrow(v.votes, 1, 0, there), .poses = narrow(v.poses, 1, 0, there)});
    if (spec == "random") continue;  // other noise for another number of children
    CHECK(max_difference(a.poses, b.poses) < 1e-12);
    CHECK(largest(narrow(a.couplings, 1, there, s.i - there)) == 0);
    CHECK(all(isfinite(a.poses)));
  }
}

TEST_CASE("every routing: parents that are not kept take no part and are 0") {
  const Setup s;
  const Votes v = s.draw();
  const Tensor order = from_vector(std::vector<std::int64_t>{0, 2, 3});
  for (const std::string& spec : specs_of_fixed_size()) {
    CAPTURE(spec);
    if (has_prior(spec) || spec == "random") continue;
    Votes some = v;
    some.kept = broadcast_to(ne(arange(s.j), 1), {s.b, s.j});
    const auto routing = s.make(spec);
    Rng rng(6);
    for (Tensor p : routing->parameters()) p.copy_(rng.normal(p.shape(), 0, 0.5, p.dtype()));
    const Routed a = (*routing)(some);
    Setup fewer = s;
    fewer.j = 3;
    const auto small = fewer.make(spec);
    CHECK(largest(select(a.poses, 1, 1)) == 0);
    CHECK(largest(select(a.couplings, 2, 1)) == 0);
    CHECK(largest(select(activations_of(a), 1, 1)) == 0);
    if (competes_over_parents(spec) && spec != "self-attention")  // its prior comes on top
      CHECK(max_difference(sum(a.couplings, {2}), ones({s.b, s.i}, DType::f64)) < 1e-12);
    keep_parents(*routing, *small, s.j, order);
    const Routed b = (*small)({.votes = index_select(v.votes, 2, order), .poses = v.poses});
    CHECK(max_difference(index_select(a.poses, 1, order), b.poses) < 1e-12);
    CHECK(max_difference(index_select(activations_of(a), 1, order), activations_of(b)) < 1e-12);
  }
  Votes none = v;
  none.kept = zeros({s.b, s.j}, DType::b8);
  CHECK_THROWS_AS((*s.make("dynamic"))(none), ValueError);
}

TEST_CASE("every routing: products and windows that do not fit are refused") {
  const Setup s;
  Rng rng(1);
  const Tensor u = rng.normal({8, 9, 5}, 0, 1), weight = rng.normal({4, 3, 5}, 0, 1);
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    for (const VoteProduct& p :
         {VoteProduct{u, rng.normal({7, 4, 3, 5}, 0, 1)}, VoteProduct{u, narrow(weight, 2, 0, 4)},
          VoteProduct{select(u, 0, 0), weight}, VoteProduct{u, select(weight, 0, 0)}})
      CHECK_THROWS_AS(routing->route_product(p, {}), ShapeError);
    for (const VoteWindows& w : {VoteWindows{{u, weight}, 10, 1}, VoteWindows{{u, weight}, 10, 20},
                                 VoteWindows{{u, weight}, 0, 1}, VoteWindows{{u, weight}, 2, 0},
                                 VoteWindows{{u, rng.normal({9, 4, 3, 5}, 0, 1)}, 2, 1}})
      CHECK_THROWS_AS(routing->route_windows(w, {}), ShapeError);
    routing->set_iterations(routing->iterations());  // whatever it is, it may be set again
  }
}

TEST_CASE("options that a routing refuses are refused when it is made") {
  const Setup s;
  for (const char* spec :
       {"entropy:alphas=", "entropy:alphas=1/-1", "dynamic:iterations=0", "dynamic:squash_c=0",
        "kmeans:iterations=-1", "kmeans:sharpness=0", "hard:leaky", "kmeans:straight_through"}) {
    CAPTURE(std::string(spec));
    CHECK_THROWS_AS(s.make(spec), ValueError);
  }
  for (const char* spec :
       {"dynamic:prior,detach", "entropy:prior,detach", "kmeans:prior,detach", "hard:prior"}) {
    CAPTURE(std::string(spec));
    CHECK(contains(message_of<ValueError>([&] { s.make(spec); }),
                   "_routing: no gradient reaches a learned prior through couplings that are "
                   "constants. Hint: prior=false"));
  }
  s.make("hard:prior,straight_through");
}

TEST_CASE("every routing is observable: as many steps as iterations, the last one the result") {
  const Setup s;
  const Votes v = s.draw();
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    std::vector<RoutingStep> steps;
    const Routed out = (*routing)(v, [&](const RoutingStep& step) { steps.push_back(step); });
    REQUIRE(static_cast<int>(steps.size()) == routing->iterations());
    CHECK(max_difference(steps.back().poses, out.poses) < 1e-12);
    CHECK(max_difference(steps.back().couplings, out.couplings) < 1e-12);
    CHECK(max_difference((*routing)(v).poses, out.poses) < 1e-12);
    for (std::size_t t = 0; t < steps.size(); ++t) {
      CHECK(steps[t].iteration == static_cast<int>(t) + 1);
      CHECK(steps[t].entropy.shape() == Shape{s.b});
      CHECK(min(steps[t].entropy).item() > -1e-12);
      if (steps[t].objective.defined()) CHECK(steps[t].objective.shape() == Shape{s.b});
    }
  }
}

TEST_CASE("every observed iteration is a scope, which ends with the routing") {
  const Setup s;
  const Votes v = s.draw();
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    int t = 0;
    (*routing)(v, [&](const RoutingStep&) {
      CHECK(*detail::current_path() == fmt::format("{}/iteration {}", routing->kind(), ++t));
    });
    CHECK(t == routing->iterations());
    CHECK(detail::current_path() == nullptr);
    CHECK_THROWS_AS((*routing)(v, [](const RoutingStep&) { throw ValueError("enough"); }),
                    ValueError);
    CHECK(detail::current_path() == nullptr);
  }
}

TEST_CASE("objectives of observed steps never rise where they are promised not to") {
  Setup s{.b = 4, .i = 9, .j = 3, .d = 4, .e = 2};
  for (const char* spec :
       {"dynamic:iterations=8", "dynamic:iterations=8,squash_c=0.5", "kmeans:iterations=8",
        "kmeans:iterations=8,sharpness=3", "entropy:alphas=0.5/0.5/0.5/0.5/0.5"}) {
    CAPTURE(spec);
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      Tensor before;
      (*s.make(spec))(s.draw(seed), [&](const RoutingStep& step) {
        if (before.defined()) CHECK(max(step.objective - before).item() < 1e-10);
        before = step.objective;
      });
    }
  }
}

TEST_CASE("every routing gives the same bits on 1, 2, 3 and 7 threads, gradients too") {
  Setup s{.b = 5, .i = 70, .j = 6, .d = 8, .e = 4, .dtype = DType::f32};
  const int threads = num_threads();
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    TensorList first;
    for (const int n : {1, 2, 3, 7}) {
      set_num_threads(n);
      Votes v = s.draw();
      v.votes.requires_grad_();
      const Routed out = (*s.make(spec))(v);
      const Tensor g = grad(sum(square(out.poses)) + sum(activations_of(out)), v.votes);
      if (first.empty()) first = {out.poses, g};
      CHECK(same_bits(out.poses, first[0]));
      CHECK(same_bits(g, first[1]));
    }
  }
  set_num_threads(threads);
}

TEST_CASE("every routing in a dense layer, with every form of votes, a noise class and sampling") {
  Rng rng(1);
  const Tensor u = randn({2, 6, 4}, rng);
  for (const char* votes : {"full", "shared", "factorised", "matrix"})
    for (const std::string& spec : specs()) {
      CAPTURE(votes);
      CAPTURE(spec);
      DenseCapsules caps(
          6, 4, 3, 4, rng,
          {.routing = spec, .votes = vote_weights(votes), .noise_class = true, .keep = 0.75});
      const Routed out = caps.route(u);
      CHECK(out.poses.shape() == Shape{2, 3, 4});
      CHECK(out.couplings.shape() == Shape{2, 6, 4});
      backward(sum(square(activations_of(out))) + sum(square(out.poses)));
      CHECK(largest(caps.votes.weight.grad()) > 0);
    }
}

TEST_CASE("a spec is text: names, options, defaults, typed options, and what is wrong with it") {
  CHECK(RoutingSpec("kmeans:iterations=2").get("iterations") == "2");
  CHECK(RoutingSpec("hard").get("hard") == "true");
  CHECK(RoutingSpec(RoutingSpec("entropy:alphas=1/0.5").text()).get("alphas") == "1/0.5");
  CHECK(RoutingSpec(KmeansRoutingOptions{.iterations = 1, .squash_c = 0.5}).text() ==
        RoutingSpec("kmeans:iterations=1,squash_c=0.5").text());
  CHECK(RoutingSpec().name() == "dynamic");
  CHECK(RoutingSpec("dynamic").with("leaky", "true").get("leaky") == "true");
  CHECK(!RoutingSpec("kmeans").has("lambda"));
  CHECK(contains(message_of<ValueError>([] { RoutingSpec("kmean"); }),
                 "routing: one of dynamic, kmeans, hard, entropy, em,"));
  CHECK(contains(message_of<ValueError>([] { RoutingSpec("uniform:iterations=2"); }),
                 "routing 'uniform': no option 'iterations'; there are squash_c"));
  CHECK(message_of<ValueError>([] { RoutingSpec("dynamic:iterations=two"); }) ==
        "option iterations: must be a whole number; got 'two'");
  CHECK(message_of<ValueError>([] { RoutingSpec("dynamic:squash_c=nan"); }) ==
        "option squash_c: must be a number; got 'nan'");
  CHECK(message_of<ValueError>([] { RoutingSpec("dynamic:leaky=yes"); }) ==
        "option leaky: must be true or false; got 'yes'");
  CHECK(contains(message_of<ValueError>([] { RoutingSpec("em:variant=v9"); }),
                 "option variant: one of v1, v2, v3, v4, hinton, eq12; got 'v9'"));
  CHECK_THROWS_AS(RoutingSpec("dynamic:=3"), ValueError);
}

namespace {

/// A routing of a program's own: everything to the first parent.
struct FirstParentOptions {
  double share = 1;
};
void describe(OptionText& text, FirstParentOptions& o) { text.field("share", o.share); }
class FirstParent : public Routing {
 public:
  using Options = FirstParentOptions;
  FirstParent(const RoutingSize&, const Options& o, Rng&) : Routing("first_parent"), o_(o) {}

 protected:
  Routed forward(const Votes& v, const RoutingObserver&) override {
    const std::int64_t b = v.votes.size(0), i = v.votes.size(1), j = v.votes.size(2);
    const Tensor c = o_.share * one_hot(zeros({b, i}, DType::i64), j, v.votes.dtype());
    return {squash(weighted_sum(c, v.votes)), c};
  }

 private:
  Options o_;
};

}  // namespace

TEST_CASE("a program adds a routing of its own by name") {
  add_routing(routing_kind<FirstParent>("test-first-parent", "everything to the first parent"));
  CHECK_THROWS_AS(add_routing(routing_kind<FirstParent>("dynamic", "")), ValueError);
  Rng rng(1);
  DenseCapsules caps(3, 4, 2, 5, rng, {.routing = "test-first-parent:share=0.5"});
  const Routed out = caps.route(randn({2, 3, 4}, rng));
  CHECK(largest(select(out.poses, 1, 1)) == 0);
  CHECK(largest(select(out.poses, 1, 0)) > 0);
  CHECK(largest(out.couplings) == 0.5);
}

TEST_CASE("straight-through couplings are hard with the gradient of the soft ones") {
  Setup s{.b = 2, .i = 5, .j = 3, .d = 4, .e = 2};
  Votes v = s.draw();
  v.votes.requires_grad_();
  const Routed hard = (*s.make("hard"))(v), through = (*s.make("hard:straight_through"))(v);
  CHECK(max_difference(hard.poses, through.poses) < 1e-12);
  const Tensor a = grad(sum(hard.poses), v.votes), b = grad(sum(through.poses), v.votes);
  CHECK(max_difference(a, b) > 1e-3);
  // One iteration by hand: the values of the hard couplings, the gradient of the soft ones.
  for (const bool straight : {false, true}) {
    const KmeansRoutingOptions o{
        .iterations = 1, .sharpness = 1.5, .hard = true, .straight_through = straight};
    const auto n = static_cast<double>(s.j);
    const Tensor first = safe_normalize(sum(v.votes, {1}) * (1 / n));
    const Tensor soft = softmax(sum(v.votes * unsqueeze(first, 1), {-1}) * 1.5, -1),
                 hard_ones = one_hot(argmax(soft.detach(), -1), s.j, DType::f64);
    const Tensor c = straight ? hard_ones + soft - soft.detach() : hard_ones;
    const Tensor poses = squash(sum(unsqueeze(c, -1) * v.votes, {1}), o.squash_c);
    const Routed got = kmeans_routing(v.votes, o);
    CHECK(max_difference(got.poses, poses) < 1e-12);
    CHECK(max_difference(grad(sum(square(got.poses)), v.votes), grad(sum(square(poses)), v.votes)) <
          1e-12);
  }
}
