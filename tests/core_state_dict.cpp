#include <doctest/doctest.h>

#include <capsfw/core/state_dict.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("a StateDict keeps the order of insertion and replaces in place") {
  StateDict state;
  state.set("b", scalar(1));
  state.set("a", scalar(2));
  state.set("b", scalar(3));
  CHECK(state.size() == 2);
  CHECK(state.contains("a"));
  CHECK_FALSE(state.contains("c"));
  CHECK(state.at("b").item() == 3);
  std::string names;
  for (const auto& [name, value] : state) names += name;
  CHECK(names == "ba");
}

TEST_CASE("prefixes nest: merge and under are inverse") {
  StateDict inner, outer;
  inner.set("weight", scalar(1));
  inner.set("bias", scalar(2));
  outer.merge("net.fc1", inner);
  outer.set("net.fc10.weight", scalar(3));
  CHECK(outer.at("net.fc1.weight").item() == 1);
  const StateDict back = outer.under("net.fc1");
  CHECK(back.size() == 2);
  CHECK(back.at("bias").item() == 2);
  CHECK(outer.under("net").size() == 3);
  CHECK(outer.under("nothing").size() == 0);
}

TEST_CASE("a missing name lists what is there") {
  StateDict state;
  CHECK(contains(message_of<ValueError>([&] { state.at("x"); }), "no entry 'x' among 0"));
  for (int k = 0; k < 10; ++k) state.set("p" + std::to_string(k), scalar(k));
  const std::string text = message_of<ValueError>([&] { state.at("weight"); });
  CHECK(contains(text, "no entry 'weight' among 10 (p0, p1"));
  CHECK(contains(text, "..."));
  CHECK_FALSE(contains(text, "p9"));
  state.set("layer19.weight", scalar(0));
  CHECK(contains(message_of<ValueError>([&] { state.at("layer19.weigth"); }),
                 "among 11 (layer19.weight, "));
}
