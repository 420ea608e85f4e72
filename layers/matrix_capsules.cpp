#include <capsfw/layers/matrix_capsules.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/balance.hpp"

namespace capsfw {
namespace {

void check_sizes(const char* who, std::int64_t in, std::int64_t types, std::int64_t side) {
  if (in < 1 || types < 1 || side < 1)
    throw ValueError(
        fmt::format("{}: sizes must be at least 1; got in = {}, types = {}, side of the poses = {}",
                    who, in, types, side));
}

/// Matrices with entries of variance 1/P keep the scale of a pose: each element sums P products.
Tensor vote_matrices(std::int64_t children, std::int64_t parents, std::int64_t side, Rng& rng) {
  return init::normal({children, parents, side, side}, 1 / std::sqrt(static_cast<double>(side)),
                      rng);
}

std::int64_t output_size(const std::string& layer,
                         std::int64_t n,
                         std::int64_t kernel,
                         std::int64_t stride,
                         std::int64_t padding) {
  if (kernel < 1 || stride < 1 || padding < 0 || n + 2 * padding < kernel)
    throw ShapeError(fmt::format(
        "MatrixCapsNet: {}: a kernel of {} with stride {} and padding {} does not fit {} "
        "positions. Hint: a larger image or smaller kernels",
        layer, kernel, stride, padding, n));
  return (n + 2 * padding - kernel) / stride + 1;
}

/// Σ_i a_i R_ij of a parent as long as the R are uniform.
double data_per_parent(const MatrixCapsules& x, std::int64_t parents, std::int64_t children) {
  return mean(x.activations).item() * static_cast<double>(children) / static_cast<double>(parents);
}

}  // namespace

PrimaryMatrixCapsules::PrimaryMatrixCapsules(std::int64_t in,
                                             std::int64_t types,
                                             std::int64_t side,
                                             Rng& rng)
    : pose(
          in, (check_sizes("PrimaryMatrixCapsules", in, types, side), types * side * side), 1, rng),
      activation(in, types, 1, rng),
      side_(side) {
  child("pose", pose);
  child("activation", activation);
}

MatrixCapsules PrimaryMatrixCapsules::operator()(const Tensor& x) {
  const Scope scope(name().empty() ? "primary" : name());
  const Tensor a = sigmoid(activation(x));
  const std::int64_t b = a.size(0), c = a.size(1), h = a.size(2), w = a.size(3), k = side_ * side_;
  const Tensor p = permute(reshape(pose(x), {b, c, k, h, w}), {0, 1, 3, 4, 2});
  return {reshape(p, {b, c, h, w, side_, side_}), a};
}

ConvMatrixCapsules::ConvMatrixCapsules(std::int64_t in,
                                       std::int64_t types,
                                       std::int64_t side,
                                       std::int64_t kernel,
                                       Rng& rng,
                                       ConvMatrixCapsulesOptions o)
    : kernel_(kernel), options_(std::move(o)) {
  check_sizes("ConvMatrixCapsules", in, types, side);
  if (kernel < 1 || options_.stride < 1)
    throw ValueError(
        fmt::format("ConvMatrixCapsules: kernel and stride must be at least 1; got {} "
                    "and {}",
                    kernel, options_.stride));
  weight = param("weight", vote_matrices(in * kernel * kernel, types, side, rng));
  beta_a = param("beta_a", zeros({types}));
  beta_u = param("beta_u", zeros({types}));
}

ConvEmRouted ConvMatrixCapsules::route(const MatrixCapsules& x) { return route(x, true); }

ConvEmRouted ConvMatrixCapsules::route(const MatrixCapsules& x, bool assignments) {
  const Scope scope(name().empty() ? "capsules" : name());
  const ConvMatrixCapsulesOptions& o = options_;
  const PatchOptions patches{.kernel = {kernel_, kernel_},
                             .stride = {o.stride, o.stride},
                             .padding = {o.padding, o.padding}};
  const auto [parents, children] = competitors(x);
  return conv_caps_em(
      x.poses, x.activations, weight, beta_a, beta_u, lambdas_for(o.routing, parents, children),
      patches,
      {.em = em_options(o.routing), .competition = o.competition, .assignments = assignments});
}

std::pair<std::int64_t, std::int64_t> ConvMatrixCapsules::competitors(
    const MatrixCapsules& x) const {
  const ConvMatrixCapsulesOptions& o = options_;
  if (o.competition == Competition::patch || x.activations.dim() != 4)
    return {weight.size(1), weight.size(0)};
  const auto positions = [&](int axis) {
    return output_size("capsules", x.activations.size(axis), kernel_, o.stride, o.padding);
  };
  return {weight.size(1) * positions(2) * positions(3),
          x.activations.size(1) * x.activations.size(2) * x.activations.size(3)};
}

void ConvMatrixCapsules::balance(const MatrixCapsules& x) {
  const auto [parents, children] = competitors(x);
  detail::balance_em({.variance = [&] { return route(x, false).variance; },
                      .variant = options_.routing.variant,
                      .dims = static_cast<double>(weight.size(-1) * weight.size(-1)),
                      .data = data_per_parent(x, parents, children),
                      .weight = weight,
                      .beta_a = beta_a,
                      .beta_u = beta_u});
}

MatrixCapsules ConvMatrixCapsules::operator()(const MatrixCapsules& x) {
  const ConvEmRouted r = route(x, false);
  return {r.poses, r.activations};
}

ClassMatrixCapsules::ClassMatrixCapsules(std::int64_t in,
                                         std::int64_t classes,
                                         std::int64_t side,
                                         Rng& rng,
                                         ClassMatrixCapsulesOptions o)
    : options_(std::move(o)) {
  check_sizes("ClassMatrixCapsules", in, classes, side);
  weight = param("weight", vote_matrices(in, classes, side, rng));
  beta_a = param("beta_a", zeros({classes}));
  beta_u = param("beta_u", zeros({classes}));
}

EmRouted ClassMatrixCapsules::operator()(const MatrixCapsules& x) {
  const Scope scope(name().empty() ? "classes" : name());
  const std::int64_t batch = x.activations.dim() > 0 ? x.activations.size(0) : 0;
  const std::int64_t children = batch > 0 ? x.activations.numel() / batch : 1;
  return class_caps_em(x.poses, x.activations, weight, beta_a, beta_u,
                       lambdas_for(options_.routing, weight.size(1), children),
                       {.em = em_options(options_.routing),
                        .coordinates = options_.coordinates,
                        .coordinate_places = options_.coordinate_places});
}

void ClassMatrixCapsules::balance(const MatrixCapsules& x) {
  const std::int64_t children = x.activations.numel() / x.activations.size(0);
  detail::balance_em({.variance = [&] { return (*this)(x).variance; },
                      .variant = options_.routing.variant,
                      .dims = static_cast<double>(weight.size(-1) * weight.size(-1)),
                      .data = data_per_parent(x, weight.size(1), children),
                      .weight = weight,
                      .beta_a = beta_a,
                      .beta_u = beta_u});
}

MatrixCapsNetOptions MatrixCapsNetOptions::paper(const Shape& image, std::int64_t classes) {
  MatrixCapsNetOptions o;
  o.image = image;
  o.conv.channels = o.primary_types = 32;
  o.capsules = {{32, 3, 2}, {32, 3, 1}};
  o.classes = classes;
  return o;
}

MatrixCapsNetOptions MatrixCapsNetOptions::small(const Shape& image, std::int64_t classes) {
  MatrixCapsNetOptions o;
  o.image = image;
  o.classes = classes;
  return o;
}

void MatrixCapsNet::add_row(const std::string& layer,
                            const std::string& output,
                            std::int64_t parameters) {
  table_ += fmt::format("{:<12}{:<24}{:>12}\n", layer, output, parameters);
}

MatrixCapsNet::MatrixCapsNet(const MatrixCapsNetOptions& options, Rng& rng)
    : ImageClassifier("MatrixCapsNet", options.image, options.classes),
      options_(options),
      conv_("MatrixCapsNet", options.image, {options.conv}, rng) {
  const MatrixCapsNetOptions& o = options_;
  if (o.routing.lambdas.empty() && o.routing.iterations < 1)
    throw ValueError(
        fmt::format("MatrixCapsNet: at least 1 routing iteration; got {}", o.routing.iterations));
  std::int64_t h = o.image[1], w = o.image[2];
  const auto shrink = [&](const std::string& layer, const MatrixStage& s) {
    h = output_size(layer, h, s.kernel, s.stride, s.padding);
    w = output_size(layer, w, s.kernel, s.stride, s.padding);
  };
  const auto capsules = [&](std::int64_t types) {
    return fmt::format("[B, {}, {}, {}, {}, {}]", types, h, w, o.pose, o.pose);
  };
  table_ = fmt::format("{:<12}{:<24}{:>12}\n", "layer", "output", "parameters");
  add_row("input", fmt::format("[B, {}, {}, {}]", o.image[0], h, w), 0);
  h = conv_.output()[1];
  w = conv_.output()[2];
  for (const auto& [numbered, layer] : conv_.layers()) {
    const std::string name = numbered.substr(0, numbered.size() - 1);  // there is only one
    child(name, *layer);
    add_row(name, fmt::format("[B, {}, {}, {}]", o.conv.channels, h, w), layer->parameter_count());
  }
  primary_ = std::make_unique<PrimaryMatrixCapsules>(o.conv.channels, o.primary_types, o.pose, rng);
  child("primary", *primary_);
  add_row("primary", capsules(o.primary_types), primary_->parameter_count());
  std::int64_t types = o.primary_types;
  for (const MatrixStage& stage : o.capsules) {
    const std::string name = fmt::format("capsules{}", capsules_.size() + 1);
    shrink(name, stage);
    capsules_.push_back(
        std::make_unique<ConvMatrixCapsules>(types, stage.types, o.pose, stage.kernel, rng,
                                             ConvMatrixCapsulesOptions{.stride = stage.stride,
                                                                       .padding = stage.padding,
                                                                       .competition = o.competition,
                                                                       .routing = o.routing}));
    child(name, *capsules_.back());
    add_row(name, capsules(stage.types), capsules_.back()->parameter_count());
    types = stage.types;
  }
  last_grid_ = {types, h, w};
  classes_ = std::make_unique<ClassMatrixCapsules>(
      types, o.classes, o.pose, rng,
      ClassMatrixCapsulesOptions{.coordinates = o.coordinates,
                                 .coordinate_places = o.coordinate_places,
                                 .routing = o.routing});
  child("classes", *classes_);
  add_row("classes", fmt::format("[B, {}, {}]", o.classes, o.pose * o.pose),
          classes_->parameter_count());
  add_row("total", "", parameter_count());
  balance_votes(rng);
}

void MatrixCapsNet::balance_votes(Rng& rng) {
  const NoGradGuard no_grad;
  NamedTensors buffers = named_buffers();  // batch norm works as in training, and forgets the noise
  for (auto& [name, buffer] : buffers) buffer = empty_like(buffer).copy_(buffer);
  const Shape& image = options_.image;
  const Tensor features = conv_(rng.uniform({2, image[0], image[1], image[2]}, 0, 1));
  detail::scale(primary_->pose.weight, 1 / std::sqrt(var((*primary_)(features).poses).item()));
  MatrixCapsules h = (*primary_)(features);
  for (const auto& layer : capsules_) {
    layer->balance(h);
    h = (*layer)(h);
  }
  classes_->balance(h);
  NamedTensors moved = named_buffers();
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i].second.copy_(buffers[i].second);
}

