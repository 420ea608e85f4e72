#pragma once
// Private: what every list of parameters must keep.

#include <string>
#include <vector>

#include <capsfw/optim/optimizer.hpp>

namespace capsfw::detail {

/// The entries with a name each: those without are numbered from `first` on. ValueError "who: rule;
/// got ..." unless each is a defined, contiguous leaf of type f32 or f64.
std::vector<ParamList::Entry> checked_parameters(const std::string& who,
                                                 const ParamList& params,
                                                 std::size_t first = 0);

/// ValueError if two entries are the same tensor or have the same name.
void check_distinct(const std::string& who, const std::vector<ParamList::Entry>& entries);

/// A row-major copy that shares nothing with `x`.
Tensor copy_of(const Tensor& x);

/// The entry `name` of a state. ValueError if there is none, ShapeError or DTypeError if it is of
/// another shape or type.
Tensor state_entry(const std::string& who,
                   const StateDict& state,
                   const std::string& name,
                   const Shape& shape,
                   DType dtype);

/// The number in an entry of rank 0. ValueError also if it is less than `least`.
std::int64_t state_count(const std::string& who,
                         const StateDict& state,
                         const std::string& name,
                         std::int64_t least = 0);

}  // namespace capsfw::detail
