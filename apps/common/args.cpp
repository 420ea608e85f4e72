#include "args.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <functional>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <capsfw/core/version.hpp>

#include "text.hpp"

namespace capsfw::apps {
namespace {

constexpr std::size_t kHelpWidth = 96;
constexpr std::size_t kHelpColumn = 28;

struct Entry {
  std::string section;
  std::string left;   // "-o, --out DIR"
  std::string right;  // what it does, with default and rule
  std::string long_name;
  CLI::Option* option = nullptr;
  std::function<std::string()> text = {};  // of the value
};

[[noreturn]] void refuse(const std::string& text) { throw ValueError(text); }

template <class T>
T number(const std::string& text, const Range& range) {
  constexpr bool whole = std::is_integral_v<T>;
  T value{};
  const char* end = text.data() + text.size();
  const auto [at, code] = std::from_chars(text.data(), end, value);
  const bool good = code == std::errc() && at == end && std::isfinite(static_cast<double>(value)) &&
                    range.contains(static_cast<double>(value));
  if (good) return value;
  const bool out_of_range = code == std::errc::result_out_of_range && at == end;
  const std::string rule = range.str();
  refuse(fmt::format("must be a {}number{}{}; got '{}'{}", whole ? "whole " : "",
                     rule.empty() ? "" : ", ", rule, text,
                     out_of_range ? ", which is out of range" : ""));
}

}  // namespace

std::string Range::str() const {
  std::string out;
  const auto say = [&](const char* word, double v) {
    if (std::isfinite(v)) out += fmt::format("{}{} {}", out.empty() ? "" : " and ", word, v);
  };
  say("at least", min);
  say("above", above);
  say("at most", max);
  say("below", below);
  return out;
}

struct Args::Impl {
  CLI::App app;
  std::string program;
  std::string section = "Options";
  std::vector<Entry> entries;
  std::vector<std::string> examples;
  Entry positional;
  int threads = 0;

  /// Registers one value; `set` converts the text or throws an Error that completes "--flag: ".
  void value(const std::string& spec,
             std::string help,
             const std::string& notes,
             const std::function<void(const std::string&)>& set,
             std::function<std::string()> shown) {
    const std::size_t space = spec.find(' ');
    const std::string names = spec.substr(0, space);
    const std::string meta = space == std::string::npos ? "VALUE" : spec.substr(space + 1);
    const std::string long_name = names.substr(names.rfind(',') + 1);
    CLI::Option* option = app.add_option_function<std::string>(names, [=](const std::string& text) {
      try {
        set(text);
      } catch (const Error& e) {
        throw CLI::ValidationError(long_name, e.what());
      }
    });
    option->type_name(meta)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (!notes.empty()) help += fmt::format(" ({})", notes);
    add_entry(names, " " + meta, std::move(help), option, std::move(shown));
  }

  void add_entry(std::string names,
                 const std::string& meta,
                 std::string help,
                 CLI::Option* o,
                 std::function<std::string()> shown = {}) {
    const std::string long_name = names.substr(names.rfind(',') + 1);
    if (const std::size_t comma = names.find(','); comma != std::string::npos)
      names.insert(comma + 1, " ");
    entries.push_back({section, names + meta, std::move(help), long_name, o, std::move(shown)});
  }

  template <class T>
  void number_flag(const std::string& spec, T& value_out, const std::string& help, Range range) {
    const std::string rule = range.str();
    const std::string notes =
        fmt::format("default {}{}{}", value_out, rule.empty() ? "" : "; ", rule);
    value(
        spec, help, notes,
        [&value_out, range](const std::string& text) { value_out = number<T>(text, range); },
        [&value_out] { return fmt::to_string(value_out); });
  }

  const CLI::Option& option(const std::string& flag, const char* who) const {
    for (const Entry& e : entries)
      if (e.long_name == flag && e.option != nullptr) return *e.option;
    throw ValueError(fmt::format("Args::{}: no flag '{}'", who, flag));
  }

  std::string complaint_about(const std::string& extra) const {
    if (!extra.starts_with('-')) return fmt::format("'{}': unexpected argument", extra);
    const std::string flag = extra.substr(0, extra.find('='));
    std::vector<std::string> known;
    for (const Entry& e : entries) known.push_back(e.long_name);
    const std::string meant = closest(flag, known);
    return fmt::format("{}: unknown flag{}", flag, meant.empty() ? "" : ". Hint: " + meant + "?");
  }

