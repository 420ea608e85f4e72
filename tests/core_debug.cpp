// Finding the first bad number, module paths, the picture of a graph, facts about the process.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/runtime.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/blas_check.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

Tensor leaf(const std::vector<double>& v) { return from_vector(v).requires_grad_(); }

}  // namespace

TEST_CASE("the anomaly guard names the op and the module path of the first NaN or infinity") {
  const Tensor x = from_vector<double>({2, -1});
  CHECK_NOTHROW(log(x));  // off by default
  const AnomalyGuard guard;
  const Scope net("net"), layer("fc1");
  std::string text = message_of<GradError>([&] { log(x); });
  CHECK(contains(text, "NaN in forward of 'log' at net/fc1 (output 0)"));
  CHECK(contains(text, "input [2] in [-1, 2]"));
  text = message_of<GradError>([&] { exp(x * 1000.0); });
  CHECK(contains(text, "infinity in forward of 'exp' at net/fc1"));
  // Where the input is bad already, this op is not to blame.
  const Tensor bad = from_vector<double>({NAN, 1});
  CHECK_NOTHROW(exp(bad));
  {
    const AnomalyGuard off(false);
    CHECK_NOTHROW(log(x));
  }
  CHECK_THROWS_AS(log(x), GradError);
}

TEST_CASE("the anomaly guard names the rule whose gradient went bad") {
  const Tensor x = leaf({0, 1});
  Tensor y;
  {
    const Scope layer("decoder");
    y = sqrt(x);
  }
  const AnomalyGuard guard;
  const std::string text = message_of<GradError>([&] { grad(sum(y), x); });
  CHECK(contains(text,
                 "infinity in backward of 'sqrt' at decoder (gradient for input 0 of shape "
                 "[2])"));
}

TEST_CASE("the anomaly guard does not blame a rule for the gradient that it was given") {
  const Tensor x = leaf({1, 2});
  Tensor y = exp(x);
  const AnomalyGuard guard;
  std::string text = message_of<GradError>([&] {
    grad(y, x, from_vector<double>({NAN, 1}), {.retain_graph = true});
  });
  CHECK(contains(text, "NaN in the gradient that reaches 'exp' (output 0 of shape [2])"));
  y.register_hook([](const Tensor& g) { return full_like(g, INFINITY); });
  text = message_of<GradError>([&] { grad(sum(y), x); });
  CHECK(contains(text, "infinity in the gradient that reaches 'exp' (output 0 of shape [2])"));
}

TEST_CASE("the anomaly guard does not look at gradients of constants") {
  const Tensor x = leaf({1, 2});
  const Tensor y = record("half", {x, ones({2}, DType::f64)}, x.detach() * 0.5, Save::none,
                          [](const Saved&, const Tensor& gy) {
                            return TensorList{gy * 0.5, gy / 0.0};
                          });
  const AnomalyGuard guard;
  CHECK(grad(sum(y), x).to_vector<double>() == std::vector<double>{0.5, 0.5});
}

TEST_CASE("nodes remember the scope in which they were recorded") {
  const Tensor x = leaf({1});
  Tensor y;
  {
    const Scope a("caps"), b("routing"), c("iter2");
    y = x * x;
  }
  CHECK(y.grad_fn()->path() == "caps/routing/iter2");
  CHECK(y.grad_fn()->where() == "'mul' at caps/routing/iter2");
  CHECK((x * x).grad_fn()->where() == "'mul'");
  CHECK((x * x).grad_fn()->path().empty());
}

TEST_CASE("the facts about this process are complete") {
  const RuntimeInfo info = runtime_info();
  CHECK_FALSE(info.version.empty());
  CHECK_FALSE(info.cpu.empty());
  CHECK_FALSE(info.blas.empty());
  CHECK(info.threads >= 1);
  CHECK((info.instructions == "baseline" || info.instructions == "avx2" ||
         info.instructions == "avx512"));
  const std::string line = info.str();
  CHECK(line.starts_with("capsfw " + info.version));
  CHECK(contains(line, "OpenBLAS " + info.blas));
  CHECK_FALSE(contains(line, "\n"));
  for (const std::string& w : info.warnings) CHECK(contains(w, "Cure:"));
}

TEST_CASE("kernels of OpenBLAS below what the CPU can do are reported, with the cure") {
  using detail::blas_warnings;
  using detail::Isa;
  CHECK(blas_warnings("SkylakeX", Isa::avx512, "", "").empty());
  CHECK(blas_warnings("Cooperlake", Isa::avx512, "Cooperlake", "").empty());
  CHECK(blas_warnings("Haswell", Isa::avx2, "Haswell", "").empty());
  CHECK(blas_warnings("Zen", Isa::avx2, "", "").empty());
  CHECK(blas_warnings("Prescott", Isa::baseline, "", "").empty());
  // OpenBLAS writes its names in several ways.
  CHECK(blas_warnings("SAPPHIRERAPIDS", Isa::avx512, "", "").empty());

  const auto one = [](std::string_view core, Isa cpu, std::string_view coretype) {
    const std::vector<std::string> w = blas_warnings(core, cpu, coretype, "");
    CHECK(w.size() == 1);
    return w.empty() ? std::string() : w.front();
  };
  std::string text = one("Haswell", Isa::avx512, "haswell");
  CHECK(contains(text, "OPENBLAS_CORETYPE=haswell makes OpenBLAS use Haswell kernels"));
  CHECK(contains(text, "Cure: unset OPENBLAS_CORETYPE"));
  text = one("Zen", Isa::avx512, "");  // a library that is older than the CPU
  CHECK(contains(text, "this OpenBLAS chose Zen kernels on a CPU with AVX-512"));
  CHECK(contains(text, "Cure: a newer libopenblas0-pthread, or OPENBLAS_CORETYPE=SkylakeX"));
  text = one("Prescott", Isa::avx2, "");
  CHECK(contains(text, "on a CPU with AVX2"));
  CHECK(contains(text, "OPENBLAS_CORETYPE=Haswell"));
  CHECK(contains(one("Nehalem", Isa::avx2, "Nehalem"), "Cure: unset OPENBLAS_CORETYPE"));

  const std::vector<std::string> both = blas_warnings("Haswell", Isa::avx512, "Haswell", "65536");
  REQUIRE(both.size() == 2);
  CHECK(contains(both[1], "OPENBLAS_L2_SIZE=65536"));
  CHECK(contains(both[1], "Cure: unset OPENBLAS_L2_SIZE"));
}
