// CSV: numbers, headers, quotes, and errors with line and column.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/data/csv.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

class Files {
 public:
  CsvTable table(const std::string& text, char separator = ',') {
    write_bytes(path_, {text.begin(), text.end()});
    return load_csv(path_, separator);
  }
  std::vector<double> values(const std::string& text, char separator = ',') {
    return table(text, separator).values.to_vector<double>();
  }
  /// The complaint about a file, without its name; empty if there is none.
  std::string complaint(const std::string& text) {
    const std::string message = message_of<IoError>([&] { table(text); });
    const std::string start = "load_csv: '" + path_.string() + "': ";
    if (message.empty()) return message;
    REQUIRE(message.starts_with(start));
    return message.substr(start.size());
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  TempDir dir_;
  std::filesystem::path path_ = dir_ / "x.csv";
};

using Doubles = std::vector<double>;
using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("CSV: numbers, with and without a header, any ends of lines") {
  Files f;
  const CsvTable plain = f.table("1,2.5\n-3e2,+4\n");
  CHECK(plain.names.empty());
  CHECK(plain.values.dtype() == DType::f64);
  CHECK(plain.values.shape() == Shape{2, 2});
  CHECK(plain.values.to_vector<double>() == Doubles{1, 2.5, -300, 4});
  for (const char* text : {"x,\"y \"\"z\"\", w\"\n1,2", "x,\"y \"\"z\"\", w\"\r\n\r\n1,2\r\n",
                           "\xef\xbb\xbfx,\"y \"\"z\"\", w\"\n 1 ,\"2\"\n\n"}) {
    const CsvTable t = f.table(text);
    CHECK(t.names == Words{"x", "y \"z\", w"});
    CHECK(t.values.shape() == Shape{1, 2});
    CHECK(t.values.to_vector<double>() == Doubles{1, 2});
  }
  CHECK(f.table("a\n1\n2\n3").values.shape() == Shape{3, 1});
  CHECK(f.values("1;2\n", ';') == Doubles{1, 2});
  CHECK(f.table("a\tb\n1\t2\n", '\t').names == Words{"a", "b"});
  const Doubles odd = f.values("nan,-inf,inf\n");
  CHECK(std::isnan(odd[0]));
  CHECK(odd[1] == -INFINITY);
  CHECK(odd[2] == INFINITY);
}

TEST_CASE("CSV: mistakes are named with line and column") {
  Files f;
  CHECK(f.complaint("") == "must have a line of numbers");
  CHECK(f.complaint("a,b\n") == "must have a line of numbers");
  CHECK(f.complaint("1,2\n3\n") == "line 2: must have 2 fields as the first line; got 1");
  CHECK(f.complaint("1,2\n\n3,4,5\n") == "line 3: must have 2 fields as the first line; got 3");
  CHECK(f.complaint("1,2\n3,x\n") == "line 2: column 2: must be a number; got 'x'");
  CHECK(f.complaint("1,2\n3,\n") == "line 2: column 2: must be a number; got ''");
  // A mistake in the first row is not taken for a header.
  CHECK(f.complaint("1,2.o\n3,4\n") == "line 1: column 2: must be a number; got '2.o'");
  CHECK(f.complaint("a,b\n1,2\nc,d\n") == "line 3: column 1: must be a number; got 'c'");
  CHECK(f.complaint("1,1e999\n") ==
        "line 1: column 2: must be a number that fits a double; got "
        "'1e999'");
  CHECK(f.complaint("\"a\nb\",c\n1,2\n3,4 5\n") == "line 4: column 2: must be a number; got '4 5'");
  CHECK(f.complaint("1,2\n\"3,4\n") == "line 2: a quote is open at the end of the file");
  CHECK(f.complaint("1,\"2\"3\n") ==
        "line 1: only a separator or the end of the line may follow a closing quote");
  CHECK(f.complaint("1,2\r3,4\n") == "line 1: a CR must be followed by LF");
  // What would clear a screen is shown, not sent.
  CHECK(f.complaint("1,2\n3,\x1B[2J\xFF\xC3\xA9\xC2\x9B\n") ==
        "line 2: column 2: must be a number; got '\\x1b[2J\\xff\xC3\xA9\\xc2\\x9b'");
  CHECK(f.complaint("1,2\n3," + std::string(59, 'y') + "\xC3\xA9\n") ==
        "line 2: column 2: must be a number; got '" + std::string(59, 'y') + "'");
  CHECK(f.complaint("1,+-2\n") == "line 1: column 2: must be a number; got '+-2'");
  CHECK(f.complaint(std::string(1 << 20, ',')) == "line 1: must not have more than 1048576 fields");
  CHECK(f.complaint("0x10,1\n") == "line 1: column 1: must be a number; got '0x10'");
  CHECK(!message_of<IoError>([] { load_csv("/no/such/file.csv"); }).empty());
}

TEST_CASE("CSV: what is written comes back, to the last bit") {
  Files f;
  const Tensor x = from_vector<double>({0.1, 1.0 / 3, -1e-300, 5e-324, 1e300, -0.0}, {2, 3});
  save_csv(f.path(), x, {"a", "b, c", "d \"e\""});
  const CsvTable t = load_csv(f.path());
  CHECK(t.names == Words{"a", "b, c", "d \"e\""});
  CHECK(t.values.to_vector<double>() == x.to_vector<double>());
  const auto text = [&](const Tensor& y) {
    save_csv(f.path(), y);
    const Bytes bytes = read_bytes(f.path());
    return std::string(bytes.begin(), bytes.end());
  };
  CHECK(text(from_vector<float>({0.1f, 2}, {1, 2})) == "0.1,2\n");
  CHECK(text(from_vector<std::int64_t>({-1, 7})) == "-1\n7\n");
  CHECK(text(from_vector<bool>({true, false})) == "1\n0\n");
  CHECK(text(strided_view(x, {1, 2}, {1, 3}, 0)) == "0.1,5e-324\n");
  CHECK(message_of<ShapeError>([&] {
          save_csv(f.path(), zeros({1, 2, 3}));
        }) == "save_csv: values must be [N] or [N, D]; got [1, 2, 3]");
  CHECK(message_of<ShapeError>([&] { save_csv(f.path(), x, {"a"}); }) ==
        "save_csv: 1 names for 3 columns");
  for (const char* number : {"1", "nan", "-inf"})  // would be read as a row of data
    CHECK_THROWS_AS(save_csv(f.path(), x, {"a", number, "b"}), ValueError);
  CHECK_THROWS_AS(save_csv(f.path() / "x", x), IoError);
}

TEST_CASE("CSV: what could not come back is refused, odd names come back") {
  Files f;
  const Tensor x = from_vector<double>({1.5, -2}, {2, 1});
  CHECK(message_of<ShapeError>([&] {
          save_csv(f.path(), zeros({1, (1 << 20) + 1}));
        }) == "save_csv: load_csv takes at most 1048576 columns; got [1, 1048577]");
  for (const char bad : {'.', '0', '9', '-', '+', 'e', 'N', '"', '\n', '\r'}) {
    CHECK(message_of<ValueError>([&] {
            save_csv(f.path(), x, {}, bad);
          }).starts_with("save_csv: the separator must be no letter"));
    CHECK(message_of<ValueError>([&] {
            f.table("1\n", bad);
          }).starts_with("load_csv: the separator must be no letter"));
  }
  for (const char good : {',', ';', '\t', ' ', '|', ':'}) {
    const Tensor y = from_vector<double>({1.5, -2, NAN, 1e-300}, {2, 2});
    save_csv(f.path(), y, {"a b", "c;,d"}, good);
    const CsvTable t = load_csv(f.path(), good);
    CHECK(t.names == Words{"a b", "c;,d"});
    CHECK(t.values.to_vector<double>()[3] == 1e-300);
    CHECK(t.values.shape() == y.shape());
  }
  for (const std::string& name : {std::string(), std::string("\xef\xbb\xbf"
                                                             "a")}) {
    save_csv(f.path(), x, {name});
    CHECK(load_csv(f.path()).names == Words{name});
  }
  CHECK(message_of<ShapeError>([&] {
          save_csv(f.path(), zeros({0, 3}), {"a", "b", "c"});
        }) ==
        "save_csv: values must have at least one row and one column, or load_csv would find no "
        "numbers; got [0, 3]");
  CHECK_THROWS_AS(save_csv(f.path(), zeros({3, 0})), ShapeError);
}