ClassifierOutput MatrixCapsNet::classify(const Tensor& x,
                                         const Tensor& /*labels*/,
                                         bool /*decode*/) {
  MatrixCapsules h = (*primary_)(conv_(x));
  for (const auto& layer : capsules_) h = (*layer)(h);
  const EmRouted out = (*classes_)(h);
  return {.lengths = out.activations, .poses = out.poses, .couplings = out.assignments};
}

MatrixCapsNetOutput MatrixCapsNet::operator()(const Tensor& x) {
  const ClassifierOutput out = ImageClassifier::operator()(x);
  return {out.lengths, out.poses, out.couplings};
}

int MatrixCapsNet::routing_iterations() const { return options_.routing.steps(); }

template <class F>
void MatrixCapsNet::each_routing(const F& f) {
  f(options_.routing);
  for (const auto& layer : capsules_) f(layer->routing());
  f(classes_->routing());
}

void MatrixCapsNet::set_routing_iterations(int n) {
  if (n < 1)
    throw ValueError(fmt::format("MatrixCapsNet: at least 1 routing iteration; got {}", n));
  each_routing([n](EmRoutingOptions& o) { o.set_steps(n); });
}

void MatrixCapsNet::set_lambda_scale(double scale) {
  each_routing([scale](EmRoutingOptions& o) { o.lambda_scale = scale; });
}

}  // namespace capsfw
