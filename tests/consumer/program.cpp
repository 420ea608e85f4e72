// A program of one's own: capsules learn in which of two rings a point lies.

#include <cstdio>

#include <capsfw/capsfw.hpp>

using namespace capsfw;

int main() {
  Rng rng(1);
  Sequential net;
  net.add<Linear>(2, 32, rng);
  net.add<Activation>(relu);
  net.add<Linear>(32, 8 * 4, rng);
  DenseCapsules rings(8, 4, 2, 8, rng);  // 8 capsules of size 4 below, 2 of size 8 above

  TensorList parameters = net.parameters();
  for (const Tensor& p : rings.parameters()) parameters.push_back(p);
  Adam adam(parameters, {.lr = 0.01});

  double right = 0;
  for (int step = 1; step <= 200; ++step) {
    const Tensor label = rng.integers({128}, 2);  // the ring: radius below 1, or from 1 to 2
    const Tensor radius = to(label, DType::f32) + rng.uniform({128}, 0.1, 0.9);
    const Tensor angle = rng.uniform({128}, -3.14159, 3.14159);
    const Tensor points = stack({radius * cos(angle), radius * sin(angle)}, 1);

    const Tensor scores = lengths(rings(reshape(net(points), {128, 8, 4})));
    const Tensor loss = margin_loss(scores, one_hot(label, 2));
    adam.zero_grad();
    backward(loss);
    adam.step();
    right = accuracy(scores, label);
    if (step % 50 == 0) std::printf("step %d: loss %.3f\n", step, loss.item());
  }
  save_safetensors("rings.safetensors", rings.state_dict());
  std::printf("%s: %.0f %% of the last batch right\n", runtime_info().version.c_str(), 100 * right);
  return right > 0.9 ? 0 : 1;
}
