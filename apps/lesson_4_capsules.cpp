// Lesson 4: from vectors to capsules. A capsule is a vector: its length says whether a thing is
// there, its direction (the pose) how. Capsules of parts vote for the poses of wholes, and routing
// by agreement decides which whole each part belongs to (Sabour, Frosst, Hinton 2017).

#include <numbers>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

namespace {

constexpr double kPi = std::numbers::pi;

void title(std::string_view text) { fmt::print("\n== {} ==\n\n", text); }

// The squash keeps the direction of a vector and brings its length below one, short ones to almost
// nothing: v = ‖s‖ / (1 + ‖s‖²) · s.
void squash_a_vector() {
  title("Squash: every length becomes one below 1");
  for (const double length : {0.0, 0.1, 0.5, 1.0, 3.0, 10.0}) {
    const Tensor s = from_vector<double>({0.6 * length, 0.8 * length}).requires_grad_();
    const Tensor v_length = sum(safe_norm(squash(s)));
    fmt::print("length {:4.1f} -> {:.4f}   gradient {}\n", length, v_length.item(),
               to_string(grad(v_length, s)));
  }
  fmt::print("At 0 the gradient is 0, not NaN: there is no direction to prefer.\n");
}

/// Rotations of the plane: angles of any shape -> [..., 2, 2].
Tensor rotations(const Tensor& angle) {
  const Tensor c = cos(angle), s = sin(angle);
  return stack({stack({c, -s}, -1), stack({s, c}, -1)}, -2);
}

/// Unit vectors: angles of any shape -> [..., 2].
Tensor pose(const Tensor& angle) { return stack({cos(angle), sin(angle)}, -1); }

// Five parts, two wholes; a pose is a direction in the plane. A whole of kind j is turned by the
// angle W_ij against its part i: that rotation makes the part's pose u_i into its vote W_ij u_i for
// the pose of the whole. Here eye, nose and mouth stand as in a face at 30 degrees, wall and roof
// as in a house at -60 degrees; what they say of the other whole is as good as random.
void route_step_by_step() {
  title("Routing by agreement: five parts, two wholes");
  const char* parts[] = {"eye", "nose", "mouth", "wall", "roof"};
  const Tensor angles = from_vector<double>(  // [I, J]: to a face, to a house
      {0.3, -2.0, -1.2, 0.7, 2.0, 3.0, 0.9, 1.5, -2.5, -0.4}, {5, 2});
  const Tensor belongs = from_vector<std::int64_t>({0, 0, 0, 1, 1}, {5, 1});
  const Tensor whole = from_vector<double>({kPi / 6, -kPi / 3});
  const Tensor seen =
      index_select(whole, 0, flatten(belongs)) - flatten(gather(angles, 1, belongs));
  const Tensor weight = rotations(angles);                            // [I, J, D, E]
  const Tensor votes = votes_full(pose(unsqueeze(seen, 0)), weight);  // [1, I, J, D]

  // [routing]
  Tensor b = zeros({1, 5, 2}, DType::f64);  // logits: nothing is known yet
  for (int t = 1; t <= 4; ++t) {
    const Tensor c = softmax(b);  // over the wholes: every part shares itself out
    const Tensor v = squash(weighted_sum(c, votes));
    fmt::print("iteration {}: lengths of face and house {}\n", t, to_string(lengths(v)));
    for (int i = 0; i < 5; ++i)
      fmt::print("  {:<5} belongs to the face {:.3f}, to the house {:.3f}\n", parts[i],
                 select(select(c, 1, i), 1, 0).item(), select(select(c, 1, i), 1, 1).item());
    b = b + agreement(votes, v);  // a vote that points the same way counts more next time
  }
  // [routing]
  const Routed routed = dynamic_routing(votes, {.iterations = 4});
  fmt::print("dynamic_routing, 4 iterations: lengths {}\n", to_string(lengths(routed.poses)));

  // Turn the picture: every part turns, so every vote, so the wholes; who belongs where stays.
  const Tensor turned = votes_full(pose(unsqueeze(seen + 1.0, 0)), weight);
  const Routed again = dynamic_routing(turned, {.iterations = 4});
  fmt::print(
      "all parts turned by 1 rad: couplings equal: {}, poses turned by 1 rad: {}\n",
      allclose(routed.couplings, again.couplings),
      allclose(einsum("bjd,ed->bje", routed.poses, rotations(scalar(1, DType::f64))), again.poses));
}

// The margin loss wants the capsules of what is there longer than 0.9, the others below 0.1.
void loss_of_lengths() {
  title("Margin loss");
  const Tensor there = from_vector<float>({1, 0}, {1, 2});
  for (const float second : {0.05F, 0.3F, 0.8F}) {
    const Tensor l = from_vector<float>({0.7F, second}, {1, 2}).requires_grad_();
    const Tensor loss = margin_loss(l, there);
    fmt::print("lengths {}: loss {:.4f}, gradient {}\n", to_string(l), loss.item(),
               to_string(grad(loss, l)));
  }
}

// Scenes of two overlapping wholes out of four, each turned at random. A part belongs to one of the
// two and shows that whole's angle minus its own for such wholes. No part tells anything alone.
class Scenes {
 public:
  explicit Scenes(Rng& rng) : angles_(rng.uniform({4, 10}, -kPi, kPi)) {}