  int fail(const std::string& message) const {
    fmt::print(stderr, "error: {}\nSee: {} --help\n", message, program);
    return 2;
  }
};

Args::Args(std::string program, std::string description) : impl_(std::make_unique<Impl>()) {
  impl_->app.description(std::move(description));
  impl_->program = std::move(program);
  impl_->app.set_help_flag("-h,--help");
  impl_->app.set_version_flag("--version", CAPSFW_VERSION);
  impl_->app.allow_extras();
  impl_->section = "General";
  impl_->value("--threads N", "threads to compute with",
               "default: what the machine allows; at least 1",
               [this](const std::string& text) {
                 impl_->threads = number<int>(text, {.min = 1, .max = 1024});
               },
               {});
  impl_->add_entry("-h,--help", "", "print this text", nullptr);
  impl_->add_entry("--version", "", "print the version of capsfw", nullptr);
  impl_->section = "Options";
}

Args::~Args() = default;

Args& Args::section(std::string title) {
  impl_->section = std::move(title);
  return *this;
}

Args& Args::add(const std::string& spec, int& value, const std::string& help, Range range) {
  impl_->number_flag(spec, value, help, range);
  return *this;
}

Args& Args::add(const std::string& spec,
                std::int64_t& value,
                const std::string& help,
                Range range) {
  impl_->number_flag(spec, value, help, range);
  return *this;
}

Args& Args::add(const std::string& spec,
                std::uint64_t& value,
                const std::string& help,
                Range range) {
  if (range.above < 0) range.min = std::max(range.min, 0.0);
  impl_->number_flag(spec, value, help, range);
  return *this;
}

Args& Args::add(const std::string& spec, double& value, const std::string& help, Range range) {
  impl_->number_flag(spec, value, help, range);
  return *this;
}

Args& Args::add(const std::string& spec, std::string& value, std::string help, TextCheck check) {
  impl_->value(
      spec, std::move(help), value.empty() ? "" : "default " + value,
      [&value, check = std::move(check)](const std::string& text) {
        if (check) check(text);
        value = text;
      },
      [&value] { return value; });
  return *this;
}

Args& Args::add(const std::string& spec, bool& value, std::string help) {
  CLI::Option* option = impl_->app.add_flag(spec, value);
  option->disable_flag_override()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  impl_->add_entry(spec, "", std::move(help), option,
                   [&value] { return std::string(value ? "yes" : "no"); });
  return *this;
}

Args& Args::choice(const std::string& flag,
                   std::string& value,
                   std::vector<std::string> names,
                   std::string help) {
  const std::string all = fmt::format("{}", fmt::join(names, "|"));
  impl_->value(
      flag + " " + all, std::move(help), "default " + value,
      [&value, names](const std::string& text) {
        if (std::find(names.begin(), names.end(), text) == names.end())
          refuse(fmt::format("must be one of {}; got '{}'", fmt::join(names, ", "), text));
        value = text;
      },
      [&value] { return value; });
  return *this;
}

Args& Args::positional(const std::string& name,
                       std::vector<std::string>& values,
                       std::string help,
                       int at_least) {
  CLI::Option* option = impl_->app.add_option(name, values);
  if (at_least > 0) option->required();
  option->expected(std::max(at_least, 1), CLI::detail::expected_max_vector_size);
  impl_->positional = {"Arguments", name + "...", std::move(help), name, option};
  return *this;
}

Args& Args::example(std::string line) {
  impl_->examples.push_back(std::move(line));
  return *this;
}

std::optional<int> Args::parse(int argc, const char* const* argv) {
  try {
    impl_->app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", help());
    return 0;
  } catch (const CLI::CallForVersion&) {
    fmt::print("{} (capsfw {})\n", impl_->program, CAPSFW_VERSION);
    return 0;
  } catch (const CLI::ArgumentMismatch& e) {
    // Either "--epochs: 1 required N missing" or "quick was given a disallowed flag override".
    const std::string text = e.what();
    const std::string name = text.substr(0, text.find(':'));
    for (const Entry& entry : impl_->entries) {
      if (entry.long_name == name)
        return impl_->fail(fmt::format("{}: needs a value; got none", name));
      if (text.starts_with(entry.long_name.substr(entry.long_name.find_first_not_of('-')) + " was"))
        return impl_->fail(fmt::format("{}: takes no value", entry.long_name));
    }
    return impl_->fail(text);
  } catch (const CLI::ParseError& e) {
    return impl_->fail(e.what());
  }
  if (const auto extras = impl_->app.remaining(); !extras.empty())
    return impl_->fail(impl_->complaint_about(extras.front()));
  return std::nullopt;
}

bool Args::given(const std::string& flag) const { return impl_->option(flag, "given").count() > 0; }

bool Args::takes_value(const std::string& flag) const {
  return impl_->option(flag, "takes_value").get_items_expected_max() > 0;
}

void Args::refuse_idle(bool idle,
                       const std::string& why,
                       std::initializer_list<const char*> flags) const {
  for (const char* flag : flags)
    if (idle && given(flag)) throw UsageError(fmt::format("{}: {}", flag, why));
}

std::map<std::string, std::string> Args::values() const {
  std::map<std::string, std::string> out;
  for (const Entry& e : impl_->entries)
    if (e.text) out[e.long_name] = e.text();
  return out;
}

int Args::threads() const { return impl_->threads; }
const std::string& Args::program() const { return impl_->program; }

std::string Args::help() const {
  const Impl& m = *impl_;
  std::string out =
      fmt::format("{}\n\nUsage: {} [flags]{}\n", wrapped(m.app.get_description(), kHelpWidth, 0),
                  m.program, m.positional.left.empty() ? "" : " " + m.positional.left);
  std::vector<std::string> sections;
  std::vector<Entry> all = m.entries;
  if (!m.positional.left.empty()) all.insert(all.begin(), m.positional);
  for (const Entry& e : all)
    if (e.section != "General" &&
        std::find(sections.begin(), sections.end(), e.section) == sections.end())
      sections.push_back(e.section);
  sections.push_back("General");
  for (const std::string& s : sections) {
    out += fmt::format("\n{}:\n", s);
    for (const Entry& e : all) {
      if (e.section != s) continue;
      const std::string left = "  " + e.left;
      const bool fits = left.size() + 2 <= kHelpColumn;
      out += fits ? fmt::format("{:<{}}", left, kHelpColumn)
                  : left + '\n' + std::string(kHelpColumn, ' ');
      out += wrapped(e.right, kHelpWidth, kHelpColumn) + '\n';
    }
  }
  if (!m.examples.empty()) out += "\nExamples:\n";
  for (const std::string& e : m.examples) out += "  " + e + '\n';
  return out;
}

}  // namespace capsfw::apps
