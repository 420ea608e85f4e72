#include <capsfw/core/storage.hpp>

#include <capsfw/core/allocator.hpp>

namespace capsfw {

Storage::Storage(std::size_t bytes) : bytes_(bytes), data_(detail::allocate(bytes, capacity_)) {}
Storage::~Storage() { detail::deallocate(data_, capacity_); }

}  // namespace capsfw
