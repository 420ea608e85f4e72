#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/se.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

Named se_block(Case& c) {
  Rng rng;
  SEBlock layer(c["U"].size(1), rng, {.hidden = c["W1"].size(0)});
  c.load(layer,
         {{"fc1.weight", "W1"}, {"fc1.bias", "b1"}, {"fc2.weight", "W2"}, {"fc2.bias", "b2"}});
  return {{"y", layer(c["U"])}};
}

Named two_digits(Case& c) {
  const TwoDigitAccuracy a = two_digit_accuracy(c["scores"], c["pairs"], c.number("threshold"));
  return {{"accuracy", full({}, a.exact, DType::f64)},
          {"accuracy_confident", full({}, a.confident, DType::f64)}};
}

const Kind kKinds[] = {
    {"net.se_block*", se_block},
    {"net.se_gate*",
     [](Case& c) -> Named {
       return {{"v", se_gate(c["u"], c["W1"], c["b1"], c["W2"], c["b2"])}};
     }},
    {"net.two_digit_accuracy*", two_digits},
};

}  // namespace

std::span<const Kind> net_kinds() { return kKinds; }

}  // namespace capsfw::golden
