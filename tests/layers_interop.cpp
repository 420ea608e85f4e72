// Weights of a PyTorch CapsNet here, and ours there; tables of names.

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include <capsfw/core/random.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/layers/interop.hpp>
#include <capsfw/ops/layout.hpp>

#include "data_common.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// The network of tests/interop/make.py.
CapsNetOptions small_options() {
  CapsNetOptions o;
  o.image = {2, 10, 9};
  o.convs = {{4, 3, 1}};
  o.primary = {2, 4};
  o.primary_kernel = 3;
  o.capsules = {{3, 5}};
  o.decoder_hidden = {8, 12};
  return o;
}

struct Kind {
  const char* name;
  PytorchLayout layout;
};
constexpr Kind kKinds[] = {{"component", PytorchLayout::by_component},
                           {"type", PytorchLayout::by_type}};

StateDict numbers(std::initializer_list<std::pair<const char*, Shape>> entries) {
  StateDict out;
  Rng rng(4);
  for (const auto& [name, shape] : entries) out.set(name, rng.normal(shape, 0, 1));
  return out;
}

bool same_state(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, t] : a)
    if (!b.contains(name) || !same_bits(t, b.at(name))) return false;
  return true;
}

}  // namespace

TEST_CASE("interop: a PyTorch CapsNet computes the same here, and takes its weights back") {
  // tests/interop/run.sh names a folder with fresh files; else those in the repository.
  const char* given = std::getenv("CAPSFW_INTEROP_DIR");
  const std::filesystem::path folder =
      given != nullptr ? given : std::filesystem::path(CAPSFW_SOURCE_DIR) / "tests/interop";
  for (const Kind& kind : kKinds) {
    CAPTURE(kind.name);
    const std::string name = kind.name;
    const StateDict theirs = load_safetensors(folder / (name + ".safetensors")).state,
                    io = load_safetensors(folder / (name + ".io.safetensors")).state;
    Rng rng(1);
    CapsNet net(small_options(), rng);
    net.eval();
    // [import]
    const NameTable table = pytorch_names(net, kind.layout);
    net.load_state_dict(import_state(theirs, net.state_dict(), table));
    // [import]
    const ClassifierOutput out = net(io.at("x"));
    CHECK(largest(io.at("lengths")) > 0.3);  // a network that tells something
    CHECK(max_difference(out.poses, io.at("poses")) < 1e-5);
    CHECK(max_difference(out.lengths, io.at("lengths")) < 1e-5);
    CHECK(max_difference(out.reconstruction, io.at("reconstruction")) < 1e-5);

    // [export]
    const StateDict back = export_state(net.state_dict(), table);
    // [export]
    CHECK(same_state(back, theirs));
    if (given != nullptr) save_safetensors(folder / (name + ".back.safetensors"), back);
    // Through NPZ as well.
    const data_test::TempDir dir;
    save_npz(dir / "back.npz", back);
    CHECK(same_state(load_npz(dir / "back.npz"), theirs));
  }
}

TEST_CASE("interop: a layout by hand, stacked, permuted and reshaped, and back") {
  const StateDict ours = numbers({{"w", {6, 4}}, {"v", {3}}, {"same", {2, 2}}});
  const NameTable table = {
      {.ours = "w", .theirs = "caps.*.kernel", .shape = {2, 4, 3}, .order = {2, 0, 1}},
      {.ours = "v", .theirs = "bias", .shape = {1, 3}},
      {.ours = "same", .theirs = "equal"},
      {.ours = "", .theirs = "bn.*.num_batches_tracked"},
      {.ours = "", .theirs = "step"}};
  StateDict theirs = export_state(ours, table);
  CHECK(theirs.size() == 4);
  // Element (a, b) of ours, a = 2 c + k, is element (b, c) of piece k.
  const Tensor piece = theirs.at("caps.1.kernel");
  CHECK(piece.shape() == Shape{4, 3});
  CHECK(values(select(select(piece, 0, 3), 0, 2)) ==
        values(select(select(ours.at("w"), 0, 5), 0, 3)));
  theirs.set("bn.7.num_batches_tracked", scalar(3, DType::i64));
  theirs.set("step", scalar(1));
  CHECK(same_state(import_state(theirs, ours, table), ours));
  // The type is ours.
  theirs.set("equal", cast_data(theirs.at("equal"), DType::f64));
  CHECK(import_state(theirs, ours, table).at("same").dtype() == DType::f32);
}

