#include <capsfw/ops/functional.hpp>

#include <string_view>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// The inputs as targets of a gradient. Stand-ins, so that an input that was computed from another
/// one, or from what `fn` captured, is a variable of its own.
TensorList stand_ins(const TensorList& inputs, bool create_graph) {
  TensorList out;
  for (const Tensor& x : inputs) {
    if (!is_floating(x.dtype()))
      out.push_back(x);
    else if (create_graph && x.requires_grad())
      out.push_back(record("stand_in", {x}, x.detach(), Save::none,
                           [](const Saved&, const Tensor& gy) { return gy; }));
    else
      out.push_back(x.detach().requires_grad_());
  }
  return out;
}

void check_count(std::size_t got, std::size_t expected, std::string_view who, const char* rule) {
  if (got != expected)
    throw GradError(fmt::format("{}: {}; got {} for {}", who, rule, got, expected));
}

void check_like(const TensorList& directions, const TensorList& of, std::string_view who) {
  for (std::size_t i = 0; i < of.size(); ++i)
    if (is_floating(of[i].dtype()) &&
        (directions[i].shape() != of[i].shape() || directions[i].dtype() != of[i].dtype()))
      throw ShapeError(fmt::format("{}: direction {} must be like its tensor, {} {}; got {} {}",
                                   who, i, name_of(of[i].dtype()), of[i].shape().str(),
                                   name_of(directions[i].dtype()), directions[i].shape().str()));
}

/// Gradients of Σ ⟨cotangents, outputs⟩: zeros where nothing depends on an input, undefined for
/// integers.
TensorList gradients(const TensorList& outputs,
                     const TensorList& inputs,
                     const TensorList& cotangents,
                     bool create_graph,
                     bool retain_graph = false) {
  TensorList y, gy, x, out(inputs.size());
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (outputs[k].requires_grad()) {
      y.push_back(outputs[k]);
      gy.push_back(cotangents[k]);
    }
  for (const Tensor& t : inputs)
    if (t.requires_grad()) x.push_back(t);
  TensorList found(x.size());
  if (!y.empty() && !x.empty())
    found =
        grad(y, x, gy,
             {.create_graph = create_graph, .retain_graph = retain_graph, .allow_unused = true});
  for (std::size_t i = 0, next = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad()) {
      out[i] = found[next].defined() ? found[next] : zeros_like(inputs[i]);
      ++next;
    }
  return out;
}

TensorList finished(TensorList list, bool create_graph) {
  if (!create_graph)
    for (Tensor& t : list)
      if (t.defined()) t = t.detach();
  return list;
}

void check_one_number(const TensorList& outputs, std::string_view who) {
  if (outputs.size() != 1 || outputs[0].numel() != 1)
    throw ShapeError(
        fmt::format("{}: the function must return one tensor of one element; got {} of shape {}. "
                    "Hint: sum() or mean()",
                    who, outputs.size(), outputs.empty() ? "none" : outputs[0].shape().str()));
}

Shape joined(const Shape& a, const Shape& b) {
  Shape out = a;
  for (const std::int64_t d : b) out.push_back(d);
  return out;
}

/// Rows ∂y_i/∂x, stacked.
Tensor jacobian_of(const Tensor& y, const Tensor& x, bool create_graph) {
  TensorList rows;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    Tensor unit = zeros({y.numel()}, y.dtype());
    visit_float(y, "jacobian", [&]<class T>() { unit.mutable_data<T>()[i] = T(1); });
    rows.push_back(
        gradients({y}, {x}, {reshape(unit, y.shape())}, create_graph, /*retain_graph=*/true)[0]);
  }
  const Shape shape = joined(y.shape(), x.shape());
  return rows.empty() ? zeros(shape, x.dtype()) : reshape(stack(rows), shape);
}

}  // namespace

Differentiated vjp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& cotangents,
                   FunctionalOptions o) {
  const GradModeGuard recording(true);
  const TensorList x = stand_ins(inputs, o.create_graph), y = fn(x);
  check_count(cotangents.size(), y.size(), "vjp", "one cotangent per output");
  check_like(cotangents, y, "vjp");
  const TensorList g = gradients(y, x, cotangents, o.create_graph);
  return {finished(y, o.create_graph), finished(g, o.create_graph)};
}

Differentiated jvp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& tangents,
                   FunctionalOptions o) {
  check_count(tangents.size(), inputs.size(), "jvp", "one tangent per input");
  check_like(tangents, inputs, "jvp");
  const GradModeGuard recording(true);
  const TensorList x = stand_ins(inputs, o.create_graph), y = fn(x);
  TensorList u;  // uᵀ J is linear in u: where it is taken does not matter
  for (const Tensor& t : y)
    u.push_back(is_floating(t.dtype()) ? zeros_like(t).requires_grad_() : Tensor());
  TensorList g, v;
  const TensorList all = gradients(y, x, u, true);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (all[i].defined() && all[i].requires_grad()) {
      g.push_back(all[i]);
      v.push_back(tangents[i]);
    }
  TensorList along(y.size()), targets;
  for (const Tensor& t : u)
    if (t.defined()) targets.push_back(t);
  const TensorList found = gradients(g, targets, v, o.create_graph);
  for (std::size_t k = 0, next = 0; k < y.size(); ++k)
    if (u[k].defined()) along[k] = found[next++];
  return {finished(y, o.create_graph), finished(along, o.create_graph)};
}

Differentiated hvp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& vectors,
                   FunctionalOptions o) {
  check_count(vectors.size(), inputs.size(), "hvp", "one vector per input");
  check_like(vectors, inputs, "hvp");
  const GradModeGuard recording(true);
  const TensorList x = stand_ins(inputs, o.create_graph), y = fn(x);
  check_one_number(y, "hvp");
  TensorList g, v;
  const TensorList all = gradients(y, x, {ones_like(y[0])}, true);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (all[i].defined()) {
      g.push_back(all[i]);
      v.push_back(vectors[i]);
    }
  const TensorList h = gradients(g, x, v, o.create_graph);
  return {finished(y, o.create_graph), finished(h, o.create_graph)};
}

Tensor jacobian(const std::function<Tensor(const Tensor&)>& fn,
                const Tensor& x,
                FunctionalOptions o) {
  check_floating(x, "jacobian");
  const GradModeGuard recording(true);
  const Tensor at = stand_ins({x}, o.create_graph)[0], y = fn(at);
  return finished({jacobian_of(y, at, o.create_graph)}, o.create_graph)[0];
}

Tensor hessian(const std::function<Tensor(const Tensor&)>& fn,
               const Tensor& x,
               FunctionalOptions o) {
  check_floating(x, "hessian");
  const GradModeGuard recording(true);
  const Tensor at = stand_ins({x}, o.create_graph)[0], y = fn(at);
  check_one_number({y}, "hessian");
  const Tensor g = gradients({y}, {at}, {ones_like(y)}, true)[0];
  return finished({jacobian_of(g, at, o.create_graph)}, o.create_graph)[0];
}

}  // namespace capsfw
