// The pages of the project stay true: links lead somewhere, and quoted code is in the source.
//
// A quotation is a fenced block under a comment that names its source, <!-- core/grad.cpp -->, or a
// marked part of it, <!-- apps/lesson_1_tensors.cpp [views] -->: the lines between the two
// "// [views]", in scripts "# [views]". A line "// ..." in a block stands for lines left out.
// Indentation does not count.

#include <algorithm>
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

TEST_CASE("docs: every relative link leads to a file") {
  const std::regex link(R"(\]\(([^)#\s]+)(#[^)]*)?\))");
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
        CHECK_MESSAGE(fs::exists(page.parent_path() / target), fs::relative(page, kRoot).string()
                                                                   << ": there is no " << target);
      }
    }
  }
  CHECK(count > 40);
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

TEST_CASE("docs: the small engine of internals.md differentiates") {
  const Ref x = number(3), y = number(-2);
  const Ref z = mul(mul(x, y), x);
  backward(z);
  CHECK(z->data == -18);
  CHECK(x->grad == -12);
  CHECK(y->grad == 9);
}
