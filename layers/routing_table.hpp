#pragma once
// Routings by name: "kmeans:iterations=2,sharpness=4". A spec is text, so that it can stand on a
// command line, in a file beside the weights and in a table of results.

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// Options as text, "iterations=2,leaky,alphas=1/0.5": a routing lists its fields once, in
/// describe(OptionText&, Options&), and can then be read and written. A flag without a value is
/// true; numbers of a list are separated by '/'.
class OptionText {
 public:
  /// Collects fields: text() gives all of them.
  OptionText() = default;
  /// Sets fields from text. ValueError if it is not a list of name=value.
  explicit OptionText(std::string_view text);

  /// An option of this name; ValueError when the text is not such a value.
  void field(const char* name, int& value);
  void field(const char* name, double& value);
  void field(const char* name, bool& value);
  void field(const char* name, std::uint64_t& value);
  void field(const char* name, std::vector<double>& value);
  /// An enum that counts from 0, by names.
  template <class E>
  requires std::is_enum_v<E>
  void field(const char* name, E& value, std::initializer_list<const char*> names) {
    value = static_cast<E>(choice(name, static_cast<int>(value), names));
  }

  /// ValueError, listing the fields of `who`, if the text gave one that there is not.
  void finish(std::string_view who) const;
  /// All fields and their values.
  std::string text() const;

 private:
  const std::string* given(const char* name);
  int choice(const char* name, int value, std::initializer_list<const char*> names);
  void written(const char* name, std::string value);

  std::vector<std::pair<std::string, std::string>> given_, fields_;
};

/// A named way to make a routing.
struct RoutingKind {
  std::string name, summary;  ///< on the command line, in help
  /// Complete options from given ones. ValueError on options that do not exist.
  std::function<std::string(std::string_view options)> complete;
  /// Makes one from the text of its options.
  std::function<std::unique_ptr<Routing>(std::string_view options, const RoutingSize&, Rng&)> make;
};

/// The row of a class R : Routing with a type R::Options, constructor R(size, options, rng) and
/// describe(OptionText&, R::Options&). `defaults` make a variant of it under another name.
template <class R>
RoutingKind routing_kind(std::string name, std::string summary, typename R::Options defaults = {}) {
  const auto parse = [name, defaults](std::string_view text) {
    typename R::Options o = defaults;
    OptionText in(text);
    describe(in, o);
    in.finish(name);
    return o;
  };
  return {name, std::move(summary),
          [parse](std::string_view text) {
            typename R::Options o = parse(text);
            OptionText out;
            describe(out, o);
            return out.text();
          },
          [parse](std::string_view text, const RoutingSize& size, Rng& rng) {
            return std::unique_ptr<Routing>(std::make_unique<R>(size, parse(text), rng));
          }};
}

/// All kinds, those of the library first.
const std::vector<RoutingKind>& routing_kinds();
/// Adds one, for programs with a routing of their own; call it before anything looks names up (the
/// list is global and not guarded). ValueError if the name is taken.
void add_routing(RoutingKind kind);

/// Which routing a layer uses, with its options.
class RoutingSpec {
 public:
  RoutingSpec() : RoutingSpec("dynamic") {}
  /// "NAME" or "NAME:OPTIONS".   ValueError listing the names, or the options of that name.
  RoutingSpec(std::string_view text);  // NOLINT: a spec is its text
  RoutingSpec(const char* text) : RoutingSpec(std::string_view(text)) {}         // NOLINT
  RoutingSpec(const std::string& text) : RoutingSpec(std::string_view(text)) {}  // NOLINT
  /// From typed options: RoutingSpec(KmeansRoutingOptions{.iterations = 2}).
  template <class O>
  requires requires { O::kRouting; }
  RoutingSpec(O options) : name_(O::kRouting) {  // NOLINT
    OptionText out;
    describe(out, options);
    options_ = out.text();
  }

  /// The name alone.
  const std::string& name() const { return name_; }
  const std::string& options() const { return options_; }  ///< the options alone
  /// The whole.
  std::string text() const { return options_.empty() ? name_ : name_ + ":" + options_; }
  /// Whether there is such an option.
  bool has(std::string_view option) const;
  /// Its value, "" if there is none.
  std::string get(std::string_view option) const;
  /// The same with another value; ValueError as the constructor.
  RoutingSpec with(std::string_view option, std::string_view value) const;

  /// The routing that the text describes; ShapeError if sizes do not suit it.
  std::unique_ptr<Routing> make(const RoutingSize& size, Rng& rng) const;

 private:
  std::string name_, options_;
};

/// The typed options of a spec: options_of<EmRoutingOptions>("em:iterations=2").   ValueError if
/// the routing has others.
template <class O>
O options_of(const RoutingSpec& spec) {
  O options;
  OptionText text(spec.options());
  describe(text, options);
  text.finish(O::kRouting);
  return options;
}

}  // namespace capsfw
