#pragma once
// A golden case: what its file holds, and one evaluation of it in one element type.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/core/dtype.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw::golden {

/// A case as stored: tensors in.X, out.Y, cot.Y, grad.X, dir.X, hvp.X, jvp.Y and metadata.
class CaseFile {
 public:
  /// IoError if the file or its metadata is malformed.
  explicit CaseFile(const std::filesystem::path& path);

  /// "theme.case".
  const std::string& name() const { return name_; }
  /// 0: values, 1: and gradients, 2: and products with the second derivative.
  int order() const { return order_; }
  const std::vector<std::string>& diff_inputs() const { return diff_inputs_; }
  const std::vector<std::string>& const_inputs() const { return const_inputs_; }
  /// Names Y of all tensors "<kind>.Y".
  std::vector<std::string> names(std::string_view kind) const;
  /// All that a result may depend on: "in.X" of every input, "hp.NAME" of every hyper-parameter.
  std::vector<std::string> given() const;

  const Tensor& stored(const std::string& tensor) const { return file_.state.at(tensor); }
  /// A copy in the given element type; integers stay as they are.
  Tensor copy(const std::string& tensor, DType dtype) const;
  /// Largest allowed difference; nothing where the case says "none". IoError if it says nothing.
  std::optional<double> tolerance(const std::string& tensor, DType dtype) const;
  /// Text of hp.NAME; null if absent.
  const std::string* hp(const std::string& name) const;

 private:
  const std::string& meta(const std::string& key) const;

  SafetensorsFile file_;
  std::string name_;
  int order_ = 0;
  std::vector<std::string> diff_inputs_, const_inputs_;
};

/// The inputs and hyper-parameters of a case as the code that runs it sees them. It notes what is
/// read: a result that does not depend on all that is given is not that of the case.
class Case {
 public:
  /// Every differentiable input becomes a leaf that requires a gradient.
  Case(const CaseFile& file, DType dtype);

  DType dtype() const { return dtype_; }
  /// An input; IoError if the case has none of this name.
  const Tensor& operator[](const std::string& input) const;
  bool has(const std::string& input) const { return inputs_.contains(input); }
  /// The input, or an undefined tensor.
  Tensor optional(const std::string& input) const { return has(input) ? (*this)[input] : Tensor(); }
  /// Loads inputs into a layer, {{"fc1.weight", "W"}, ...} for all its parameters and buffers, and
  /// lets its parameters take the place of these inputs, so that gradients are theirs.
  void load(Module& layer, const std::map<std::string, std::string>& inputs);
  /// Shape of a stored output, for outputs whose length is a choice of the case.
  const Shape& output_shape(const std::string& output) const;
  /// What the case gives and nothing has read so far: "in.X", "hp.NAME".
  std::vector<std::string> unread() const;

  /// Hyper-parameters. IoError if absent (without a default) or malformed.
  double number(const std::string& name) const;
  double number(const std::string& name, double otherwise) const;
  int integer(const std::string& name) const;
  bool flag(const std::string& name, bool otherwise = false) const;
  std::string text(const std::string& name) const;
  Dims dims(const std::string& name) const;
  std::vector<double> numbers(const std::string& name) const;

 private:
  /// Text of hp.NAME, which counts as read; null if absent.
  const std::string* hp(const std::string& name) const;

  const CaseFile& file_;
  DType dtype_;
  std::map<std::string, Tensor> inputs_;
  mutable std::set<std::string> read_;  // of `given`; reading does not change a case
};

/// Values by name: "v" of what a case computes, "out.v" and "grad.votes" of what is compared.
using Named = std::map<std::string, Tensor>;

/// A number that fills the text. IoError naming `what` otherwise.
double parse_number(std::string_view text, std::string_view what);
/// Parts between commas; none for an empty text.
std::vector<std::string> split_list(std::string_view text);

}  // namespace capsfw::golden
