// The pages of the project stay true: links lead somewhere, and quoted code is in the source.
//
// A quotation is a fenced block under a comment that names its source, <!-- core/grad.cpp -->, or a
// marked part of it, <!-- apps/lesson_1_tensors.cpp [views] -->: the lines between the two
// "// [views]", in scripts "# [views]". A line "// ..." in a block stands for lines left out.
// Indentation does not count.

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <functional>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "project_text.hpp"

using namespace capsfw::testing;

namespace {

namespace fs = std::filesystem;
using Lines = std::vector<std::string>;

std::string trimmed(const std::string& s) {
  const auto first = s.find_first_not_of(" \t\r"), last = s.find_last_not_of(" \t\r");
  return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

/// README.md and its neighbours, and everything under docs/.
std::vector<fs::path> pages() {
  std::vector<fs::path> found;
  const auto take = [&](const fs::path& p) {
    if (p.extension() == ".md") found.push_back(p);
  };
  for (const auto& entry : fs::directory_iterator(kRoot)) take(entry.path());
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "docs")) take(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

/// The lines of a source without blank ones, or those between its two markers.
Lines source_of(const fs::path& path, const std::string& name) {
  Lines all;
  bool inside = name.empty();
  for (const std::string& raw : lines_of(read_text(path))) {
    const std::string line = trimmed(raw);
    if (!name.empty() && (line == "// [" + name + "]" || line == "# [" + name + "]"))
      inside = !inside;
    else if (inside && !line.empty())
      all.push_back(line);
  }
  return all;
}

/// "" if the pieces of `block` stand in `source` in this order, else the first piece that does not.
std::string missing(const Lines& block, const Lines& source) {
  auto from = source.begin();
  Lines piece;
  const auto place = [&] {
    const auto at = std::search(from, source.end(), piece.begin(), piece.end());
    if (at == source.end() && !piece.empty()) return false;
    from = at + static_cast<std::ptrdiff_t>(piece.size());
    piece.clear();
    return true;
  };
  for (const std::string& line : block) {
    if (line != "// ...")
      piece.push_back(line);
    else if (!place())
      return piece.front();
  }
  return place() ? "" : piece.front();
}

/// The anchors of a page, as GitHub makes them of headings: "## At zero, and" -> "at-zero-and".
std::set<std::string> anchors_of(const fs::path& page) {
  std::set<std::string> found;
  bool code = false;
  for (const std::string& line : lines_of(read_text(page))) {
    if (trimmed(line).starts_with("```")) code = !code;
    if (code || !line.starts_with("#")) continue;
    std::string anchor;
    for (const char c : trimmed(line.substr(std::min(line.find_first_not_of('#'), line.size())))) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x80 || std::isalnum(byte) || c == '-' || c == '_')
        anchor += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
      else if (c == ' ')
        anchor += '-';
    }
    found.insert(anchor);
  }
  return found;
}

/// Names of all test cases.
std::set<std::string> test_names() {
  static const std::regex name(R"re(TEST_CASE\(\s*"([^"]+)"((?:\s*"[^"]*")*)\))re");
  static const std::regex joint(R"re("\s*")re");
  std::set<std::string> names;
  for (const std::string& file : sources({"tests"})) {
    const std::string text = read_text(kRoot / file);
    for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it) {
      const std::string more = std::regex_replace((*it)[2].str(), joint, "");
      names.insert((*it)[1].str() + std::regex_replace(more, std::regex("\\s*\""), ""));
    }
  }
  return names;
}

/// What stands in backquotes in a text, on one line each.
Lines quoted_names(const std::string& text) {
  static const std::regex quote("`([^`]+)`"), space(R"(\s+)");
  Lines names;
  for (std::sregex_iterator it(text.begin(), text.end(), quote), end; it != end; ++it)
    names.push_back(std::regex_replace((*it)[1].str(), space, " "));
  return names;
}

/// True if a test has this name, or begins with it where it ends in "...".
bool names_a_test(std::string name, const std::set<std::string>& tests) {
  if (!name.ends_with("...")) return tests.contains(name);
  name = trimmed(name.substr(0, name.size() - 3));
  const auto at = tests.lower_bound(name);
  return at != tests.end() && at->starts_with(name);
}

// The smallest engine, which docs/internals.md starts from.
// [micro]
struct Value;
using Ref = std::shared_ptr<Value>;
struct Value {
  double data;
  double grad;
  std::vector<Ref> from;             // what it was computed from
  std::function<void(Value&)> rule;  // hands its gradient on to them
};

Ref number(double v) { return std::make_shared<Value>(Value{v, 0, {}, {}}); }

Ref mul(const Ref& a, const Ref& b) {
  const auto rule = [](Value& y) {
    y.from[0]->grad += y.grad * y.from[1]->data;
    y.from[1]->grad += y.grad * y.from[0]->data;
  };
  return std::make_shared<Value>(Value{a->data * b->data, 0, {a, b}, rule});
}

void sort_from(const Ref& y, std::vector<Ref>& sorted, std::set<Value*>& seen) {
  if (!seen.insert(y.get()).second) return;
  for (const Ref& x : y->from) sort_from(x, sorted, seen);
  sorted.push_back(y);  // after everything that it depends on
}

void backward(const Ref& y) {
  std::vector<Ref> sorted;
  std::set<Value*> seen;
  sort_from(y, sorted, seen);
  y->grad = 1;
  for (auto it = sorted.rbegin(); it != sorted.rend(); ++it)
    if ((*it)->rule) (*it)->rule(**it);
}
// [micro]

}  // namespace

TEST_CASE("docs: every relative link leads to a file, and to a heading in it") {
  const std::regex link(R"re(\]\(([^)#\s]*)(?:#([^)\s]*))?(?: "[^"]*")?\))re");
  int count = 0;
  for (const fs::path& page : pages()) {
    bool code = false;
    for (const std::string& line : lines_of(read_text(page))) {
      if (trimmed(line).starts_with("```")) code = !code;
      if (code) continue;
      for (std::sregex_iterator it(line.begin(), line.end(), link), end; it != end; ++it) {
        const std::string target = (*it)[1];
        if (target.find("://") != std::string::npos) continue;
        ++count;
        const std::string from = fs::relative(page, kRoot).string();
        const fs::path there = target.empty() ? page : page.parent_path() / target;
        CHECK_MESSAGE(fs::exists(there), from << ": there is no " << target);
        const std::string anchor = (*it)[2];
        if (anchor.empty() || there.extension() != ".md" || !fs::exists(there)) continue;
        CHECK_MESSAGE(anchors_of(there).contains(anchor),
                      from << ": no heading #" << anchor << " in " << there.filename().string());
      }
    }
  }
  CHECK(count > 40);
}

