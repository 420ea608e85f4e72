#include "evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw::golden {
namespace {

/// Gradients where there is something to differentiate, zeros elsewhere.
TensorList grad_or_zeros(const TensorList& outputs,
                         const TensorList& inputs,
                         const TensorList& cotangents,
                         bool create_graph) {
  TensorList ys, gys, gxs(inputs.size());
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (outputs[k].requires_grad()) {
      ys.push_back(outputs[k]);
      gys.push_back(cotangents[k]);
    }
  if (!ys.empty())
    gxs = grad(ys, inputs, gys, {.create_graph = create_graph, .allow_unused = true});
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!gxs[i].defined()) gxs[i] = zeros_like(inputs[i]);
  return gxs;
}

void add_all(Named& to,
             const std::string& kind,
             const std::vector<std::string>& names,
             const Tensor* values) {
  for (std::size_t i = 0; i < names.size(); ++i) to[kind + "." + names[i]] = values[i].detach();
}

/// Place of element k of a row-major tensor: "[1, 0, 2]".
std::string place(const Shape& shape, std::size_t k) {
  Dims at = Dims::filled(shape.rank(), 0);
  auto rest = static_cast<std::int64_t>(k);
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    at[axis] = rest % shape[axis];
    rest /= shape[axis];
  }
  return at.str();
}

void compare(Verdict& verdict,
             const std::string& where,
             const Tensor& actual,
             const Tensor& expected,
             double tolerance) {
  if (actual.shape() != expected.shape()) {
    verdict.problems.push_back(fmt::format("{} has shape {}, expected {}", where,
                                           actual.shape().str(), expected.shape().str()));
    return;
  }
  const auto x = actual.to_vector<double>(), y = expected.to_vector<double>();
  std::size_t at = 0;
  double worst = 0;
  for (std::size_t k = 0; k < x.size(); ++k)
    if (const double gap = std::abs(x[k] - y[k]); !(gap <= worst)) {
      worst = gap;
      at = k;
      if (std::isnan(gap)) break;
    }
  const double share = worst == 0 ? 0 : worst / tolerance;
  if (!(worst <= tolerance))
    verdict.problems.push_back(
        fmt::format("{}{} is {:.9g}, expected {:.9g}: off by {:.3g}, "
                    "tolerance {:.3g}",
                    where, place(expected.shape(), at), x[at], y[at], worst, tolerance));
  if (!(share <= verdict.worst)) {
    verdict.worst = share;
    verdict.worst_at = where;
  }
}

/// Everything that the file holds for orders up to `order`.
void compare_all(Verdict& verdict,
                 const CaseFile& file,
                 const Named& results,
                 DType dtype,
                 int order,
                 const std::string& when) {
  for (const auto& [kind, computed_at] : {std::pair{"out", 0}, {"grad", 1}, {"hvp", 2}, {"jvp", 2}})
    for (const std::string& name : file.names(kind)) {
      const std::string tensor = fmt::format("{}.{}", kind, name);
      const auto tolerance = file.tolerance(tensor, dtype);
      if (computed_at > order || !tolerance) continue;
      if (const auto it = results.find(tensor); it == results.end())
        verdict.problems.push_back(when + tensor + " was not computed");
      else
        compare(verdict, when + tensor, it->second, file.stored(tensor), *tolerance);
    }
}

}  // namespace

Evaluation evaluate(const CaseFile& file, Run run, DType dtype, int order) {
  const GradModeGuard recording(order > 0);
  Case c(file, dtype);
  const Named outputs = run(c);
  Evaluation e{.results = {}, .unread = c.unread()};  // before the inputs are read below
  for (const auto& [name, value] : outputs) e.results["out." + name] = value.detach();
  if (order == 0) return e;

  const std::vector<std::string>&inputs = file.diff_inputs(), differentiable = file.names("cot");
  TensorList xs, ys, cotangents;
  for (const std::string& name : inputs) xs.push_back(c[name]);
  for (const std::string& name : differentiable) {
    if (!outputs.contains(name)) throw IoError(fmt::format("no code computes output '{}'", name));
    ys.push_back(outputs.at(name));
    cotangents.push_back(file.copy("cot." + name, dtype).requires_grad_(order > 1));
  }
  const TensorList gradients = grad_or_zeros(ys, xs, cotangents, order > 1);
  add_all(e.results, "grad", inputs, gradients.data());
  if (order == 1) return e;

  Tensor inner = scalar(0, dtype);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    inner = inner + sum(gradients[i] * file.copy("dir." + inputs[i], dtype));
  TensorList targets = xs;
  targets.insert(targets.end(), cotangents.begin(), cotangents.end());
  const TensorList second = grad_or_zeros({inner}, targets, {ones_like(inner)}, false);
  add_all(e.results, "hvp", inputs, second.data());
  add_all(e.results, "jvp", differentiable, second.data() + inputs.size());
  return e;
}

Verdict check(const CaseFile& file, const Kind& kind) {
  Verdict verdict;
  std::set<std::string> unread;
  for (const DType dtype : {DType::f64, DType::f32})
    for (int order = 0; order <= file.order(); ++order) {
      const std::string when = fmt::format("{} at order {}: ", name_of(dtype), order);
      try {
        const Evaluation e = evaluate(file, kind.run, dtype, order);
        unread.insert(e.unread.begin(), e.unread.end());
        compare_all(verdict, file, e.results, dtype, order, when);
      } catch (const std::exception& e) {
        verdict.problems.push_back(when + e.what());
        break;  // the next order would say the same
      }
    }
  for (const std::string& name : unread)
    verdict.problems.push_back(fmt::format("{}: {} is given, but kind '{}' does not read it",
                                           file.name(), name, kind.pattern));
  return verdict;
}

}  // namespace capsfw::golden
