#include <capsfw/layers/interop.hpp>

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// The name of piece `k`.
std::string piece_name(const NameRule& rule, std::int64_t k) {
  const std::size_t star = rule.theirs.find('*');
  return rule.theirs.substr(0, star) + std::to_string(k) + rule.theirs.substr(star + 1);
}

bool in_pieces(const NameRule& rule) { return rule.theirs.find('*') != std::string::npos; }

/// True for the names that a rule without a counterpart leaves out.
bool left_out(const NameTable& table, const std::string& name) {
  return std::any_of(table.begin(), table.end(), [&](const NameRule& r) {
    if (!r.ours.empty()) return false;
    const std::size_t star = r.theirs.find('*');
    if (star == std::string::npos) return r.theirs == name;
    const std::string head = r.theirs.substr(0, star), tail = r.theirs.substr(star + 1);
    return name.size() > head.size() + tail.size() && name.starts_with(head) &&
           name.ends_with(tail);
  });
}

/// The shape of theirs, whole.
Shape shape_of(const NameRule& rule, const Shape& ours) {
  return rule.shape.empty() ? ours : rule.shape;
}

/// What `order` counts the axes of.
Shape view_of(const NameRule& rule, const Shape& ours) {
  return rule.view.empty() ? shape_of(rule, ours) : rule.view;
}

Axes order_of(const NameRule& rule, int rank) {
  Axes order = rule.order;
  for (int i = 0; rule.order.empty() && i < rank; ++i) order.push_back(i);
  return order;
}

/// What is wrong with a rule itself, for a tensor of ours of this shape; "" if nothing.
std::string check_rule(const NameRule& rule, const Shape& ours) {
  const Shape shape = shape_of(rule, ours), view = view_of(rule, ours);
  const Axes order = order_of(rule, view.rank());
  std::set<std::int64_t> axes(order.begin(), order.end());
  const bool permutation =
      order.rank() == view.rank() && static_cast<int>(axes.size()) == view.rank() &&
      (axes.empty() || (*axes.begin() == 0 && *axes.rbegin() == view.rank() - 1));
  if (!permutation)
    return fmt::format("\n  rule: {}: order must list each axis of {} once; got {}", rule.ours,
                       view.str(), order.str());
  if (shape.numel() != ours.numel() || view.numel() != ours.numel())
    return fmt::format("\n  rule: {} {} has not as many elements as theirs, {}", rule.ours,
                       ours.str(), shape.str());
  if (in_pieces(rule) && shape.empty())
    return fmt::format("\n  rule: {}: a name with * needs their number in front of the shape",
                       rule.ours);
  return "";
}

Shape without_first(const Shape& shape) {
  Shape rest = shape;
  rest.erase(0);
  return rest;
}

void fail(const char* who, const std::string& problems) {
  if (!problems.empty())
    throw ValueError(fmt::format("{}: the state does not fit the table:{}", who, problems));
}

/// Rules that are of use here; complains of tensors of ours without one, or with two.
std::vector<const NameRule*> rules_for(const StateDict& ours,
                                       const NameTable& table,
                                       std::string& problems) {
  std::vector<const NameRule*> rules;
  std::set<std::string> seen;
  for (const NameRule& rule : table) {
    if (rule.ours.empty()) continue;
    if (!seen.insert(rule.ours).second) {
      problems += fmt::format("\n  rule: two for {}", rule.ours);
    } else if (!ours.contains(rule.ours)) {
      problems += fmt::format("\n  rule: {} is no tensor of ours", rule.ours);
    } else {
      const std::string wrong = check_rule(rule, ours.at(rule.ours).shape());
      problems += wrong;
      if (wrong.empty()) rules.push_back(&rule);
    }
  }
  for (const auto& [name, t] : ours)
    if (!seen.contains(name)) problems += fmt::format("\n  no rule: {} {}", name, t.shape().str());
  return rules;
}

}  // namespace

StateDict import_state(const StateDict& theirs, const StateDict& like, const NameTable& table) {
  const NoGradGuard no_grad;
  std::string problems;
  std::set<std::string> used;
  StateDict out;
  // Finds a tensor of theirs; notes what is wrong with it.
  const auto find = [&](const std::string& name, const Shape& shape) -> Tensor {
    used.insert(name);
    if (!theirs.contains(name)) {
      problems += fmt::format("\n  missing: {} {}", name, shape.str());
    } else if (const Tensor& t = theirs.at(name); t.shape() != shape) {
      problems +=
          fmt::format("\n  shape: {} is {}, {} in the table", name, t.shape().str(), shape.str());
    } else {
      return t;
    }
    return {};
  };
  for (const NameRule* rule : rules_for(like, table, problems)) {
    const Tensor& mine = like.at(rule->ours);
    const Shape shape = shape_of(*rule, mine.shape());
    Tensor x;
    if (in_pieces(*rule)) {
      TensorList pieces;
      for (std::int64_t k = 0; k < shape[0]; ++k)
        pieces.push_back(find(piece_name(*rule, k), without_first(shape)));
      if (std::all_of(pieces.begin(), pieces.end(), [](const Tensor& t) { return t.defined(); }))
        x = stack(pieces, 0);
    } else {
      x = find(rule->theirs, shape);
    }
    if (!x.defined()) continue;
    const Shape view = view_of(*rule, mine.shape());
    x = reshape(permute(reshape(x, view), order_of(*rule, view.rank())), mine.shape());
    Tensor copy = empty(mine.shape(), mine.dtype());
    copy.copy_(x);
    out.set(rule->ours, copy);
  }
  for (const auto& [name, t] : theirs)
    if (!used.contains(name) && !left_out(table, name))
      problems += fmt::format("\n  unexpected: {} {}", name, t.shape().str());
  fail("import_state", problems);
  return out;
}

