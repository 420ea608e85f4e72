#include <capsfw/layers/classifier.hpp>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>

namespace capsfw {
namespace {

std::string table_row(const std::string& name, const Shape& shape, std::int64_t count) {
  std::string text = "[B";
  for (int i = 1; i < shape.rank(); ++i) text += fmt::format(", {}", shape[i]);
  return fmt::format("{:<12}{:<24}{:>12}\n", name, text + "]", count);
}

std::string rows(const std::string& prefix, const Module& of) {
  std::string table;
  for (const auto& [name, module] : of.children()) {
    const auto* layer = dynamic_cast<const Layer*>(module);
    if (layer == nullptr && !module->children().empty())
      table += rows(prefix + name + ".", *module);
    else
      table += table_row(prefix + name, layer != nullptr ? layer->output_shape() : Shape{},
                         module->parameter_count());
  }
  return table;
}

}  // namespace

void Classifier::set_routing_iterations(int n) {
  if (n != 0) throw ValueError(fmt::format("{}: there is no routing to iterate", who_));
}

std::string Classifier::layer_table(const Shape& input, const std::function<void()>& run) {
  const NoGradGuard no_grad;
  const bool was_training = training();
  eval();
  run();
  train(was_training);
  return fmt::format("{:<12}{:<24}{:>12}\n", "layer", "output", "parameters") +
         table_row("input", input, 0) + rows("", *this) +
         fmt::format("{:<12}{:<24}{:>12}\n", "total", "", parameter_count());
}

}  // namespace capsfw
