// Capsules for text: sizes, options, explanations.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/text_capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Tensor table(std::int64_t dim = 6) { return Rng(2).normal({20, dim}, 0, 1); }

TextCapsNetOptions tiny(std::vector<std::int64_t> ngrams = {3}) {
  return {.ngrams = std::move(ngrams), .filters = 5, .types = 3, .dim = 4, .window_types = 2};
}

std::unique_ptr<TextCapsNet> make(const TextCapsNetOptions& o, std::int64_t classes = 3) {
  Rng rng(5);
  auto net = std::make_unique<TextCapsNet>(table(), classes, o, rng);
  net->to(DType::f64);
  std::uint64_t seed = 30;
  for (Tensor p : net->parameters()) p.copy_(Rng(++seed).normal(p.shape(), 0, 0.5, DType::f64));
  net->eval();
  return net;
}

Tensor sentence(std::int64_t length) {
  std::vector<std::int64_t> ids;
  for (std::int64_t t = 0; t < length; ++t) ids.push_back(1 + (t * t + 3 * t) % 19);
  return from_vector(ids);
}

}  // namespace

TEST_CASE("text capsules: parameters of models A and B") {
  Rng rng(1);
  for (const std::int64_t e : {2, 6}) {
    TextCapsNet a(table(300), e, TextCapsNetOptions::a(), rng);
    CHECK(a.parameter_count() == 49'824 + 256 * e);  // beside the table, which is a buffer
    TextCapsNet b(table(300), e, TextCapsNetOptions::b(), rng);
    CHECK(b.parameter_count() == 178'272 + 768 * e);
  }
  TextCapsNet a(table(300), 2, TextCapsNetOptions::a(), rng);
  CHECK(a.least_length() == 5);
  CHECK(TextCapsNet(table(300), 2, TextCapsNetOptions::b(), rng).least_length() == 7);
  const std::string layers = a.summary();  // of 20 words
  CHECK(contains(layers, "grams1.conv     [B, 18, 32]"));
  CHECK(contains(layers, "[B, 18, 512]"));
  CHECK(contains(layers, "[B, 16, 16, 16]"));
  CHECK(contains(layers, "[B, 2, 16]"));
}

TEST_CASE("text capsules: by hand, from the layers' own functions") {
  TextCapsNetOptions o = tiny();
  o.squash_c = 0.5;
  o.routing = DynamicRoutingOptions{.iterations = 2, .squash_c = 0.5};
  const auto net = make(o);
  const Tensor words = Rng(8).normal({2, 7, 6}, 0, 1, DType::f64);
  const ClassifierOutput out = net->from_words(words);
  TextCapsules& branch = net->branch(0);
  // Position by position: 5 n-grams, 3 windows.
  TensorList windows;
  for (std::int64_t n = 0; n < 3; ++n) {
    TensorList children;  // (type, n-gram)
    for (std::int64_t type = 0; type < 3; ++type)
      for (std::int64_t k = 0; k < 3; ++k) {
        const Tensor gram = flatten(narrow(words, 1, n + k, 3), 1, 2);  // [B, 18]
        const Tensor features =
            relu(linear(gram, reshape(branch.conv.weight, {5, 18}), branch.conv.bias));
        const Tensor z = linear(features, branch.primary.weight, branch.primary.bias);
        children.push_back(squash(narrow(z, 1, 4 * type, 4), 0.5));
      }
    const Tensor votes = votes_shared(stack(children, 1), branch.windows.patch.votes.weight);
    windows.push_back(
        dynamic_routing(votes, {.iterations = 2, .squash_c = 0.5}).poses);  // [B, 2, 4]
  }
  const Tensor lower = flatten(stack(windows, 2), 1, 2);  // (type, window)
  const Routed classes = dynamic_routing(votes_shared(lower, branch.classes.votes.weight),
                                         {.iterations = 2, .squash_c = 0.5});
  CHECK(max_difference(out.poses, classes.poses) < 1e-12);
  CHECK(max_difference(out.couplings, classes.couplings) < 1e-12);
  CHECK(max_difference(out.lengths, safe_norm(classes.poses)) < 1e-12);
}

TEST_CASE("text capsules: any routing, with every option") {
  for (const char* routing :
       {"dynamic", "dynamic:iterations=1", "dynamic:leaky", "dynamic:leaky,activation",
        "dynamic:agreement=cosine", "kmeans", "hard", "entropy", "em", "uniform", "random",
        "longest", "self-attention:prior=false", "heinsen"}) {
    const std::string name = routing;
    CAPTURE(name);
    for (const bool noise : {false, true}) {
      TextCapsNetOptions o = tiny({2, 3});
      o.routing = routing;
      o.noise_class = noise;
      o.dim = 4;
      const auto net = make(o);
      const Tensor ids = stack({sentence(9), sentence(9)}),
                   mask = stack({ones({9}, DType::b8), lt(arange(9), 4.0)});
      const ClassifierOutput out = (*net)(ids, mask);
      CHECK(out.lengths.shape() == Shape{2, 3});
      CHECK(out.poses.shape() == Shape{2, 3, 4});
      CHECK(all(isfinite(out.lengths)));
      CHECK(out.couplings.shape() == Shape{2, (6 + 5) * 2, noise ? 4 : 3});
      // Windows beyond the end of the second sentence have no coupling: 4 words leave one window of
      // 2-grams, and less than one of 3-grams, which is filled up.
      const Tensor second =
          reshape(narrow(select(out.couplings, 0, 1), 0, 0, 12), {2, 6, noise ? 4 : 3});
      CHECK(largest(narrow(second, 1, 2, 4)) == 0);
      CHECK(largest(narrow(second, 1, 0, 1)) > 0);
      backward(sum(out.lengths));
    }
  }
}

TEST_CASE("text capsules: routing iterations") {
  const auto net = make(tiny({2, 3}));
  CHECK(net->routing_iterations() == 3);
  CHECK(net->uniform_iterations() == 1);
  const Tensor ids = unsqueeze(sentence(8), 0), three = (*net)(ids).lengths;
  net->set_routing_iterations(1);
  CHECK(net->routing_iterations() == 1);
  CHECK(max_difference((*net)(ids).lengths, three) > 1e-9);
  net->set_routing_iterations(3);
  CHECK(same_bits((*net)(ids).lengths, three));
  CHECK_THROWS_AS(net->set_routing_iterations(0), ValueError);
}

TEST_CASE("text capsules: learned couplings that do not look at the votes") {
  TextCapsNetOptions o = tiny();
  o.routing = "dynamic:iterations=1,prior";
  CHECK(contains(message_of<ValueError>([&] { make(o); }), "fixed number of children"));
  o.length = 9;
  const auto net = make(o);
  const auto couplings = [&](const Tensor& ids) {
    return net->branch(0)
        .explain({net->words().weight.dim() == 2 ? embedding(net->words().weight, unsqueeze(ids, 0))
                                                 : Tensor(),
                  {9}})
        .couplings;
  };
  const Tensor first = couplings(sentence(9)), other = couplings(flip(sentence(9), {0}));
  CHECK(same_bits(first, other));
  CHECK(max_difference(first, full(first.shape(), 1.0 / 3, DType::f64)) > 1e-3);
  CHECK(max_difference(sum(first, {2}), ones({5, 2}, DType::f64)) < 1e-12);
}

TEST_CASE("text capsules: weights for every place need one length") {
  TextCapsNetOptions o = tiny();
  o.shared_classes = false;
  CHECK(contains(message_of<ValueError>([&] { make(o); }), "sentences of one length"));
  o.length = 4;
  CHECK(contains(message_of<ValueError>([&] { make(o); }), "shorter than a window"));
  o.length = 9;
  o.shared_windows = false;
  const auto net = make(o);
  CHECK(net->longest() == 9);
  CHECK(net->branch(0).classes.votes.weight.shape() == Shape{5 * 2, 3, 4, 4});
  CHECK(net->branch(0).windows.patch.votes.weight.shape() == Shape{3 * 3, 2, 4, 4});
  const std::string message = message_of<ShapeError>([&] { (*net)(ones({1, 10}, DType::i64)); });
  CHECK(contains(message, "each of 9 words; got a sentence of 10 words"));
  CHECK(contains(message, "Hint"));
  // Padding to more than the length is fine.
  const Tensor ids = cat({sentence(6), zeros({8}, DType::i64)}), mask = lt(arange(14), 6.0);
  CHECK(same_bits((*net)(unsqueeze(ids, 0), unsqueeze(mask, 0)).lengths,
                  (*net)(unsqueeze(sentence(6), 0)).lengths));
}

TEST_CASE("text capsules: partial sampling is for training, the noise class for routing") {
  TextCapsNetOptions o = tiny();
  o.window_types = 4;
  o.keep = 0.5;
  const auto net = make(o);
  const Tensor ids = unsqueeze(sentence(9), 0), whole = (*net)(ids).lengths;
  net->train();
  const Tensor a = (*net)(ids).lengths, b = (*net)(ids).lengths;
  CHECK(max_difference(a, b) > 1e-9);
  CHECK(max_difference(a, whole) > 1e-9);
  net->eval();
  CHECK(same_bits((*net)(ids).lengths, whole));

  TextCapsNetOptions noise = tiny();
  noise.noise_class = true;
  const auto with = make(noise), without = make(tiny());
  const auto copy = [](const Tensor& from, Tensor to) { to.copy_(narrow(from, 0, 0, to.size(0))); };
  const auto p = with->parameters(), q = without->parameters();
  for (std::size_t k = 0; k < p.size(); ++k) copy(p[k], q[k]);
  CHECK((*with)(ids).lengths.shape() == Shape{1, 3});
  CHECK(max_difference((*with)(ids).lengths, (*without)(ids).lengths) > 1e-9);
  CHECK(max_difference(sum((*with)(ids).couplings, {2}), ones({1, 10}, DType::f64)) < 1e-12);
}

TEST_CASE("text capsules: an explanation adds up to the scores") {
  for (const bool noise : {false, true})
    for (const std::int64_t stride : {1, 2}) {
      TextCapsNetOptions o = tiny({2, 3});
      o.noise_class = noise;
      o.stride = stride;
      const auto net = make(o);
      const TextExplanation why = net->explain(sentence(11));
      REQUIRE(why.grams.size() == 2);
      CHECK(same_bits(why.scores, select((*net)(unsqueeze(sentence(11), 0)).lengths, 0, 0)));
      for (std::size_t k = 0; k < 2; ++k) {
        const NGramVotes& g = why.grams[k];
        const std::int64_t n = o.ngrams[k], reach = n + 2 * stride,
                           places = (11 - reach) / stride + 1;
        CHECK(g.width == reach);
        CHECK(g.stride == stride);
        CHECK(g.couplings.shape() == Shape{places, 2, 3});
        CHECK(g.lengths.shape() == Shape{places, 2, 3});
        CHECK(g.shares.shape() == Shape{places, 3});
        // Σ of the shares is ‖s‖, and ‖v‖ = ‖s‖² / (1 + ‖s‖²).
        const Routed r = net->branch(k).route(
            {reshape(embedding(net->words().weight, sentence(11)), {1, 11, 6}), {11}});
        const Tensor s = sum(g.shares, {0}), v = select(safe_norm(r.poses), 0, 0);
        CHECK(max_difference(square(s) / (square(s) + 1.0), v) < 1e-12);
        if (!noise)
          CHECK(max_difference(sum(g.couplings, {2}), ones({places, 2}, DType::f64)) < 1e-12);
        CHECK(all(ge(g.lengths, 0.0)));
      }
      // A window says the same wherever it stands: its votes depend on its own words alone.
      const std::int64_t skip = 2 * stride;
      const TextExplanation tail = net->explain(narrow(sentence(11), 0, skip, 11 - skip));
      const Tensor all_lengths = why.grams[1].lengths, rest = tail.grams[1].lengths;
      CHECK(max_difference(narrow(all_lengths, 0, 2, rest.size(0)), rest) < 1e-12);
    }
  const auto net = make(tiny());
  CHECK(net->explain(sentence(2)).grams[0].couplings.size(0) == 1);  // filled up
  CHECK_THROWS_AS(net->explain(unsqueeze(sentence(3), 0)), ShapeError);
  CHECK(net->explains());
  net->train();
  net->explain(sentence(5));
  CHECK(net->training());
}

TEST_CASE("text capsules: sizes that cannot be") {
  const auto fails = [](const TextCapsNetOptions& o, std::int64_t classes = 3) {
    Rng rng(1);
    CHECK_THROWS_AS(TextCapsNet(table(), classes, o, rng), ValueError);
  };
  fails(tiny({}));
  fails(tiny({0}));
  fails(tiny(), 0);
  TextCapsNetOptions o = tiny();
  o.window = 0;
  fails(o);
  o = tiny();
  o.stride = 0;
  fails(o);
  o = tiny();
  o.types = 0;
  fails(o);
  o = tiny();
  o.keep = 0;
  fails(o);
}

TEST_CASE("text capsules: first and second derivatives by the vectors of words") {
  for (const char* routing : {"dynamic:leaky", "dynamic:activation", "kmeans"}) {
    TextCapsNetOptions o = tiny({2});
    o.routing = routing;
    const auto net = make(o);
    const Tensor mask = stack({ones({6}, DType::b8), lt(arange(6), 4.0)});
    const auto f = [&](const TensorList& in) {
      return TensorList{net->from_words(in[0], mask).poses};
    };
    const TensorList words{Rng(4).normal({2, 6, 6}, 0, 1, DType::f64)};
    testing::check_gradients(f, words, {.components = 0});
  }
}

TEST_CASE(
    "text capsules: derivatives by every parameter, of the classes and of a penalty on them") {
  for (const char* routing : {"dynamic:leaky", "dynamic:activation", "kmeans", "heinsen"}) {
    CAPTURE(std::string(routing));
    TextCapsNetOptions o = tiny({2, 3});
    o.routing = routing;
    o.words = WordTable::tuned;
    const auto net = make(o);
    Rng rng(4);
    const Tensor ids = stack({sentence(6), flip(sentence(6), {0})});
    const Tensor mask = stack({ones({6}, DType::b8), lt(arange(6), 4.0)});
    const Tensor weights = rng.normal({2, 3, 4}, 0, 1, DType::f64);
    const auto value = [&] { return sum((*net)(ids, mask).poses * weights); };
    const Tensor words = rng.normal({2, 6, 6}, 0, 1, DType::f64).requires_grad_();
    const auto penalty = [&] {
      return sum(square(grad(sum(net->from_words(words, mask).poses * weights), words, {},
                             {.create_graph = true})));
    };
    for (const auto& [name, p] : net->named_parameters()) {
      const std::string& parameter = name;
      CAPTURE(parameter);
      CHECK(testing::check_parameter(value, p, rng));
      if (p.impl() != net->words().weight.impl())  // the penalty has words of its own
        CHECK(testing::check_parameter(penalty, p, rng));
    }
  }
}
