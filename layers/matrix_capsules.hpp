#pragma once
// Matrix capsules with EM routing: layers and the network of Hinton, Sabour, Frosst 2018,
// section 4. B batch, C capsule types, P the side of a pose matrix.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/conv_capsules.hpp>
#include <capsfw/layers/em.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// Capsules on a map.
struct MatrixCapsules {
  Tensor poses;        ///< [B, C, H, W, P, P]
  Tensor activations;  ///< [B, C, H, W] in (0, 1)
};

/// The first capsules: 1x1 convolutions, linear for the poses, with a sigmoid for the activations.
/// x [B, in, H, W]; channel c·P² + k of the poses is element k of capsule type c. No scaling and no
/// constant is added to the poses (some codes divide by the number of types and add 0.1).
class PrimaryMatrixCapsules : public Module {
 public:
  PrimaryMatrixCapsules(std::int64_t in, std::int64_t types, std::int64_t side, Rng& rng);
  /// Feature maps to poses and activations.
  MatrixCapsules operator()(const Tensor& x);
  Conv2d pose, activation;  ///< 1×1 convolutions that make them

 private:
  std::int64_t side_;
};

/// Options of ConvMatrixCapsules.
struct ConvMatrixCapsulesOptions {
  std::int64_t stride = 1, padding = 0;          ///< of the convolution
  Competition competition = Competition::patch;  ///< who competes for a child
  EmRoutingOptions routing = {};                 ///< of every place
};

/// Convolutional matrix capsules (conv_caps_em) with a square kernel. Parameters: weight [in·k²,
/// types, P, P] ~ N(0, 1/P), which keeps the scale of the poses and tells the parents apart; beta_a
/// and beta_u [types], zero.   ValueError for sizes below 1.
class ConvMatrixCapsules : public Module {
 public:
  ConvMatrixCapsules(std::int64_t in,
                     std::int64_t types,
                     std::int64_t side,
                     std::int64_t kernel,
                     Rng& rng,
                     ConvMatrixCapsulesOptions options = {});
  /// Capsules below to capsules above.
  MatrixCapsules operator()(const MatrixCapsules& x);
  /// With assignments and variance.
  ConvEmRouted route(const MatrixCapsules& x);
  /// Starting values that fit `x`: scales the weight to votes with mean ln σ = 0 and sets the betas
  /// (variant `hinton`) to β_u = −mean ln σ − 1, so that a vote that fits its parent saves one nat
  /// per dimension, and β_a to the mean cost, so that activations start around ½. With β_u = 0
  /// costs are positive, and a parent is the less active the more votes it has: routing then drives
  /// the votes away from where they agree, the more so the more iterations there are. The other
  /// variants get the same cost. What is left of σ besides the votes is eps_var.
  void balance(const MatrixCapsules& x);
  /// May be changed between calls.
  EmRoutingOptions& routing() { return options_.routing; }
  Tensor weight, beta_a, beta_u;  ///< parameters

 private:
  ConvEmRouted route(const MatrixCapsules& x, bool assignments);
  /// Parents that share a child and their children, see Competition.
  std::pair<std::int64_t, std::int64_t> competitors(const MatrixCapsules& x) const;

  std::int64_t kernel_;
  ConvMatrixCapsulesOptions options_;
};

/// Options of ClassMatrixCapsules.
struct ClassMatrixCapsulesOptions {
  bool coordinates = true;        ///< coordinate_addition
  Dims coordinate_places = {};    ///< its places
  EmRoutingOptions routing = {};  ///< of the classes
};

/// The class capsules (class_caps_em). Parameters: weight [in, classes, P, P] ~ N(0, 1/P), beta_a
/// and beta_u [classes], zero.   ValueError for sizes below 1.
class ClassMatrixCapsules : public Module {
 public:
  ClassMatrixCapsules(std::int64_t in,
                      std::int64_t classes,
                      std::int64_t side,
                      Rng& rng,
                      ClassMatrixCapsulesOptions options = {});
  /// Poses [B, classes, P²], activations [B, classes].
  EmRouted operator()(const MatrixCapsules& x);
  /// As ConvMatrixCapsules::balance.
  void balance(const MatrixCapsules& x);
  /// May be changed between calls.
  EmRoutingOptions& routing() { return options_.routing; }
  Tensor weight, beta_a, beta_u;  ///< parameters