  struct Batch {
    Tensor parts, targets;  // [B, 10, 2], [B, 4] with two ones
  };
  Batch draw(std::int64_t n, Rng& rng) const {
    const Tensor a = rng.integers({n}, 4), sum = a + (rng.integers({n}, 3) + 1.0);
    const Tensor b = where(ge(sum, 4.0), sum - 4.0, sum);  // another one than a
    const auto show = [&](const Tensor& whole) {
      return rng.uniform({n, 1}, -kPi, kPi) - index_select(angles_, 0, whole);
    };
    const Tensor of_a = show(a), of_b = show(b);
    const Tensor angle = where(rng.bernoulli(of_a.shape(), 0.5), of_a, of_b);
    return {pose(angle), one_hot(a, 4) + one_hot(b, 4)};
  }

 private:
  Tensor angles_;  // [wholes, parts]
};

/// Share of scenes in which the two longest capsules are the two wholes.
double both_found(const Tensor& scores, const Tensor& targets) {
  return mean(min(gather(targets, 1, topk(scores, 2).indices), {1})).item();
}

void train_a_layer(int iterations) {
  Rng rng(7);
  const Scenes scenes(rng);
  // [train]
  // 10 parts with poses of size 2, 4 wholes with poses of size 2, all votes to be learned.
  DenseCapsules capsules(10, 2, 4, 2, rng, {.routing = DynamicRoutingOptions{iterations}});
  Adam adam(capsules.parameters(), {.lr = 0.05});
  for (int step = 1; step <= 300; ++step) {
    const auto [parts, targets] = scenes.draw(128, rng);
    const Tensor scores = lengths(capsules(parts));  // [B, 4]: is this whole there?
    const Tensor loss = margin_loss(scores, targets);
    adam.zero_grad();
    backward(loss);
    adam.step();
    if (step % 100 == 0)
      fmt::print("step {}: loss {:.3f}, both found in {:.1f} % of the scenes\n", step, loss.item(),
                 100 * both_found(scores, targets));
  }
  // [train]

  const NoGradGuard no_grad;
  const Scenes::Batch test = scenes.draw(4000, rng);
  const auto report = [&](std::string_view kind) {
    const Routed routed = capsules.route(test.parts);
    fmt::print("4000 new scenes, {} couplings: {:.1f} %, largest coupling of a part {:.2f}\n", kind,
               100 * both_found(lengths(routed.poses), test.targets),
               mean(max(routed.couplings, {-1})).item());
  };
  if (iterations > 1) report("routed");
  capsules.routing().set_iterations(1);  // the same weights, couplings that never move
  report("uniform");
}

}  // namespace

int main(int argc, char** argv) {
  apps::Args args("lesson_4_capsules",
                  "Lesson 4: squash, votes, routing by agreement and a first layer, printed.");
  return apps::run_main(args, argc, argv, [] {
    squash_a_vector();
    route_step_by_step();
    loss_of_lengths();
    title("Learning the votes: 5 routing iterations");
    train_a_layer(5);
    title("The same layer without routing: 1 iteration, uniform couplings");
    train_a_layer(1);
    fmt::print(
        "\nNext: lesson_5_new_op. The maths: docs/maths/dynamic-routing.md. On images: "
        "train_capsnet.\n");
    return 0;
  });
}
