// Confusion matrices, precision and recall, several labels at once.

#include <doctest/doctest.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/metrics.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

Tensor ids(const std::vector<std::int64_t>& v) { return from_vector(v); }

}  // namespace

TEST_CASE("confusion matrix: rows are classes, columns what they were taken for") {
  const Tensor m = confusion_matrix(ids({0, 1, 1, 2, 0}), ids({0, 1, 2, 2, 1}), 3);
  CHECK(m.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0, 0, 1, 1, 0, 0, 1, 1});
  CHECK(confusion_matrix(zeros({0}, DType::i64), zeros({0}, DType::i64), 2).to_vector<double>() ==
        std::vector<double>{0, 0, 0, 0});
  CHECK(message_of<ValueError>([] { confusion_matrix(ids({3}), ids({0}), 3); }) ==
        "confusion_matrix: classes must lie in [0, 3); got 3");
  CHECK_THROWS_AS(confusion_matrix(ids({0}), ids({-1}), 3), ValueError);
  CHECK_THROWS_AS(confusion_matrix(ids({0}), ids({0}), 0), ValueError);
  CHECK_THROWS_AS(confusion_matrix(ids({0, 1}), ids({0}), 3), ShapeError);
  CHECK_THROWS_AS(confusion_matrix(zeros({1}), ids({0}), 3), ShapeError);
}

TEST_CASE("precision, recall and F1 of a matrix worked out by hand") {
  // Class 0: 5 hits of 8 given and 6 there; class 1: 3 of 3 and 4; class 2: none given, 1 there.
  const Tensor m = from_vector<std::int64_t>({5, 0, 1, 1, 3, 0, 2, 0, 0}, {3, 3});
  const ClassificationReport r = classification_report(m);
  REQUIRE(r.classes.size() == 3);
  CHECK(r.classes[0].precision == doctest::Approx(5.0 / 8));
  CHECK(r.classes[0].recall == doctest::Approx(5.0 / 6));
  CHECK(r.classes[0].f1 == doctest::Approx(10.0 / 14));
  CHECK(r.classes[0].support == 6);
  CHECK(r.classes[1].precision == 1.0);
  CHECK(r.classes[1].recall == doctest::Approx(0.75));
  CHECK(r.classes[2].precision == 0.0);
  CHECK(r.classes[2].recall == 0.0);
  CHECK(r.classes[2].f1 == 0.0);
  CHECK(r.macro.precision == doctest::Approx((5.0 / 8 + 1) / 3));
  CHECK(r.macro.f1 == doctest::Approx((10.0 / 14 + 6.0 / 7) / 3));
  CHECK(r.macro.support == 12);
  CHECK(r.accuracy == doctest::Approx(8.0 / 12));
  CHECK(r.micro.precision == r.accuracy);
  CHECK(r.micro.f1 == doctest::Approx(r.accuracy));
  const std::string table = r.str({"yes", "no", "perhaps"});
  CHECK(contains(table, "yes"));
  CHECK(contains(table, "0.833"));
  CHECK(contains(table, "macro"));
}

