#include "study.hpp"

#include <fmt/format.h>

#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/classifier_loss.hpp"

namespace capsfw::apps {

Study::Study(const Flags& f, const Args& args)
    : flags(f), all(load_images(f, Split::train)), test(load_test(f, all)) {
  if (f.train + f.val >= all.size())
    throw UsageError(fmt::format("--train and --val: together less than {}; got {} and {}",
                                 all.size(), f.train, f.val));
  Rng rng;
  fmt::print("{} with {} parameters on {} images, batches of {}\n", f.model,
             make_network(rng)->parameter_count(), f.train, f.batch);
  folder_ = f.safety.open(f.out, args, fingerprint(all) + "; " + fingerprint(test));
  report_.emplace(*folder_, fmt::format("{} with gradient penalties on {}", f.model, f.title()),
                  args);
  report_->fact("images", fmt::format("{} of {} to train on, {} held out, {} to test on", f.train,
                                      all.size(), f.val, std::min(f.test, test.size())));
  report_->fact("fingerprint", fingerprint(all));
  add_layers(*report_, *make_network(rng));
  report_->write();
}

Data Study::draw(std::uint64_t seed) const {
  const auto tensors = [](const ImageSet& set) { return Labelled{set.images(), set.labels()}; };
  const std::int64_t both = flags.train + flags.val;
  const ImageSet drawn = flags.own_data() ? some_images(flags, all, both, seed)
                                          : hold_out(all, both, seed).validation,
                 images = drawn.range(0, flags.train);
  Data data{.train = tensors(images),
            .val = tensors(drawn.range(flags.train, both)),
            .test = tensors(some_images(flags, test, flags.test, flags.seed)),
            .probe = {},
            .images = images};
  data.probe = data.train.first(std::min(flags.probe, flags.train));
  return data;
}

std::unique_ptr<ImageClassifier> Study::make_network(Rng& rng) const {
  const Shape image = all.image_shape();
  if (flags.model == "mlp")
    return std::make_unique<MlpNet>(MlpNetOptions{.image = image,
                                                  .hidden = parse_widths(flags.hidden),
                                                  .activation = flags.activation,
                                                  .classes = all.classes()},
                                    rng);
  const CapsNetOptions capsules = CapsNetOptions::small(image, all.classes());
  if (flags.model == "capsnet") return std::make_unique<CapsNet>(capsules, rng);
  return std::make_unique<ConvNet>(ConvNetOptions::beside(capsules), rng);
}

double penalised_step(ImageClassifier& net, const Batch& batch, const Kind& kind, const Flags& f) {
  const TensorList params = net.parameters();
  const bool differences = f.form == "difference";
  Tensor total;
  if (kind.param && differences)  // moves the parameters: before any graph that reads them
    total =
        f.param_weight * param_gradient_penalty_difference(
                             [&] { return mean(sample_losses(net, batch.images, batch.labels)); },
                             params, {.step = f.step_size});
  const Tensor x = kind.input ? batch.images.detach().requires_grad_() : batch.images;
  const SampleFunction losses = [&](const Tensor& at) {
    return sample_losses(net, at, batch.labels);
  };
  const Tensor values = losses(x), loss = mean(values);
  total = total.defined() ? total + loss : loss;
  if (kind.input)
    total = total + f.input_weight * (differences ? input_gradient_penalty_difference(
                                                        losses, values, x, {.step = f.step_size})
                                                  : input_gradient_penalty(values, x));
  if (kind.param && !differences)
    total = total + f.param_weight * (f.param_form == "batch"
                                          ? param_gradient_penalty_batch(values, params)
                                          : param_gradient_penalty_per_sample(values, net));
  const TensorList g = grad({total}, params, {}, {.allow_unused = true});
  for (std::size_t i = 0; i < params.size(); ++i) Tensor(params[i]).set_grad(g[i]);
  return loss.item();
}

}  // namespace capsfw::apps