TEST_CASE("interop: an axis that holds two, as in matrices stored as [I, E, J D]") {
  const StateDict ours = numbers({{"w", {2, 3, 4, 5}}});  // [I, J, D, E]
  // [rule]
  const NameTable table = {{.ours = "w",
                            .theirs = "digitCaps.weights",
                            .shape = {2, 5, 3 * 4},
                            .order = {0, 2, 3, 1},
                            .view = {2, 5, 3, 4}}};
  // [rule]
  const StateDict theirs = export_state(ours, table);
  const Tensor w = theirs.at("digitCaps.weights");
  CHECK(w.shape() == Shape{2, 5, 12});
  const auto at = [](const Tensor& x, std::initializer_list<std::int64_t> position) {
    Tensor y = x;
    for (const std::int64_t i : position) y = select(y, 0, i);
    return y.item();
  };
  CHECK(at(w, {1, 4, 2 * 4 + 3}) == at(ours.at("w"), {1, 2, 3, 4}));
  CHECK(same_state(import_state(theirs, ours, table), ours));
}

TEST_CASE("interop: everything that does not fit is listed, and nothing is guessed") {
  const StateDict ours = numbers({{"a", {2, 3}}, {"b", {4}}, {"c", {1}}});
  const NameTable table = {{.ours = "a", .theirs = "x", .shape = {3, 2}, .order = {1, 0}},
                           {.ours = "b", .theirs = "y.*", .shape = {2, 2}},
                           {.ours = "c", .theirs = "z"}};
  StateDict theirs = numbers({{"x", {2, 3}}, {"y.0", {2}}, {"more", {5}}});
  CHECK(message_of<ValueError>([&] { import_state(theirs, ours, table); }) ==
        "import_state: the state does not fit the table:\n"
        "  shape: x is [2, 3], [3, 2] in the table\n"
        "  missing: y.1 [2]\n"
        "  missing: z [1]\n"
        "  unexpected: more [5]");
  const auto wrong = [&](const NameRule& rule) {
    return message_of<ValueError>([&] {
      export_state(ours, {{.ours = "b", .theirs = "b"}, {.ours = "c", .theirs = "c"}, rule});
    });
  };
  CHECK(contains(wrong({.ours = "a", .theirs = "a", .shape = {7}}), "not as many elements"));
  CHECK(contains(wrong({.ours = "a", .theirs = "a", .order = {0, 0}}), "each axis"));
  CHECK(contains(wrong({.ours = "a", .theirs = "a", .order = {0, 2}}), "each axis"));
  CHECK(contains(wrong({.ours = "a", .theirs = "a", .order = {0}}), "each axis"));
  CHECK(contains(wrong({.ours = "a", .theirs = "b"}), "two tensors for b"));
  CHECK(contains(wrong({.ours = "b", .theirs = "d"}), "two for b"));
  CHECK(contains(wrong({.ours = "d", .theirs = "d"}), "no tensor of ours"));
  CHECK(contains(wrong({.ours = "b2", .theirs = "d"}), "no rule: a [2, 3]"));
  StateDict rank0;
  rank0.set("s", scalar(1));
  CHECK(contains(
      message_of<ValueError>([&] { export_state(rank0, {{.ours = "s", .theirs = "s.*"}}); }),
      "number in front"));
}

TEST_CASE("interop: pytorch_names takes what PyTorch's CapsNet has, and nothing else") {
  Rng rng(1);
  CapsNetOptions o = small_options();
  o.decoder = DecoderKind::none;
  o.convs = {{4, 3, 1}, {5, 3, 1}};
  const CapsNet net(o, rng);
  const NameTable table = pytorch_names(net);
  CHECK(same_state(import_state(export_state(net.state_dict(), table), net.state_dict(), table),
                   net.state_dict()));
  const auto refuse = [&](const CapsNetOptions& options) {
    CHECK_THROWS_AS(pytorch_names(CapsNet(options, rng)), ValueError);
  };
  o = small_options();
  o.decoder = DecoderKind::convolutional;
  refuse(o);
  o = small_options();
  o.capsules = {{4, 4}, {3, 5}};
  refuse(o);
  o = small_options();
  o.dense.votes = VoteWeights::shared;
  refuse(o);
  o = small_options();
  o.dense.vote_bias = true;
  refuse(o);
  o = small_options();
  o.dense.noise_class = true;
  refuse(o);
  o = small_options();
  o.convs[0].batch_norm = true;
  refuse(o);
  // Without a parameter of their own, but not in theirs.
  o = small_options();
  o.convs[0].pool = 2;
  refuse(o);
  o = small_options();
  o.dense.frobenius = true;
  refuse(o);
  o = small_options();
  o.primary_kind = PrimaryKind::positions;
  refuse(o);
}
