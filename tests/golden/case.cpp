#include "case.hpp"

#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::golden {
namespace {

int whole(double value, const std::string& what) {
  if (value != std::round(value) || !(std::abs(value) <= 1e9))
    throw IoError(fmt::format("{}: must be a whole number; got {}", what, value));
  return static_cast<int>(value);
}

}  // namespace

double parse_number(std::string_view text, std::string_view what) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size())
    throw IoError(fmt::format("{}: must be a number; got '{}'", what, text));
  return value;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

CaseFile::CaseFile(const std::filesystem::path& path) : file_(load_safetensors(path)) {
  name_ = meta("theme") + "." + meta("case");
  const double order = parse_number(meta("order"), "metadata 'order'");
  if (order != 0 && order != 1 && order != 2)
    throw IoError(fmt::format("metadata 'order' must be 0, 1 or 2; got {}", order));
  order_ = static_cast<int>(order);
  diff_inputs_ = split_list(meta("diff_inputs"));
  const_inputs_ = split_list(meta("const_inputs"));
  if (names("out").empty()) throw IoError("the case holds no output 'out.X'");
}

const std::string& CaseFile::meta(const std::string& key) const {
  const auto it = file_.metadata.find(key);
  if (it == file_.metadata.end())
    throw IoError(fmt::format("the metadata lacks '{}': no golden case?", key));
  return it->second;
}

std::vector<std::string> CaseFile::names(std::string_view kind) const {
  std::vector<std::string> found;
  for (const auto& [tensor, value] : file_.state)
    if (tensor.size() > kind.size() && tensor.starts_with(kind) && tensor[kind.size()] == '.')
      found.push_back(tensor.substr(kind.size() + 1));
  return found;
}

std::vector<std::string> CaseFile::given() const {
  std::vector<std::string> found;
  for (const std::string& name : names("in")) found.push_back("in." + name);
  for (const auto& [key, text] : file_.metadata)
    if (key.starts_with("hp.")) found.push_back(key);
  return found;
}

Tensor CaseFile::copy(const std::string& tensor, DType dtype) const {
  const Tensor& x = stored(tensor);
  return empty(x.shape(), is_floating(x.dtype()) ? dtype : x.dtype()).copy_(x);
}

std::optional<double> CaseFile::tolerance(const std::string& tensor, DType dtype) const {
  const std::string key = (dtype == DType::f32 ? "tol32." : "tol64.") + tensor;
  const std::string& text = meta(key);
  if (text == "none") return std::nullopt;
  const double value = parse_number(text, "metadata '" + key + "'");
  if (!(value >= 0))
    throw IoError(fmt::format("metadata '{}' must be at least 0; got {}", key, text));
  return value;
}

const std::string* CaseFile::hp(const std::string& name) const {
  const auto it = file_.metadata.find("hp." + name);
  return it == file_.metadata.end() ? nullptr : &it->second;
}

Case::Case(const CaseFile& file, DType dtype) : file_(file), dtype_(dtype) {
  for (const std::string& name : file.diff_inputs())
    inputs_[name] = file.copy("in." + name, dtype).requires_grad_();
  for (const std::string& name : file.const_inputs())
    inputs_[name] = file.copy("in." + name, dtype);
}

const Tensor& Case::operator[](const std::string& input) const {
  const auto it = inputs_.find(input);
  if (it == inputs_.end()) throw IoError(fmt::format("the case has no input '{}'", input));
  read_.insert("in." + input);
  return it->second;
}

void Case::load(Module& layer, const std::map<std::string, std::string>& inputs) {
  StateDict values;
  for (const auto& [path, input] : inputs) values.set(path, (*this)[input].detach());
  layer.to(dtype_);
  layer.load_state_dict(values);
  for (const auto& [path, parameter] : layer.named_parameters())
    inputs_[inputs.at(path)] = parameter;
}

const Shape& Case::output_shape(const std::string& output) const {
  return file_.stored("out." + output).shape();
}

std::vector<std::string> Case::unread() const {
  std::vector<std::string> found;
  for (const std::string& name : file_.given())
    if (!read_.contains(name)) found.push_back(name);
  return found;
}

const std::string* Case::hp(const std::string& name) const {
  read_.insert("hp." + name);
  return file_.hp(name);
}

std::string Case::text(const std::string& name) const {
  if (const std::string* value = hp(name)) return *value;
  throw IoError(fmt::format("the case has no hyper-parameter 'hp.{}'", name));
}

double Case::number(const std::string& name) const {
  return parse_number(text(name), "hp." + name);
}

double Case::number(const std::string& name, double otherwise) const {
  return hp(name) != nullptr ? number(name) : otherwise;
}

int Case::integer(const std::string& name) const { return whole(number(name), "hp." + name); }

bool Case::flag(const std::string& name, bool otherwise) const {
  const std::string* value = hp(name);
  if (value == nullptr) return otherwise;
  if (*value != "true" && *value != "false")
    throw IoError(fmt::format("hp.{}: must be true or false; got '{}'", name, *value));
  return *value == "true";
}

std::vector<double> Case::numbers(const std::string& name) const {
  std::vector<double> out;
  for (const std::string& part : split_list(text(name)))
    out.push_back(parse_number(part, "hp." + name));
  return out;
}

Dims Case::dims(const std::string& name) const {
  Dims out;
  for (const std::string& part : split_list(text(name)))
    out.push_back(whole(parse_number(part, "hp." + name), "hp." + name));
  return out;
}

}  // namespace capsfw::golden
