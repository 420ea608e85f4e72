#include <capsfw/layers/classifier.hpp>

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>

namespace capsfw {
namespace {

struct Row {
  std::string name, shape;
  std::int64_t count;
};

std::string shape_text(const Shape& shape) {
  std::string text = "[B";
  for (int i = 1; i < shape.rank(); ++i) text += fmt::format(", {}", shape[i]);
  return text + "]";
}

void add_rows(std::vector<Row>& rows, const std::string& prefix, const Module& of) {
  for (const auto& [name, module] : of.children()) {
    const auto* layer = dynamic_cast<const Layer*>(module);
    if (layer == nullptr && !module->children().empty())
      add_rows(rows, prefix + name + ".", *module);
    else
      rows.push_back({prefix + name, shape_text(layer != nullptr ? layer->output_shape() : Shape{}),
                      module->parameter_count()});
  }
}

}  // namespace

void Classifier::set_routing_iterations(int n) {
  if (n != 0) throw ValueError(fmt::format("{}: there is no routing to iterate", who_));
}

std::string Classifier::layer_table(const Shape& input, const std::function<void()>& run) {
  const NoGradGuard no_grad;
  const ModeGuard mode(*this);
  eval();
  run();
  std::vector<Row> rows{{"input", shape_text(input), 0}};
  add_rows(rows, "", *this);
  std::size_t width = 12;
  for (const Row& row : rows) width = std::max(width, row.name.size() + 2);
  std::string table = fmt::format("{:<{}}{:<24}{:>12}\n", "layer", width, "output", "parameters");
  for (const Row& row : rows)
    table += fmt::format("{:<{}}{:<24}{:>12}\n", row.name, width, row.shape, row.count);
  return table + fmt::format("{:<{}}{:<24}{:>12}\n", "total", width, "", parameter_count());
}

}  // namespace capsfw
