#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = text.find(at);
    out.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
    if (text.empty()) out.emplace_back();
  }
  return out;
}

template <class T>
T number(const char* name, std::string_view text) {
  T value{};
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  bool ok = r.ec == std::errc() && r.ptr == text.data() + text.size();
  if constexpr (std::is_floating_point_v<T>) ok = ok && std::isfinite(value);
  if (!ok)
    throw ValueError(fmt::format("option {}: must be {}; got '{}'", name,
                                 std::is_floating_point_v<T> ? "a number" : "a whole number",
                                 text));
  return value;
}

}  // namespace

OptionText::OptionText(std::string_view text) {
  for (const std::string_view part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    const std::string name(part.substr(0, equals));
    if (name.empty())
      throw ValueError(fmt::format("options look like iterations=2,leaky; got '{}'", text));
    given_.emplace_back(name, equals == std::string_view::npos ? "true" : part.substr(equals + 1));
  }
}

const std::string* OptionText::given(const char* name) {
  const std::string* last = nullptr;
  for (const auto& [key, value] : given_)
    if (key == name) last = &value;
  return last;
}

void OptionText::written(const char* name, std::string value) {
  fields_.emplace_back(name, std::move(value));
}

void OptionText::field(const char* name, int& value) {
  if (const std::string* text = given(name)) value = number<int>(name, *text);
  written(name, fmt::format("{}", value));
}

void OptionText::field(const char* name, double& value) {
  if (const std::string* text = given(name)) value = number<double>(name, *text);
  written(name, fmt::format("{}", value));
}

void OptionText::field(const char* name, std::uint64_t& value) {
  if (const std::string* text = given(name)) value = number<std::uint64_t>(name, *text);
  written(name, fmt::format("{}", value));
}

void OptionText::field(const char* name, bool& value) {
  if (const std::string* text = given(name)) {
    if (*text != "true" && *text != "false")
      throw ValueError(fmt::format("option {}: must be true or false; got '{}'", name, *text));
    value = *text == "true";
  }
  written(name, value ? "true" : "false");
}

void OptionText::field(const char* name, std::vector<double>& value) {
  if (const std::string* text = given(name)) {
    value.clear();
    for (const std::string_view part : split(*text, '/'))
      value.push_back(number<double>(name, part));
  }
  written(name, fmt::format("{}", fmt::join(value, "/")));
}

int OptionText::choice(const char* name, int value, std::initializer_list<const char*> names) {
  if (const std::string* text = given(name)) {
    value = -1;
    for (int k = 0; k < static_cast<int>(names.size()); ++k)
      if (*text == names.begin()[k]) value = k;
    if (value < 0)
      throw ValueError(
          fmt::format("option {}: one of {}; got '{}'", name, fmt::join(names, ", "), *text));
  }
  written(name, names.begin()[value]);
  return value;
}

void OptionText::finish(std::string_view who) const {
  for (const auto& [key, value] : given_) {
    bool known = false;
    std::string names;
    for (const auto& field : fields_) {
      known = known || field.first == key;
      names += (names.empty() ? "" : ", ") + field.first;
    }
    if (!known)
      throw ValueError(fmt::format("routing '{}': no option '{}'; there {}", who, key,
                                   names.empty() ? "are none" : "are " + names));
  }
}

std::string OptionText::text() const {
  std::string out;
  for (const auto& [key, value] : fields_)
    out += fmt::format("{}{}={}", out.empty() ? "" : ",", key, value);
  return out;
}

}  // namespace capsfw