 private:
  ClassMatrixCapsulesOptions options_;
};

/// One layer of convolutional matrix capsules.
struct MatrixStage {
  std::int64_t types = 0, kernel = 3, stride = 1, padding = 0;  ///< of one convolution of capsules
};

/// Options of MatrixCapsNet. The defaults have A = 64, B = 8, C = D = 16.
struct MatrixCapsNetOptions {
  Shape image = {1, 28, 28};                                     ///< channels, height, width
  ConvStage conv = {64, 5, 2};                                   ///< A
  std::int64_t primary_types = 8;                                ///< B
  std::int64_t pose = 4;                                         ///< side of the pose matrices
  std::vector<MatrixStage> capsules = {{16, 3, 2}, {16, 3, 1}};  ///< C, D
  std::int64_t classes = 10;                                     ///< E
  EmRoutingOptions routing = {};                                 ///< of all layers
  Competition competition = Competition::patch;                  ///< who competes for a child
  bool coordinates = true;      ///< add places to votes for classes
  Dims coordinate_places = {};  ///< entries of the pose they go to

  /// A = B = C = D = 32: 316,394 parameters with 5 classes.
  static MatrixCapsNetOptions paper(const Shape& image = {1, 32, 32}, std::int64_t classes = 5);
  /// A = 64, B = 8, C = D = 16: 67,154 parameters with 5 classes.
  static MatrixCapsNetOptions small(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
};

/// What MatrixCapsNet returns.
struct MatrixCapsNetOutput {
  Tensor activations;  ///< class scores [B, classes]
  Tensor poses;        ///< [B, classes, P²]
  Tensor assignments;  ///< R of the class capsules [B, C·H·W, classes]
};

/// A convolution (with whatever else its ConvStage says), primary capsules, convolutional capsules,
/// class capsules; train with spread_loss.
///
/// The weights of the primary poses start scaled to poses of standard deviation 1, and every
/// capsule layer balanced (ConvMatrixCapsules::balance), for images of noise (as Mishkin, Matas
/// 2016, "All you need is a good init", do for variances). Without it poses shrink from layer to
/// layer, since a parent averages its votes, and activations start at 0 or 1 and learn slowly.
/// ShapeError if the image is too small or no [C, H, W]; ValueError for sizes below 1.
class MatrixCapsNet : public ImageClassifier {
 public:
  explicit MatrixCapsNet(const MatrixCapsNetOptions& options, Rng& rng);

  /// x [B, C, H, W] in [0, 1]. As an ImageClassifier it calls activations `lengths` and assignments
  /// `couplings`.
  MatrixCapsNetOutput operator()(const Tensor& x);

  const MatrixCapsNetOptions& options() const { return options_; }
  /// [types, rows, columns] of the children of the class capsules, in the order of the assignments.
  const Shape& last_grid() const { return last_grid_; }
  /// EM iterations of all layers; explicit `lambdas` as in EmRoutingOptions::set_steps.
  void set_routing_iterations(int n) override;
  int routing_iterations() const override;
  int uniform_iterations() const override { return 1; }
  /// lambda_scale of all layers.
  void set_lambda_scale(double scale);
  /// A table of the layers with output shapes and parameter counts.
  std::string summary() override { return table_; }

 protected:
  ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) override;

 private:
  template <class F>
  void each_routing(const F& f);
  void balance_votes(Rng& rng);
  void add_row(const std::string& layer, const std::string& output, std::int64_t parameters);

  MatrixCapsNetOptions options_;
  Shape last_grid_;
  std::string table_;
  ConvStages conv_;
  std::unique_ptr<PrimaryMatrixCapsules> primary_;
  std::vector<std::unique_ptr<ConvMatrixCapsules>> capsules_;
  std::unique_ptr<ClassMatrixCapsules> classes_;
};

}  // namespace capsfw
