#pragma once
// Private: the iterations of EM routing, whoever competes for a child.

#include <functional>

#include <capsfw/layers/em_routing.hpp>

namespace capsfw::detail {

/// Who competes for a child.
struct EmCompetition {
  Tensor log_start;  ///< ln R before the first M step, broadcast to [B, I, J]
  /// ln weight_j + ln N(V_ij) [B, I, J] -> ln R_ij.
  std::function<Tensor(const Tensor&)> normalize;
};

/// R = 1/J, then softmax over j: the upper capsules of a sample.
EmCompetition compete_over_parents(std::int64_t parents, DType dtype);

/// True for options that the kernels do not know.
bool plain_only(const EmOptions& options);

/// ShapeError or ValueError unless the arguments fit votes of a shape; a_in null: known to fit.
void check_em(const char* who,
              const Shape& votes,
              const Tensor* a_in,
              const Tensor& beta_a,
              const Tensor& beta_u,
              const std::vector<double>& lambdas,
              const EmOptions& options);

/// Runs the iterations on arguments that check_em passed.
EmRouted run_em(const Tensor& votes,
                const Tensor& a_in,
                const Tensor& beta_a,
                const Tensor& beta_u,
                const std::vector<double>& lambdas,
                const EmOptions& options,
                const EmCompetition& competition);

}  // namespace capsfw::detail
