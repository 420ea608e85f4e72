#include "common/penalty_probe.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/mlp_net.hpp>
#include <capsfw/layers/penalty.hpp>
#include <capsfw/layers/per_sample.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "common/chart.hpp"
#include "common/text.hpp"

namespace capsfw::apps {
namespace {

constexpr std::int64_t kSlice = 200;

/// Calls f(slice, its share of the whole).
template <class F>
void in_slices(const Labelled& data, Ranks* ranks, const F& f) {
  for (std::int64_t at = 0; at < data.size(); at += kSlice) {
    if (ranks != nullptr) ranks->progress();
    const std::int64_t n = std::min(kSlice, data.size() - at);
    f(data.range(at, n), static_cast<double>(n) / static_cast<double>(data.size()));
  }
}

/// Gradients by the parameters, zeros where there is none.
TensorList gradients(const Tensor& value, const TensorList& params) {
  TensorList g = grad({value}, params, {}, {.allow_unused = true});
  for (std::size_t i = 0; i < g.size(); ++i)
    if (!g[i].defined()) g[i] = zeros_like(params[i]);
  return g;
}

double relative_error(const TensorList& a, const TensorList& b) {
  double gap = 0, length = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    gap += sum(square(a[i].detach() - b[i].detach())).item();
    length += sum(square(b[i].detach())).item();
  }
  return std::sqrt(gap / length);
}

template <class T>
std::vector<T> parse(const std::string& text, const char* what) {
  std::vector<T> out;
  for (const std::string& part : split_at_commas(text)) {
    T value{};
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (code != std::errc() || end != part.data() + part.size() || !(value > 0) ||
        !std::isfinite(static_cast<double>(value)))
      throw ValueError(fmt::format("{}; got '{}'", what, part));
    out.push_back(value);
  }
  return out;
}

}  // namespace

Labelled Labelled::range(std::int64_t begin, std::int64_t count) const {
  return {narrow(images, 0, begin, count), narrow(labels, 0, begin, count)};
}

Score evaluate(ImageClassifier& model, const Labelled& data, Ranks* ranks) {
  const NoGradGuard no_grad;
  Score score;
  in_slices(data, ranks, [&](const Labelled& part, double share) {
    const ClassifierOutput out = model(part.images, {}, false);
    score.loss += share * mean(sample_losses(model, out, part.labels)).item();
    score.accuracy += share * accuracy(class_scores(out), part.labels);
  });
  return score;
}

Penalties measure_penalties(ImageClassifier& model, const Labelled& data, Ranks* ranks) {
  const TensorList params = model.parameters();
  Penalties p;
  TensorList total;
  in_slices(data, ranks, [&](const Labelled& part, double share) {
    const Tensor x = part.images.detach().requires_grad_();
    const Tensor values = sample_losses(model, x, part.labels);
    p.sample += share * mean(per_sample_square_norms(values, model)).item();
    TensorList targets = params;
    targets.push_back(x);
    const TensorList g = gradients(sum(values), targets);
    p.input += sum(square(g.back())).item() / static_cast<double>(data.size());
    for (std::size_t i = 0; i < params.size(); ++i)
      if (total.size() <= i)
        total.push_back(g[i]);
      else
        total[i] = total[i] + g[i];
  });
  for (const Tensor& g : total)
    p.batch += sum(square(g * (1 / static_cast<double>(data.size())))).item();
  return p;
}

