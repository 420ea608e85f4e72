// Layers, sizes and habits of the source files.

#include <map>
#include <regex>
#include <set>

#include <doctest/doctest.h>

#include "project_text.hpp"

using namespace capsfw::testing;

namespace {

const std::vector<std::string> kLibrary = {"core", "ops", "layers", "optim", "data"};
const std::vector<std::string> kAll = {"core", "ops", "layers", "optim", "data", "apps", "tests"};

/// What each folder may include: core <- ops <- layers, data -> core; optim, where training is, ->
/// all of these.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"core", {"core"}},
    {"ops", {"core", "ops"}},
    {"layers", {"core", "ops", "layers"}},
    {"optim", {"core", "ops", "layers", "data", "optim"}},
    {"data", {"core", "data"}},
    {"apps", {"core", "ops", "layers", "optim", "data", "apps", "capsfw.hpp"}}};

struct Include {
  std::string path;
  bool quoted;
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex line(R"re(^\s*#\s*include\s*(<|")([^>"]+)[>"])re");
  std::vector<Include> found;
  for (const std::string& l : lines_of(text)) {
    std::smatch m;
    if (std::regex_search(l, m, line)) found.push_back({m[2], m[1] == "\""});
  }
  return found;
}

/// The folder of this project that `include` in `file` leads to; "" for other libraries.
std::string target(const std::string& file, const Include& include) {
  std::filesystem::path path = include.path;
  if (!include.quoted) {
    if (!include.path.starts_with("capsfw/")) return "";
    path = include.path.substr(7);
  } else {
    path = (std::filesystem::path(file).parent_path() / path).lexically_normal();
  }
  return path.begin()->string();
}

/// True if a lambda handed to a recording function captures by reference. What stands in braces is
/// the body of a rule, or a list, and may do so.
bool captures_by_reference(const std::string& text) {
  static const std::regex call(R"(\b(record|record_many|record_fused|Node::attach)\()");
  for (std::sregex_iterator it(text.begin(), text.end(), call), end; it != end; ++it) {
    int parens = 1, braces = 0;
    for (auto i = static_cast<std::size_t>(it->position() + it->length());
         i < text.size() && parens > 0; ++i) {
      const char c = text[i];
      parens += c == '(' ? 1 : c == ')' ? -1 : 0;
      braces += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (braces == 0 && text.compare(i, 2, "[&") == 0) return true;
    }
  }
  return false;
}

std::vector<std::string> public_headers() {
  static const std::regex name(R"(\bcore/[a-z_]+\.hpp)");
  const std::string cmake = read_text(kRoot / "cmake/headers.cmake");
  std::vector<std::string> headers;
  for (std::sregex_iterator it(cmake.begin(), cmake.end(), name), end; it != end; ++it)
    if (const std::string h = it->str(); std::filesystem::exists(kRoot / h)) headers.push_back(h);
  for (const char* folder : {"ops", "layers", "optim", "data"})
    for (const auto& entry : std::filesystem::directory_iterator(kRoot / folder))
      if (entry.path().extension() == ".hpp")
        headers.push_back(std::string(folder) + "/" + entry.path().filename().string());
  return headers;
}

}  // namespace

TEST_CASE(
    "include edges follow core <- ops <- layers, data -> core, optim -> these four, apps -> all") {
  int edges = 0;
  for (const auto& [folder, allowed] : kMayInclude)
    for (const std::string& file : sources({folder}))
      for (const Include& i : includes_of(read_text(kRoot / file))) {
        const std::string to = target(file, i);
        if (to.empty()) continue;
        ++edges;
        CHECK_MESSAGE(allowed.contains(to), file << " must not include " << i.path);
      }
  CHECK(edges > 200);
}

TEST_CASE("public headers include the standard library and other public headers only") {
  const auto headers = public_headers();
  CHECK(headers.size() > 40);
  const std::set<std::string> known(headers.begin(), headers.end());
  for (const std::string& h : headers)
    for (const Include& i : includes_of(read_text(kRoot / h))) {
      CHECK_MESSAGE(!i.quoted, h << " includes the private " << i.path);
      const bool ours = i.path.starts_with("capsfw/");
      const bool standard = i.path.find_first_of("/.") == std::string::npos;
      CHECK_MESSAGE((standard || (ours && known.contains(i.path.substr(7)))),
                    h << " must not include " << i.path);
    }
}

TEST_CASE("one owner each: threads, BLAS and images are included in one place") {
  const std::map<std::string, std::string> owners = {
      {"tbb/", "core/parallel.cpp"}, {"cblas", "core/blas.cpp"}, {"stb", "data/image"}};
  for (const std::string& file : sources(kLibrary))
    for (const Include& i : includes_of(read_text(kRoot / file)))
      for (const auto& rule : owners)
        CHECK_MESSAGE(
            (i.path.find(rule.first) == std::string::npos || file.starts_with(rule.second)),
            file << " includes " << i.path << ", which belongs to " << rule.second);
}

TEST_CASE("no file is longer than 500 lines") {
  const auto files = sources(kAll);
  CHECK(files.size() > 100);
  for (const std::string& file : files) {
    const auto n = lines_of(read_text(kRoot / file)).size();
    CHECK_MESSAGE(n <= 500, file << " has " << n << " lines");
  }
}

TEST_CASE("no rule captures by reference") {
  for (const std::string& file : sources({"core", "ops", "layers"}))
    CHECK_MESSAGE(!captures_by_reference(read_text(kRoot / file)),
                  file << ": a lambda inside record() captures by reference");
}

TEST_CASE("headers guard themselves, and nothing is left to do") {
  // Spelled in parts, so that this file does not find itself.
  const std::regex left(std::string("\\b(TO") + "DO|FIX" + "ME|XX" + "X)\\b");
  for (const std::string& file : sources(kAll)) {
    const std::string text = read_text(kRoot / file);
    if (file.ends_with(".hpp")) CHECK_MESSAGE(text.find("#pragma once") != std::string::npos, file);
    CHECK_MESSAGE(!std::regex_search(text, left), file);
  }
}

TEST_CASE(
    "names of tests reach ctest whole: a semicolon would cut them in two, and neither would run") {
  const std::regex name(R"re(TEST_CASE\(\s*(?:"[^"]*"\s*)*"[^"]*;)re");
  for (const std::string& file : sources({"tests"}))
    CHECK_MESSAGE(!std::regex_search(read_text(kRoot / file), name), file);
}

TEST_CASE("the readers of sources see what they should") {
  const auto found =
      includes_of("#include <capsfw/ops/x.hpp>\n  #include \"../core/y.hpp\"\n// #include <z>\n");
  REQUIRE(found.size() == 2);
  CHECK(target("data/a.cpp", found[0]) == "ops");
  CHECK(target("data/a.cpp", found[1]) == "core");
  CHECK(target("ops/kernels/a.cpp", {"../../core/simd.hpp", true}) == "core");
  CHECK(target("ops/kernels/a.cpp", {"math.hpp", true}) == "ops");
  CHECK(target("ops/a.cpp", {"vector", false}).empty());
  CHECK(
      captures_by_reference("return record(\"x\", {a}, y, Save::none, [&](int s) { return s; });"));
  CHECK(captures_by_reference("record_many(\"x\", {a}, y, s, [&t](int s) { return s; });"));
  CHECK_FALSE(captures_by_reference(
      "record(\"x\", {a}, y, [t](int s) { const auto f = [&](int) {}; return f(s); });"));
  CHECK_FALSE(
      captures_by_reference("run([&] { record(\"x\", f(a), [=](int s) { return s; }); });"));
}
