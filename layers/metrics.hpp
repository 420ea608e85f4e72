#pragma once
// How well classes were found, beyond the accuracy of layers/loss.hpp. Nothing here has a gradient.

#include <cstdint>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// i64 [classes, classes]: how often a sample of class `row` was given class `column`. predicted
/// and labels i64 [N].   ShapeError unless they agree; ValueError for a class out of range.
Tensor confusion_matrix(const Tensor& predicted, const Tensor& labels, std::int64_t classes);

/// Quality for one class, or a mean. With hits = samples of the class that were given it: precision
/// = hits / given, recall = hits / support, f1 = 2 hits / (given + support); each 0 where it would
/// be 0 / 0.
struct ClassScores {
  double precision = 0, recall = 0, f1 = 0;  ///< see above; in [0, 1]
  std::int64_t support = 0;                  ///< samples of the class
};

/// What classification_report returns.
struct ClassificationReport {
  std::vector<ClassScores> classes;  ///< by number
  ClassScores macro;                 ///< means over the classes, each of the same weight
  ClassScores micro;    ///< of all decisions together; with one class a sample all three are the
                        ///< accuracy
  double accuracy = 0;  ///< 0 for no samples

  /// A table for people, a line for each class.
  std::string str(const std::vector<std::string>& class_names) const;
};

/// From a confusion matrix i64 [J, J].   ShapeError for another shape or type; ValueError for a
/// negative entry.
ClassificationReport classification_report(const Tensor& confusion);

/// Share of rows of scores [N, J] whose label, i64 [N], is among the k classes with the largest
/// scores; of equal scores the first counts as larger. k = 1 is accuracy(). A row with a NaN is a
/// miss; NaN for no rows.   ShapeError unless they fit; ValueError unless 1 ≤ k ≤ J and for a class
/// out of range.
double topk_accuracy(const Tensor& scores, const Tensor& labels, std::int64_t k);

/// What multi_label_scores returns. The four numbers in front are micro-averages, as in Zhao et al.
/// 2018, Investigating Capsule Networks with Dynamic Routing for Text Classification, table 3.
struct MultiLabelScores {
  double exact = 0;  ///< share of samples whose set of classes was found exactly
  double precision = 0, recall = 0, f1 = 0;  ///< over all pairs of sample and class
  ClassScores macro;                         ///< means over the classes, each of the same weight
  std::vector<ClassScores> classes;          ///< by number
};

/// predicted and targets b8 [N, J]: which classes are there. 0 where it would be 0 / 0.
/// ShapeError unless they agree.
MultiLabelScores multi_label_scores(const Tensor& predicted, const Tensor& targets);

}  // namespace capsfw
