#include <capsfw/layers/entropy_routing.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>

namespace capsfw {

Routed entropy_routing(const Tensor& votes, const EntropyRoutingOptions& o) {
  if (votes.dim() != 4)
    throw ShapeError(
        fmt::format("entropy_routing: votes must be [B, I, J, D]; got {}", votes.shape().str()));
  if (o.alphas.empty())
    throw ValueError("entropy_routing: at least one temperature (one iteration)");
  for (double alpha : o.alphas)
    if (!(alpha > 0))
      throw ValueError(
          fmt::format("entropy_routing: temperatures must be positive; got {}", alpha));
  const Tensor seen = o.detach ? votes.detach() : votes;
  Tensor b = zeros({votes.size(0), votes.size(1), votes.size(2)}, votes.dtype());
  Tensor c, sum;
  for (std::size_t t = 0; t < o.alphas.size(); ++t) {
    const bool last = t + 1 == o.alphas.size();
    c = softmax(b, -1);
    sum = weighted_sum(c, last ? votes : seen);
    if (!last) b = agreement(seen, safe_normalize(sum)) / o.alphas[t];
  }
  const Tensor longest = max(safe_norm(sum), {-1}, true);  // [B, 1]
  return {sum / (unsqueeze(longest, -1) + 1.0), c};
}

}  // namespace capsfw