Probe probe(ImageClassifier& model, const Labelled& data, SpectralMethod method, Ranks* ranks) {
  Probe out;
  out.penalties = measure_penalties(model, data, ranks);
  const auto* net = dynamic_cast<const MlpNet*>(&model);
  if (net == nullptr) return out;
  std::vector<MlpLayer> layers = net->mlp().layers();
  for (MlpLayer& layer : layers) {
    layer.weight = cast_data(layer.weight.detach(), DType::f64);
    if (layer.bias.defined()) layer.bias = cast_data(layer.bias.detach(), DType::f64);
  }
  const InequalityTerms t = inequality_terms(
      layers, cast_data(flatten(data.images, 1), DType::f64),
      [&](const Tensor& logits) {
        return sample_losses(model, {.lengths = {}, .logits = logits}, data.labels);
      },
      method);
  const auto average = [](const Tensor& x, std::size_t layer) {
    return mean(select(x, 1, static_cast<std::int64_t>(layer))).item();
  };
  for (std::size_t k = 0; k < layers.size(); ++k)
    out.layers.push_back({average(sqrt(t.h2), k), average(sqrt(t.w2), k), average(sqrt(t.j2), k),
                          average(t.lhs_w, k), average(t.rhs_w, k), average(t.lhs_b, k),
                          average(t.rhs_b, k)});
  out.lhs = mean(t.lhs).item();
  out.rhs = mean(t.rhs).item();
  out.worst = tightness(t);
  return out;
}

std::string Probe::table() const {
  std::string text =
      fmt::format("{:>6}{:>9}{:>9}{:>9}{:>12}{:>12}{:>12}{:>12}{:>9}\n", "layer", "|h|", "|W|",
                  "|dh/dx|", "(w) left", "(w) right", "(b) left", "(b) right", "ratio");
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const LayerTerms& l = layers[k];
    text +=
        fmt::format("{:>6}{:>9.3f}{:>9.3f}{:>9.3f}{:>12.4g}{:>12.4g}{:>12.4g}{:>12.4g}{:>9.4f}\n",
                    k + 1, l.h, l.w, l.j, l.lhs_w, l.rhs_w, l.lhs_b, l.rhs_b, l.lhs_w / l.rhs_w);
  }
  return text + fmt::format(
                    "total (f): left {:.4g}, right {:.4g}, ratio {:.4f}; of single samples at most "
                    "{:.6f}, {}\n",
                    lhs, rhs, lhs / rhs, worst.ratio, worst.where);
}

namespace {

/// The numbers of a measurement in a fixed order; each layer has seven.
template <class Self>
std::vector<decltype(&std::declval<Self&>().step)> numbers(Self& p) {
  std::vector<decltype(&p.step)> out{&p.step,
                                     &p.train.loss,
                                     &p.train.accuracy,
                                     &p.val.loss,
                                     &p.val.accuracy,
                                     &p.penalties.input,
                                     &p.penalties.batch,
                                     &p.penalties.sample,
                                     &p.lhs,
                                     &p.rhs,
                                     &p.worst.ratio};
  for (auto& l : p.layers)
    out.insert(out.end(), {&l.h, &l.w, &l.j, &l.lhs_w, &l.rhs_w, &l.lhs_b, &l.rhs_b});
  return out;
}

}  // namespace

void ProbeList::save(StateDict& state, const std::string& prefix) const {
  StateDict all;
  for (std::size_t i = 0; i < list.size(); ++i) {
    std::vector<double> values;
    for (const double* v : numbers(list[i])) values.push_back(*v);
    const std::string& where = list[i].worst.where;
    all.set(fmt::format("{}.numbers", i), from_vector(values));
    all.set(fmt::format("{}.where", i),
            from_vector(std::vector<std::int64_t>(where.begin(), where.end())));
  }
  state.merge(prefix, all);
}

void ProbeList::load(const StateDict& state, const std::string& prefix) {
  const StateDict all = state.under(prefix);
  list.assign(all.size() / 2, {});
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto values = all.at(fmt::format("{}.numbers", i)).to_vector<double>();
    const auto where = all.at(fmt::format("{}.where", i)).to_vector<std::int64_t>();
    list[i].layers.resize((values.size() - 11) / 7);
    const auto fields = numbers(list[i]);
    for (std::size_t k = 0; k < fields.size(); ++k) *fields[k] = values.at(k);
    list[i].worst.where.assign(where.begin(), where.end());
  }
}

