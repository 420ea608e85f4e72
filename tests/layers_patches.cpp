// Patches: which child stands where.

#include <doctest/doctest.h>

#include <capsfw/layers/conv_capsules.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("P2 a patch holds x[y·s + ky − pad, x·s + kx − pad] for every element") {
  struct Geometry {
    Dims kernel, stride, padding;
  };
  const Tensor x = normal({2, 3, 5, 7, 2, 2}, 1);
  const auto v = values(x);
  for (const Geometry& geometry : {Geometry{{3, 3}, {1, 1}, {0, 0}},
                                   {{2, 3}, {2, 3}, {0, 0}},
                                   {{3, 2}, {2, 1}, {1, 1}},
                                   {{5, 7}, {1, 1}, {4, 6}},
                                   {{1, 1}, {3, 2}, {0, 0}}}) {
    const Dims &k = geometry.kernel, &s = geometry.stride, &pad = geometry.padding;
    CAPTURE(k.str());
    const Patches p = capsule_patches(x, {.kernel = k, .stride = s, .padding = pad});
    const std::int64_t ho = (5 + 2 * pad[0] - k[0]) / s[0] + 1,
                       wo = (7 + 2 * pad[1] - k[1]) / s[1] + 1;
    REQUIRE(p.size == Dims{ho, wo});
    REQUIRE(p.values.shape() == Shape{2, ho * wo, 3 * k[0] * k[1], 2, 2});
    CHECK(p.mask.defined() == (pad[0] + pad[1] > 0));
    const auto got = values(p.values);
    const auto mask = p.mask.defined() ? p.mask.to_vector<bool>() : std::vector<bool>();
    std::size_t at = 0, wrong = 0;
    for (std::int64_t b = 0; b < 2; ++b)
      for (std::int64_t n = 0; n < ho * wo; ++n)
        for (std::int64_t i = 0; i < 3 * k[0] * k[1]; ++i)
          for (std::int64_t e = 0; e < 4; ++e) {
            const std::int64_t c = i / (k[0] * k[1]),
                               row = n / wo * s[0] + i / k[1] % k[0] - pad[0],
                               column = n % wo * s[1] + i % k[1] - pad[1];
            const bool inside = row >= 0 && row < 5 && column >= 0 && column < 7;
            const double expected =
                inside ? v[static_cast<std::size_t>((((b * 3 + c) * 5 + row) * 7 + column) * 4 + e)]
                       : 0.0;
            wrong += got[at++] != expected ? 1U : 0U;
            if (!mask.empty())
              wrong += mask[static_cast<std::size_t>(n * 3 * k[0] * k[1] + i)] != inside;
          }
    CHECK(wrong == 0);
  }
}

TEST_CASE("P2 patches of sequences are those of a map with one row") {
  const Tensor x = normal({2, 3, 9, 4}, 2);
  const Patches a = capsule_patches(x, {.kernel = {4}, .stride = {2}, .padding = {1}});
  const Patches b =
      capsule_patches(unsqueeze(x, 2), {.kernel = {1, 4}, .stride = {1, 2}, .padding = {0, 1}});
  CHECK(a.size == Dims{4});
  CHECK(same_bits(a.values, b.values));
  CHECK(same_bits(a.mask, b.mask));
}

TEST_CASE("children that no patch reaches get gradient 0, the others as often as they are seen") {
  Tensor x = normal({1, 1, 6, 5, 1}, 3).requires_grad_();
  const Patches p = capsule_patches(x, {.kernel = {3, 3}, .stride = {2, 2}});
  const Tensor g = reshape(grad(sum(p.values), x), {6, 5});
  CHECK(largest(select(g, 0, 5)) == 0);  // 3 + 2 rows are used
  CHECK(select(select(g, 0, 2), 0, 2).item() == 4);
  CHECK(select(select(g, 0, 0), 0, 2).item() == 2);
  check_gradients(
      [](const TensorList& in) -> TensorList {
        return {
            capsule_patches(in[0], {.kernel = {2, 3}, .stride = {1, 2}, .padding = {1, 0}}).values};
      },
      {normal({2, 2, 3, 5, 2}, 4)});
}

TEST_CASE("patches say what is wrong") {
  const Tensor x = zeros({1, 2, 4, 6, 3});
  const auto text = [&](const PatchOptions& o) {
    return message_of<Error>([&] { capsule_patches(x, o); });
  };
  CHECK(text({.kernel = {5, 3}}) ==
        "capsule_patches: a kernel of 5 does not fit into 4 positions with padding 0");
  CHECK(contains(text({.kernel = {3, 3}, .padding = {3, 0}}),
                 "padding at least 0 and below the kernel"));
  CHECK(contains(text({.kernel = {3, 3}, .stride = {0, 1}}), "got kernel 3, stride 0, padding 0"));
  CHECK(contains(text({.kernel = {3, 3}, .stride = {1}}), "one number (sequences) or two (maps)"));
  CHECK(contains(text({.kernel = {}}), "one number (sequences) or two (maps)"));
  CHECK(contains(message_of<ShapeError>([] {
                   capsule_patches(zeros({2, 3}), {});
                 }),
                 "takes capsules [B, C, H, W, ...]; got [2, 3]"));
  CHECK(contains(message_of<ShapeError>([&] {
                   conv_caps_dynamic(x, zeros({9, 1, 1, 2}), {});
                 }),
                 "votes_full: takes u [B, I, E]"));
}
