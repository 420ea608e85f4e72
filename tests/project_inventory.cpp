// Every public op has a row in the table of ops and a comment that says what its gradient is.

#include <map>
#include <regex>
#include <set>

#include <doctest/doctest.h>

#include "project_text.hpp"

using namespace capsfw::testing;

namespace {

/// Functions without a gradient, which the table of ops is not about.
const std::set<std::string> kExempt = {"eq",
                                       "ne",
                                       "lt",
                                       "le",
                                       "gt",  // comparison
                                       "ge",
                                       "isnan",
                                       "isfinite",
                                       "all",
                                       "any",  //
                                       "allclose",
                                       "argmax",
                                       "argmin",
                                       "argsort",
                                       "one_hot",  // indices
                                       "multi_hot",
                                       "logical_and",
                                       "logical_or",
                                       "logical_not",  // logic
                                       "gradcheck",
                                       "gradgradcheck",
                                       "vjp",
                                       "jvp",
                                       "hvp",
                                       "jacobian",
                                       "hessian",          // tools
                                       "power_iteration",  // u and v are constants, by definition
                                       "try_add_in_place",
                                       "conv2d_algorithm"};

bool exempt(const std::string& name) {
  return kExempt.contains(name) || name.ends_with("_reference");
}

/// The functions that a header declares at namespace scope, each with the comments of its
/// overloads. Declarations without a blank line between them share the comment above the first.
std::map<std::string, std::string> declarations(const std::string& header) {
  static const std::regex declaration(
      R"(^(?:inline )?[A-Za-z_][A-Za-z_0-9:<>]* (operator[^( ]+|[a-z_][a-z_0-9]*)\()");
  std::map<std::string, std::string> found;
  std::string comment;
  bool in_comment = false;
  for (const std::string& line : lines_of(header)) {
    const bool is_comment = line.starts_with("///");
    if (is_comment) comment = in_comment ? comment + line : line;
    if (line.empty()) comment.clear();
    in_comment = is_comment;
    std::smatch m;
    if (std::regex_search(line, m, declaration)) found[m[1]] += comment;
  }
  return found;
}

bool says_gradient(const std::string& comment) {
  static const std::regex word("vjp|gradient|composed|adjoint", std::regex::icase);
  return std::regex_search(comment, word);
}

std::map<std::string, std::string> public_ops() {
  std::map<std::string, std::string> all;
  std::vector<std::string> headers = {"core/vspace.hpp"};
  for (const auto& entry : std::filesystem::directory_iterator(kRoot / "ops"))
    if (entry.path().extension() == ".hpp")
      headers.push_back("ops/" + entry.path().filename().string());
  for (const std::string& h : headers)
    for (const auto& [name, comment] : declarations(read_text(kRoot / h))) all[name] += comment;
  return all;
}

std::set<std::string> names_in_table() {
  static const std::regex name(R"re(\.name = "([^"]+)")re");
  std::set<std::string> names;
  for (const std::string& file : sources({"tests"})) {
    if (!file.starts_with("tests/ops_table")) continue;
    const std::string text = read_text(kRoot / file);
    for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it)
      names.insert((*it)[1]);
  }
  return names;
}

}  // namespace

TEST_CASE("every public op has a row in the table of ops") {
  const auto ops = public_ops();
  const auto rows = names_in_table();
  CHECK(ops.size() > 100);
  for (const auto& op : ops)
    CHECK_MESSAGE((exempt(op.first) || rows.contains(op.first)),
                  op.first << " has no row in tests/ops_table_rows*.cpp");
  for (const std::string& name : rows)
    CHECK_MESSAGE(ops.contains(name), name << " has a row but no declaration");
  for (const std::string& name : kExempt)
    CHECK_MESSAGE(ops.contains(name), name << " is exempt but not declared");
}

TEST_CASE("every public op has a comment that says what its gradient is") {
  for (const auto& op : public_ops()) {
    if (op.first.starts_with("operator") || exempt(op.first)) continue;  // documented as add, ...
    CHECK_MESSAGE(says_gradient(op.second), op.first << " names no vjp: " << op.second);
  }
}

TEST_CASE("the reader of headers sees what it should") {
  const auto found = declarations(
      "/// y = x.   vjp: gx = gy.\nTensor one(const Tensor& x);\nTensor two(\n    int a);\n\n"
      "Tensor bare(int a);\n/// Plain words,\n/// two lines.\nTensorList three(int a);\n"
      "  Tensor member(int a);\n// Tensor comment(int a);\nstruct Sorted {\n"
      "inline Tensor operator+(int a) { return f(a); }\n");
  CHECK(found.size() == 5);
  CHECK(says_gradient(found.at("one")));
  CHECK(says_gradient(found.at("two")));
  CHECK(found.at("bare").empty());
  CHECK_FALSE(says_gradient(found.at("three")));
  CHECK(found.at("three") == "/// Plain words,/// two lines.");
  CHECK(found.contains("operator+"));
}
