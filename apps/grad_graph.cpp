// Draws recorded graphs: a routing, iteration by iteration, and gradient penalties, whose graphs
// contain a backward pass. docs/graphs.md explains the pictures.

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/text.hpp"

extern char** environ;

using namespace capsfw;
using namespace capsfw::apps;

namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string of = "input-penalty", routing = "dynamic", out = "graph.dot";
  bool reference = false, gradient = false;
};

/// What to_dot() draws.
struct Picture {
  TensorList outputs;
  NamedTensors names, inputs;
};

/// Adds the gradients of `y` by some of the tensors in the picture, recorded like everything else.
void add_gradients(Picture& picture, const Tensor& y, const NamedTensors& by) {
  TensorList targets;
  for (const auto& [name, x] : by) targets.push_back(x);
  const TensorList g = grad({y}, targets, {}, {.create_graph = true, .allow_unused = true});
  for (std::size_t i = 0; i < g.size(); ++i)
    if (g[i].defined()) {
      picture.outputs.push_back(g[i]);
      picture.names.emplace_back("gradient by " + by[i].first, g[i]);
    }
}

Picture routing(const Flags& f) {
  constexpr std::int64_t kSamples = 2, kChildren = 6, kParents = 3, kDim = 4, kChildDim = 5;
  Rng rng(1);
  const auto routing = RoutingSpec(f.routing).make(
      {.children = kChildren, .parents = kParents, .dim = kDim, .child_dim = kChildDim}, rng);
  const auto input = [&](const Shape& shape) { return rng.uniform(shape, 0, 1).requires_grad_(); };
  const Votes votes{.votes = input({kSamples, kChildren, kParents, kDim}),
                    .poses = input({kSamples, kChildren, kChildDim}),
                    .activations = input({kSamples, kChildren})};
  // Fused kernels have nothing to show to an observer: with one, routings run in plain ops.
  const RoutingObserver nobody = [](const RoutingStep&) {};
  const Routed routed = (*routing)(votes, f.reference ? nobody : RoutingObserver{});

  Picture picture{.outputs = {routed.poses},
                  .names = routing->named_parameters(),
                  .inputs = {{"votes", votes.votes},
                             {"poses of children", votes.poses},
                             {"activations of children", votes.activations}}};
  picture.names.emplace_back("poses", routed.poses);
  if (routed.activations.defined()) {
    picture.outputs.push_back(routed.activations);
    picture.names.emplace_back("activations", routed.activations);
  }
  if (f.gradient) add_gradients(picture, sum(square(routed.poses)), {{"votes", votes.votes}});
  return picture;
}

Picture perceptron(const Flags& f) {
  Rng rng(1);
  // [penalty]
  Mlp net({3, 4, 1}, rng, {.activation = "tanh"});
  const Tensor x = rng.normal({5, 3}, 0, 1).requires_grad_();
  const Tensor values = sum(net(x), {1});  // [5], one for each sample
  const Tensor penalty = f.of == "input-penalty" ? input_gradient_penalty(values, x)
                         : f.of == "parameter-penalty"
                             ? param_gradient_penalty_batch(values, net.parameters())
                             : Tensor();
  // [penalty]
  Picture picture{
      .outputs = {values, penalty}, .names = net.named_parameters(), .inputs = {{"x", x}}};
  picture.names.emplace_back("values", values);
  picture.names.emplace_back("penalty", penalty);
  if (f.gradient)
    add_gradients(picture, penalty.defined() ? penalty : sum(values), net.named_parameters());
  return picture;
}

/// Lets Graphviz draw `dot` into `svg`; false where it is not installed. Error if it fails, and
/// then there is no `svg` that was not there before.
bool draw(const fs::path& dot, const fs::path& svg) {
  const fs::path half = svg.string() + ".half";
  // Absolute, so that no name looks like an option.
  std::string program = "dot", format = "-Tsvg", to = "-o" + fs::absolute(half).string(),
              from = fs::absolute(dot).string();
  char* const argv[] = {program.data(), format.data(), to.data(), from.data(), nullptr};
  pid_t child = 0;
  const int failed = posix_spawnp(&child, program.c_str(), nullptr, nullptr, argv, environ);
  if (failed == ENOENT) return false;
  if (failed != 0) throw Error(fmt::format("cannot start dot: {}", std::strerror(failed)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  std::error_code error;
  if (status == 0) fs::rename(half, svg, error);
  if (status == 0 && !error) return true;
  fs::remove(half, error);
  throw IoError(fmt::format("{}: dot could not write it. Hint: dot -Tsvg {} says why", svg.string(),
                            dot.string()));
}

int write(const Flags& f, const Picture& picture) {
  const fs::path dot = f.out, svg = fs::path(f.out).replace_extension(".svg");
  save_text(dot, to_dot(picture.outputs, picture.names, picture.inputs));
  fmt::print("{}\n", dot.string());
  if (draw(dot, svg))
    fmt::print("{}\n", svg.string());
  else
    fmt::print("{} is left out: Graphviz is not installed. Hint: apt install graphviz\n",
               svg.string());
  // What the outputs hold, as nothing else is left of the computation.
  fmt::print("alive: {} nodes, {} bytes of tensors\n", live_nodes(), memory_stats().live);
  return 0;
}

void check_output(const std::string& path) {
  if (!path.ends_with(".dot"))
    throw ValueError(fmt::format("the name must end with .dot; got '{}'", path));
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  Args args("grad_graph",
            "Draws the graph of a routing or of a gradient penalty: DOT, and SVG beside it where "
            "Graphviz is installed.");
  args.choice("--of", f.of, {"routing", "perceptron", "input-penalty", "parameter-penalty"},
              "what to draw; penalties are those of the perceptron, which has two layers")
      .add("--routing NAME[:OPTIONS]", f.routing, "which routing; route --list names them",
           [](const std::string& text) { const RoutingSpec spec(text); })
      .add("--reference", f.reference,
           "a routing in plain ops, iteration by iteration, where it would be one fused op")
      .add("--gradient", f.gradient,
           "and the gradient of that, recorded: of the squared poses by the votes, of the rest "
           "by the parameters")
      .add("--out FILE", f.out, "the DOT file; the SVG has its name", check_output);
  args.example("grad_graph --of routing --routing dynamic:iterations=2 --reference --out r.dot")
      .example("grad_graph --of input-penalty --gradient --out penalty.dot");
  return run_main(args, argc, argv, [&] {
    if (f.of != "routing" && (args.given("--routing") || f.reference))
      throw UsageError("--routing and --reference go with --of routing");
    return write(f, f.of == "routing" ? routing(f) : perceptron(f));
  });
}
