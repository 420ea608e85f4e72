// Routes votes from a file by any routing of the library and writes what comes out: a bridge for
// people who work with NumPy or PyTorch.

#include <filesystem>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  std::string routing = "dynamic", tensor = "votes", out = "routed.safetensors";
  std::uint64_t seed = 1;
  bool steps = false, list = false;
};

/// The tensors of a .safetensors, .npz or .npy file; the array of the latter is called `name`.
StateDict load_tensors(const std::filesystem::path& path, const std::string& name) {
  const std::string kind = path.extension().string();
  if (kind == ".safetensors") return load_safetensors(path).state;
  if (kind == ".npz") return load_npz(path);
  if (kind != ".npy")
    throw ValueError(
        fmt::format("{}: the name must end with .safetensors, .npz or .npy", path.string()));
  StateDict out;
  out.set(name, load_npy(path));
  return out;
}

void check_output(const std::string& path) {
  if (!path.ends_with(".safetensors") && !path.ends_with(".npz"))
    throw ValueError(fmt::format("the name must end with .safetensors or .npz; got '{}'", path));
}

/// An input, if it is there; [...] without a batch becomes [1, ...].
Tensor input(const StateDict& state, const std::string& name, int rank, const Tensor& votes) {
  if (!state.contains(name)) return {};
  Tensor t = state.at(name);
  if (t.dim() == rank - 1) t = unsqueeze(t, 0);
  const bool mask = name == "exists" || name == "kept";
  if (mask && t.dtype() != DType::b8) return ne(t, 0.0);
  return mask || !votes.defined() ? t : to(t, votes.dtype());
}

/// Parameters of the routing by name; what the file does not have keeps its start.
int set_parameters(Routing& routing, const StateDict& state) {
  int count = 0;
  for (const auto& [name, parameter] : routing.state_dict()) {
    if (!state.contains(name)) continue;
    const Tensor& value = state.at(name);
    if (value.shape() != parameter.shape())
      throw ShapeError(fmt::format("parameter '{}' of the routing is {}; got {}", name,
                                   parameter.shape().str(), value.shape().str()));
    Tensor target = parameter;
    target.copy_(to(value, target.dtype()));
    ++count;
  }
  return count;
}

/// What an observer saw, one entry for each iteration: [r, ...].
struct Steps {
  TensorList couplings, poses, activations, objective, entropy;

  void add(const RoutingStep& step) {
    couplings.push_back(step.couplings);
    poses.push_back(step.poses);
    if (step.activations.defined()) activations.push_back(step.activations);
    if (step.objective.defined()) objective.push_back(step.objective);
    entropy.push_back(step.entropy);
  }
  void save(StateDict& out) const {
    const auto put = [&](const char* name, const TensorList& list) {
      if (!list.empty()) out.set(name, stack(list));
    };
    put("steps.couplings", couplings);
    put("steps.poses", poses);
    put("steps.activations", activations);
    put("steps.objective", objective);
    put("steps.entropy", entropy);
  }
};

int route(const Flags& f, const std::string& file) {
  const StateDict state = load_tensors(file, f.tensor);
  if (!state.contains(f.tensor))
    throw ValueError(fmt::format("{}: there is no '{}'. Hint: --tensor NAME", file, f.tensor));
  Votes votes{.votes = input(state, f.tensor, 4, {})};
  if (votes.votes.dim() != 4 || !is_floating(votes.votes.dtype()))
    throw ShapeError(fmt::format("{}: '{}' must be floating [B, I, J, D] or [I, J, D]; got {} {}",
                                 file, f.tensor, name_of(votes.votes.dtype()),
                                 votes.votes.shape().str()));
  votes.poses = input(state, "poses", 3, votes.votes);
  votes.activations = input(state, "activations", 2, votes.votes);
  votes.exists = input(state, "exists", 2, votes.votes);
  votes.kept = input(state, "kept", 2, votes.votes);

  const RoutingSpec spec(f.routing);
  const Shape& shape = votes.votes.shape();
  Rng rng(f.seed);
  const auto routing = spec.make(
      {.children = shape[1],
       .parents = shape[2],
       .dim = shape[3],
       .child_dim = votes.poses.defined() && votes.poses.dim() == 3 ? votes.poses.size(2) : 0},
      rng);
  routing->to(votes.votes.dtype());
  const int given = set_parameters(*routing, state);
  routing->eval();
  const NoGradGuard no_grad;
  Steps steps;
  const RoutingObserver observe = [&](const RoutingStep& step) { steps.add(step); };
  const Routed routed = (*routing)(votes, f.steps ? observe : RoutingObserver{});

  StateDict out;
  out.set("poses", routed.poses);
  out.set("activations", activations_of(routed));
  out.set("couplings", routed.couplings);
  if (f.steps) steps.save(out);
  if (f.out.ends_with(".npz"))
    save_npz(f.out, out);
  else
    save_safetensors(f.out, out, {{"routing", spec.text()}});
  fmt::print("{}\n{} votes {}, {} of {} parameters from the file\n{}:\n", spec.text(),
             name_of(votes.votes.dtype()), shape.str(), given, routing->state_dict().size(), f.out);
  for (const auto& [name, value] : out) fmt::print("  {:<18} {}\n", name, value.shape().str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  std::vector<std::string> files;
  Args args(
      "route",
      "Routes votes [B, I, J, D] from a .safetensors, .npz or .npy file. Beside them the file "
      "may have poses [B, I, E], activations [B, I], exists [B, I] and kept [B, J], and "
      "parameters of the routing by their names.");
  args.add("--routing NAME[:OPTIONS]", f.routing, "see --list",
           [](const std::string& text) { const RoutingSpec spec(text); })
      .add("--tensor NAME", f.tensor, "name of the votes in the file")
      .add("--steps", f.steps, "also writes what every iteration found")
      .add("--seed N", f.seed, "of parameters that the file does not have")
      .add("--out FILE", f.out, "poses, activations, couplings as .safetensors or .npz",
           check_output)
      .add("--list", f.list, "names the routings and their options instead")
      .positional("FILE", files, "the votes", 0);
  args.example("route --routing kmeans:iterations=2 --out routed.npz votes.npy");
  return run_main(args, argc, argv, [&] {
    if (f.list) {
      args.refuse_idle(true, "not of --list, which routes nothing. Hint: no --list",
                       {"--routing", "--tensor", "--steps", "--seed", "--out"});
      if (!files.empty())
        throw UsageError("FILE: not of --list, which routes nothing. Hint: no --list");
      for (const RoutingKind& kind : routing_kinds())
        fmt::print("{:<20} {}\n{:<20}   {}\n", kind.name, kind.summary, "", kind.complete(""));
      return 0;
    }
    if (files.size() != 1) throw UsageError("FILE: exactly one file with votes");
    return route(f, files.front());
  });
}
