#pragma once
// The exceptions of the library. Every message names the op, the rule that was broken, the operands
// with their shapes, and, where one exists, the cure.

#include <stdexcept>
#include <string>

namespace capsfw {

/// Base of every exception thrown by the library.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Operands whose shapes do not fit together, or an axis out of range.
struct ShapeError : Error {
  using Error::Error;
};

/// An element type that the operation does not take.
struct DTypeError : Error {
  using Error::Error;
};

/// A value outside its domain: a negative stride, an unknown name, a probability above one.
struct ValueError : Error {
  using Error::Error;
};

/// Finite numbers so large that a result or a gradient leaves the range of its type, where that is
/// noticed: in routings and clusterings. A Run treats it like a loss that is not finite.
struct OverflowError : ValueError {
  using ValueError::ValueError;
};

/// Misuse of differentiation: no graph, a freed graph, a tensor changed in place.
struct GradError : Error {
  using Error::Error;
};

/// A file or data set that is missing, truncated or malformed.
struct IoError : Error {
  using Error::Error;
};

}  // namespace capsfw
