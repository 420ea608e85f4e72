#pragma once
// Element types, and the one switch that turns a run-time type into a compile-time one.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <capsfw/core/error.hpp>

namespace capsfw {

/// Element type of a tensor. Gradients exist for f32 and f64; i64 holds indices, b8 masks.
enum class DType : std::uint8_t { f32, f64, i64, b8 };

/// Bytes of one element.
constexpr std::size_t size_of(DType t) { return t == DType::f32 ? 4 : t == DType::b8 ? 1 : 8; }

/// "f32", "f64", "i64" or "b8".
constexpr std::string_view name_of(DType t) {
  constexpr std::string_view names[] = {"f32", "f64", "i64", "b8"};
  return names[static_cast<std::size_t>(t)];
}

/// True for the types that carry gradients.
constexpr bool is_floating(DType t) { return t == DType::f32 || t == DType::f64; }

/// True if the type has the value `v`: i64 has whole numbers, b8 has 0 and 1. (f32 rounds.)
inline bool holds(DType t, double v) {
  if (t == DType::i64) return std::trunc(v) == v && v >= -0x1p63 && v < 0x1p63;
  return t != DType::b8 || v == 0 || v == 1;
}

/// The smallest positive number of a floating type that has all digits; below are denormals, then
/// 0.
constexpr double smallest_normal(DType t) {
  return t == DType::f32 ? double{std::numeric_limits<float>::min()}
                         : std::numeric_limits<double>::min();
}

/// The largest finite number of a floating type.
constexpr double largest_number(DType t) {
  return t == DType::f32 ? double{std::numeric_limits<float>::max()}
                         : std::numeric_limits<double>::max();
}

template <class T>
struct dtype_of;
template <>
/// The type of float.
struct dtype_of<float> {
  static constexpr DType value = DType::f32;  ///< see above
};
template <>
/// The type of double.
struct dtype_of<double> {
  static constexpr DType value = DType::f64;  ///< see above
};
template <>
struct dtype_of<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
/// The type of bool.
struct dtype_of<bool> {
  static constexpr DType value = DType::b8;  ///< see above
};
/// DType of a C++ element type: float, double, std::int64_t or bool.
template <class T>
inline constexpr DType dtype_v = dtype_of<T>::value;

/// DTypeError: `op` takes floating types only; `shape` of the operand, if it is known.
[[noreturn]] inline void throw_not_floating(DType t,
                                            std::string_view op,
                                            const std::string& shape = {},
                                            const std::string& hint = "to(x, DType::f32)") {
  throw DTypeError(std::string(op) + ": takes f32 or f64; got " + std::string(name_of(t)) +
                   (shape.empty() ? "" : " " + shape) + ". Hint: " + hint);
}

/// Calls `f.operator()<T>()` with T = float or double; DTypeError naming `op` for any other type.
template <class F>
decltype(auto) visit_float(DType t, std::string_view op, F&& f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      throw_not_floating(t, op);
  }
}

/// Calls `f.operator()<T>()` with the C++ type of `t`.
template <class F>
decltype(auto) visit_any(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::i64:
      return f.template operator()<std::int64_t>();
    default:
      return f.template operator()<bool>();
  }
}

}  // namespace capsfw