TEST_CASE("docs: every page is in the index, which is the navigation of the site") {
  const std::string index = read_text(kRoot / "docs/index.md");
  for (const fs::path& page : pages()) {
    const std::string name = fs::relative(page, kRoot / "docs").generic_string();
    if (name == "index.md") continue;
    CHECK_MESSAGE(index.find("](" + name) != std::string::npos, "docs/index.md lacks " << name);
  }
}

TEST_CASE("docs: quoted code is what the source says") {
  const std::regex quote(R"(^<!-- ([\w/.]+\.(?:cpp|hpp|txt|sh))(?: \[(\w+)\])? -->$)");
  int count = 0;
  for (const fs::path& page : pages()) {
    const Lines lines = lines_of(read_text(page));
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
      std::smatch m;
      if (!std::regex_match(lines[i], m, quote)) continue;
      ++count;
      const std::string name = fs::relative(page, kRoot).string() + ", " + lines[i];
      REQUIRE_MESSAGE(fs::exists(kRoot / m[1].str()), name << ": no such file");
      REQUIRE_MESSAGE(lines[i + 1].starts_with("```"), name << ": no block follows");
      Lines block;
      for (i += 2; i < lines.size() && lines[i] != "```"; ++i)
        if (const std::string line = trimmed(lines[i]); !line.empty()) block.push_back(line);
      const Lines source = source_of(kRoot / m[1].str(), m[2].str());
      CHECK_MESSAGE(!source.empty(), name << ": no such part");
      const std::string absent = missing(block, source);
      CHECK_MESSAGE(absent.empty(), name << ": not in the source: " << absent);
      if (m[2].matched) CHECK_MESSAGE(block == source, name << ": not the whole part");
    }
  }
  CHECK(count > 15);
}

TEST_CASE("docs: mathematics ends in code and in tests that exist") {
  const std::set<std::string> tests = test_names();
  CHECK(tests.size() > 500);
  int count = 0;
  for (const fs::path& page : pages()) {
    if (page.parent_path().filename() != "maths") continue;
    const std::string text = read_text(page), name = page.filename().string();
    const auto code = text.find("\n## In code\n"), proof = text.find("\n## Proved by test\n");
    CHECK_MESSAGE((code != std::string::npos && proof != std::string::npos && code < proof),
                  name << ": ends in 'In code' and 'Proved by test'");
    if (code == std::string::npos || proof == std::string::npos) continue;
    CHECK_MESSAGE(text.substr(code, proof - code).find("](../../") != std::string::npos,
                  name << ": 'In code' has no link");
    int named = 0;
    for (const std::string& test : quoted_names(text.substr(proof))) {
      if (test.find(' ') == std::string::npos) continue;  // a row of a table, a golden case
      CHECK_MESSAGE(names_a_test(test, tests), name << ": there is no test '" << test << "'");
      ++named;
    }
    CHECK_MESSAGE(named > 0, name << ": names no test");
    ++count;
  }
  CHECK(count >= 8);
}

TEST_CASE("docs: tests that answers name exist") {
  const std::set<std::string> tests = test_names();
  const std::regex row("^[A-Z][0-9]+ .*");
  int count = 0;
  for (const std::string& name : quoted_names(read_text(kRoot / "docs/faq.md"))) {
    if (!std::regex_match(name, row)) continue;
    CHECK_MESSAGE(names_a_test(name, tests), "faq.md: there is no test '" << name << "'");
    ++count;
  }
  CHECK(count > 5);
}

TEST_CASE("docs: the small engine of internals.md differentiates") {
  const Ref x = number(3), y = number(-2);
  const Ref z = mul(mul(x, y), x);
  backward(z);
  CHECK(z->data == -18);
  CHECK(x->grad == -12);
  CHECK(y->grad == 9);
}