void Probe::add_to(JsonFields& fields) const {
  const auto append = [&](const JsonFields& more) {
    fields.insert(fields.end(), more.begin(), more.end());
  };
  append({{"train_loss", train.loss},
          {"train_accuracy", train.accuracy},
          {"val_loss", val.loss},
          {"val_accuracy", val.accuracy},
          {"input_penalty", penalties.input},
          {"param_penalty_batch", penalties.batch},
          {"param_penalty_per_sample", penalties.sample}});
  if (layers.empty()) return;
  const auto column = [&](double LayerTerms::*member) {
    std::vector<double> values;
    for (const LayerTerms& l : layers) values.push_back(l.*member);
    return values;
  };
  std::vector<double> ratios;
  for (const LayerTerms& l : layers) ratios.push_back(l.lhs_w / l.rhs_w);
  append({{"h", column(&LayerTerms::h)},
          {"w", column(&LayerTerms::w)},
          {"jacobian", column(&LayerTerms::j)},
          {"lhs_w", column(&LayerTerms::lhs_w)},
          {"rhs_w", column(&LayerTerms::rhs_w)},
          {"lhs_b", column(&LayerTerms::lhs_b)},
          {"rhs_b", column(&LayerTerms::rhs_b)},
          {"ratio", ratios},
          {"lhs", lhs},
          {"rhs", rhs},
          {"worst_ratio", worst.ratio},
          {"worst_at", worst.where}});
}

void draw_layers(const std::vector<Probe>& run,
                 const std::string& title,
                 const std::filesystem::path& path) {
  Chart chart("penalty " + title + ": the inequality along training",
              {.panel_width = 420, .panel_height = 340});
  Panel &ratio = chart.panel("left side / right side", {"step", ""}),
        &h = chart.panel("|h|", {"step", ""}), &w = chart.panel("|W|, spectral", {"step", ""}),
        &j = chart.panel("|dh/dx|, spectral", {"step", ""});
  std::vector<double> steps, totals;
  for (const Probe& p : run) {
    steps.push_back(p.step);
    totals.push_back(p.lhs / p.rhs);
  }
  for (std::size_t k = 0; k < run[0].layers.size(); ++k) {
    const std::string name = fmt::format("layer {}", k + 1);
    const auto line = [&](Panel& panel, auto value) {
      std::vector<double> ys;
      for (const Probe& p : run) ys.push_back(value(p.layers[k]));
      panel.line(name, steps, ys);
    };
    line(ratio, [](const LayerTerms& l) { return l.lhs_w / l.rhs_w; });
    line(h, [](const LayerTerms& l) { return l.h; });
    line(w, [](const LayerTerms& l) { return l.w; });
    line(j, [](const LayerTerms& l) { return l.j; });
  }
  ratio.line("total (f)", steps, totals);
  chart.save(path);
}

std::vector<DifferenceError> measure_differences(ImageClassifier& model, const Labelled& data) {
  const TensorList params = model.parameters();
  const Tensor x = data.images.detach().requires_grad_();
  const SampleFunction f = [&](const Tensor& at) { return sample_losses(model, at, data.labels); };
  const TensorList input = gradients(input_gradient_penalty(f(x), x), params),
                   param = gradients(param_gradient_penalty_batch(f(x), params), params);
  std::vector<DifferenceError> out;
  for (const bool central : {false, true})
    for (const double step : {1.0, 1e-1, 1e-2, 1e-3, 1e-4}) {
      const DifferenceOptions o{step, central};
      out.push_back(
          {step, central,
           relative_error(gradients(input_gradient_penalty_difference(f, f(x), x, o), params),
                          input),
           relative_error(gradients(param_gradient_penalty_difference(
                                        [&] { return mean(f(data.images)); }, params, o),
                                    params),
                          param)});
    }
  return out;
}

std::vector<std::int64_t> parse_widths(const std::string& text) {
  return parse<std::int64_t>(text, "widths look like 64,32, each at least 1");
}

std::vector<double> parse_rates(const std::string& text) {
  return parse<double>(text, "rates look like 0.1,0.5, each above 0");
}

}  // namespace capsfw::apps
