#include <capsfw/layers/kmeans_routing.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>

namespace capsfw {

Routed kmeans_routing(const Tensor& votes, const KmeansRoutingOptions& o) {
  if (votes.dim() != 4)
    throw ShapeError(
        fmt::format("kmeans_routing: votes must be [B, I, J, D]; got {}", votes.shape().str()));
  if (o.iterations < 0 || !(o.sharpness > 0) || !(o.squash_c > 0))
    throw ValueError(fmt::format(
        "kmeans_routing: iterations ≥ 0, sharpness > 0 and squash_c > 0; got {}, {} and {}",
        o.iterations, o.sharpness, o.squash_c));
  const Tensor seen = o.detach ? votes.detach() : votes;
  const std::int64_t parents = votes.size(2);
  Tensor c = full({votes.size(0), votes.size(1), parents}, 1.0 / static_cast<double>(parents),
                  votes.dtype());
  Tensor sum = weighted_sum(c, o.iterations == 0 ? votes : seen);
  for (int t = 1; t <= o.iterations; ++t) {
    const Tensor score = agreement(seen, safe_normalize(sum));
    c = o.hard ? one_hot(argmax(score, -1), parents, votes.dtype())
               : softmax(score * o.sharpness, -1);
    sum = weighted_sum(c, t == o.iterations ? votes : seen);
  }
  return {squash(sum, o.squash_c), c};
}

}  // namespace capsfw
