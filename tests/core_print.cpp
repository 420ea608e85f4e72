// What a tensor looks like.

#include <algorithm>
#include <cmath>
#include <sstream>

#include <doctest/doctest.h>

#include <capsfw/core/tensor.hpp>

using namespace capsfw;

TEST_CASE("scalars and vectors print on one line") {
  CHECK(to_string(scalar(2.5)) == "2.5");
  CHECK(to_string(scalar(3)) == "3.");
  CHECK(to_string(scalar(3, DType::i64)) == "3");
  CHECK(to_string(from_vector<bool>({true, false})) == "[ true, false]");
  CHECK(to_string(arange(4)) == "[0, 1, 2, 3]");
  std::ostringstream out;
  out << from_vector<float>({1, -2});
  CHECK(out.str() == "[ 1., -2.]");
}

TEST_CASE("matrices print in aligned rows, stacks of matrices with a blank line") {
  CHECK(to_string(from_vector<double>({1, -2, 0.5, 100}, {2, 2})) ==
        "[[  1.,  -2.],\n [ 0.5, 100.]]");
  CHECK(to_string(from_vector<std::int64_t>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 2, 2})) ==
        "[[[1, 2],\n  [3, 4]],\n\n [[5, 6],\n  [7, 8]]]");
}

TEST_CASE("a view prints the elements that it shows") {
  const Tensor x = from_vector<std::int64_t>({1, 2, 3, 4}, {2, 2});
  CHECK(to_string(strided_view(x, {2, 2}, {1, 2}, 0)) == "[[1, 3],\n [2, 4]]");
}

TEST_CASE("empty tensors print their brackets") {
  CHECK(to_string(zeros({0})) == "[]");
  CHECK(to_string(zeros({0, 3})) == "[]");
  CHECK(to_string(zeros({2, 0})) == "[[],\n []]");
}

TEST_CASE("special and extreme numbers are readable") {
  CHECK(to_string(from_vector<double>({std::copysign(NAN, -1.0), INFINITY, -INFINITY})) ==
        "[ nan,  inf, -inf]");
  CHECK(to_string(from_vector<double>({1e-9, 1e30, 123456})) == "[  1e-09,   1e+30, 123456.]");
  CHECK(to_string(scalar(3.14159265, DType::f64)) == "3.142");
  const std::int64_t big = (std::int64_t{1} << 53) + 1;  // not a double
  CHECK(to_string(from_vector<std::int64_t>({big})) == "[9007199254740993]");
}

TEST_CASE("above 1000 elements only the ends of each axis are printed") {
  CHECK(to_string(arange(1001)) == "[   0,    1,    2, ...,  998,  999, 1000]");
  CHECK(to_string(arange(1000)).find("...") == std::string::npos);
  Tensor hidden = arange(1001);
  hidden.mutable_data<std::int64_t>()[500] = -1234567;  // does not widen what is shown
  CHECK(to_string(hidden) == to_string(arange(1001)));
  const std::string rows = to_string(zeros({200, 6}));
  CHECK(rows.substr(0, 30) == "[[0., 0., 0., 0., 0., 0.],\n [0");
  CHECK(rows.find(",\n ...,\n ") != std::string::npos);
  CHECK(std::count(rows.begin(), rows.end(), '\n') == 6);
}