TEST_CASE("a matrix without samples, and none that is one") {
  const ClassificationReport r = classification_report(zeros({2, 2}, DType::i64));
  CHECK(r.accuracy == 0);
  CHECK(r.macro.f1 == 0);
  CHECK_THROWS_AS(classification_report(zeros({2, 3}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(classification_report(zeros({2, 2})), ShapeError);
  CHECK_THROWS_AS(classification_report(zeros({0, 0}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(classification_report(from_vector<std::int64_t>({-1}, {1, 1})), ValueError);
}

TEST_CASE("several labels: exact sets, and micro-averages over the pairs") {
  const auto b = [](const std::vector<bool>& v) { return from_vector(v, {3, 3}); };
  const Tensor targets = b({true, true, false, false, true, true, true, false, true});
  const Tensor found = b({true, true, false, false, true, false, true, true, true});
  const MultiLabelScores s = multi_label_scores(found, targets);
  CHECK(s.exact == doctest::Approx(1.0 / 3));
  CHECK(s.precision == doctest::Approx(5.0 / 6));
  CHECK(s.recall == doctest::Approx(5.0 / 6));
  CHECK(s.f1 == doctest::Approx(5.0 / 6));
  // Class 0: all right; class 1: three found, two of them there; class 2: one of two found.
  REQUIRE(s.classes.size() == 3);
  CHECK(s.classes[0].support == 2);
  CHECK(s.classes[0].f1 == 1);
  CHECK(s.classes[1].precision == doctest::Approx(2.0 / 3));
  CHECK(s.classes[1].recall == 1);
  CHECK(s.classes[2].precision == 1);
  CHECK(s.classes[2].recall == doctest::Approx(0.5));
  CHECK(s.macro.precision == doctest::Approx((1 + 2.0 / 3 + 1) / 3));
  CHECK(s.macro.recall == doctest::Approx((1 + 1 + 0.5) / 3));
  CHECK(s.macro.f1 == doctest::Approx((1 + 0.8 + 2.0 / 3) / 3));
  CHECK(s.macro.support == 6);
  const MultiLabelScores none =
      multi_label_scores(zeros({2, 2}, DType::b8), zeros({2, 2}, DType::b8));
  CHECK(none.exact == 1);
  CHECK(none.f1 == 0);
  CHECK(none.macro.f1 == 0);
  CHECK(none.classes.size() == 2);
  CHECK(multi_label_scores(zeros({0, 2}, DType::b8), zeros({0, 2}, DType::b8)).exact == 0);
  CHECK_THROWS_AS(multi_label_scores(zeros({2, 2}), zeros({2, 2}, DType::b8)), ShapeError);
  CHECK_THROWS_AS(multi_label_scores(zeros({2, 3}, DType::b8), zeros({2, 2}, DType::b8)),
                  ShapeError);
}

TEST_CASE("top-k accuracy: the first of equal scores counts as larger, a NaN is a miss") {
  const double nan = std::nan("");
  const Tensor scores = from_vector<double>(
      {0.1, 0.7, 0.2, 0.4, 0.4, 0.4, nan, 0.1, 0.9, -INFINITY, INFINITY, 0}, {4, 3});
  const Tensor labels = ids({2, 1, 2, 0});
  CHECK(topk_accuracy(scores, labels, 1) == 0);
  CHECK(topk_accuracy(scores, labels, 2) == 0.5);
  CHECK(topk_accuracy(scores, labels, 3) == 0.75);
  CHECK(topk_accuracy(scores, ids({1, 0, 0, 1}), 1) == 0.75);
  CHECK(topk_accuracy(from_vector<float>({1, 2}, {2, 1}), ids({0, 0}), 1) == 1);
  CHECK(std::isnan(topk_accuracy(zeros({0, 3}), zeros({0}, DType::i64), 1)));
  CHECK(message_of<ValueError>([&] { topk_accuracy(scores, labels, 4); }) ==
        "topk_accuracy: k must lie in [1, 3]; got 4");
  CHECK_THROWS_AS(topk_accuracy(scores, labels, 0), ValueError);
  CHECK_THROWS_AS(topk_accuracy(scores, ids({0, 1, 2, 3}), 1), ValueError);
  CHECK_THROWS_AS(topk_accuracy(scores, ids({0, 1, -1, 0}), 1), ValueError);
  CHECK_THROWS_AS(topk_accuracy(scores, ids({0}), 1), ShapeError);
  CHECK_THROWS_AS(topk_accuracy(scores, zeros({4}), 1), ShapeError);
  CHECK_THROWS_AS(topk_accuracy(zeros({4}), labels, 1), ShapeError);
}

TEST_CASE("accuracy takes what top-k accuracy takes for k = 1: NaN rows, classes out of range") {
  const double nan = std::nan("");
  const Tensor scores = from_vector<double>(
      {0.1, 0.7, 0.2, 0.4, 0.4, 0.4, nan, 0.1, 0.9, -INFINITY, INFINITY, 0}, {4, 3});
  for (const Tensor& labels : {ids({1, 0, 0, 1}), ids({1, 1, 2, 1}), ids({0, 2, 1, 2})})
    CHECK(accuracy(scores, labels) == topk_accuracy(scores, labels, 1));
  CHECK(accuracy(scores, ids({1, 0, 0, 1})) == 0.75);
  CHECK(accuracy(from_vector<std::int64_t>({1, 3, 2, 0}, {2, 2}), ids({1, 1})) == 0.5);
  CHECK(std::isnan(accuracy(zeros({0, 3}), zeros({0}, DType::i64))));
  CHECK(message_of<ValueError>([&] {
          accuracy(scores, ids({0, 1, 2, 3}));
        }) == "accuracy: classes must lie in [0, 3); got 3");
  CHECK_THROWS_AS(accuracy(scores, ids({0, 1, -1, 0})), ValueError);
}

TEST_CASE("top-k accuracy agrees with accuracy for k = 1, and never falls with k") {
  Rng rng(6);
  const Tensor scores = rng.normal({200, 7}, 0, 1), labels = rng.integers({200}, 7);
  CHECK(topk_accuracy(scores, labels, 1) == doctest::Approx(accuracy(scores, labels)));
  double last = 0;
  for (std::int64_t k = 1; k <= 7; ++k) {
    const double now = topk_accuracy(scores, labels, k);
    CHECK(now >= last);
    CHECK(now == doctest::Approx(static_cast<double>(k) / 7).epsilon(0.3));
    last = now;
  }
  CHECK(last == 1);
}