StateDict export_state(const StateDict& ours, const NameTable& table) {
  const NoGradGuard no_grad;
  std::string problems;
  StateDict out;
  const auto put = [&](const std::string& name, const Tensor& x) {
    if (out.contains(name)) problems += fmt::format("\n  rule: two tensors for {}", name);
    Tensor copy = empty(x.shape(), x.dtype());
    copy.copy_(x);
    out.set(name, copy);
  };
  for (const NameRule* rule : rules_for(ours, table, problems)) {
    const Tensor& mine = ours.at(rule->ours);
    const Shape shape = shape_of(*rule, mine.shape()), view = view_of(*rule, mine.shape());
    const Axes order = order_of(*rule, view.rank());
    Shape permuted;
    Axes inverse = Dims::filled(view.rank(), 0);
    for (int i = 0; i < view.rank(); ++i) {
      permuted.push_back(view[static_cast<int>(order[i])]);
      inverse[static_cast<int>(order[i])] = i;
    }
    const Tensor x = reshape(permute(reshape(mine, permuted), inverse), shape);
    if (!in_pieces(*rule)) {
      put(rule->theirs, x);
    } else {
      for (std::int64_t k = 0; k < shape[0]; ++k) put(piece_name(*rule, k), select(x, 0, k));
    }
  }
  fail("export_state", problems);
  return out;
}

NameTable pytorch_names(const CapsNet& net, PytorchLayout layout) {
  const CapsNetOptions& o = net.options();
  const auto plain = [](const ConvStage& s) {
    return !s.batch_norm && s.se_reduction == 0 && s.pool == 1;
  };
  if (o.primary_kind != PrimaryKind::convolution || o.capsules.size() != 1 ||
      o.dense.votes != VoteWeights::full || o.dense.vote_bias || o.dense.frobenius ||
      o.dense.noise_class || o.decoder == DecoderKind::convolutional ||
      !std::all_of(o.convs.begin(), o.convs.end(), plain))
    throw ValueError(
        "pytorch_names: the network must have plain convolutions, convolutional primary "
        "capsules, one dense layer with full votes without bias, Frobenius norm and noise class, "
        "and a fully "
        "connected decoder or none. Hint: write the other rules by hand");
  const StateDict like = net.state_dict();
  NameTable table;
  for (std::size_t i = 1; i <= o.convs.size(); ++i)
    for (const char* part : {"weight", "bias"}) {
      const std::string name = fmt::format("conv{}.{}", i, part);
      table.push_back({.ours = name, .theirs = name});
    }

  const std::int64_t types = o.primary.count, dim = o.primary.dim;
  const Shape conv = like.at("primary.conv.weight").shape();
  const Shape w = like.at("digits.votes.weight").shape();  // [I, J, D, E]
  if (layout == PytorchLayout::by_component) {
    const char* note = "channel c of convolution d is our channel c E + d";
    table.push_back({.ours = "primary.conv.weight",
                     .theirs = "primary_capsules.capsules.*.weight",
                     .shape = {dim, types, conv[1], conv[2], conv[3]},
                     .order = {1, 0, 2, 3, 4},
                     .note = note});
    table.push_back({.ours = "primary.conv.bias",
                     .theirs = "primary_capsules.capsules.*.bias",
                     .shape = {dim, types},
                     .order = {1, 0},
                     .note = note});
    table.push_back({.ours = "digits.votes.weight",
                     .theirs = "digit_capsules.route_weights",
                     .shape = {w[1], w[0], w[3], w[2]},
                     .order = {1, 0, 3, 2},
                     .note = "[J, I, E, D] is our [I, J, D, E]"});
  } else {
    for (const char* part : {"weight", "bias"})
      table.push_back({.ours = fmt::format("primary.conv.{}", part),
                       .theirs = fmt::format("primary_capsules.conv.{}", part)});
    table.push_back({.ours = "digits.votes.weight",
                     .theirs = "digit_capsules.W",
                     .shape = {1, w[0], w[1], w[2], w[3]},
                     .note = "one axis more, for the batch"});
  }
  if (o.decoder == DecoderKind::fully_connected)
    for (std::size_t i = 0; i <= o.decoder_hidden.size(); ++i)
      for (const char* part : {"weight", "bias"})
        table.push_back({.ours = fmt::format("decoder.fc{}.{}", i + 1, part),
                         .theirs = fmt::format("decoder.{}.{}", 2 * i, part)});
  return table;
}

}  // namespace capsfw
