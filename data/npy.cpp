#include <capsfw/data/npy.hpp>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>

#include "detail/npy_format.hpp"

namespace capsfw {

Tensor load_npy(const std::filesystem::path& path) {
  const InputFile file(path);
  return detail::parse_npy({fmt::format("load_npy: '{}'", path.string()), file.size(),
                            [&](std::int64_t offset, void* out, std::size_t bytes) {
                              return file.read(offset, out, bytes);
                            }});
}

void save_npy(const std::filesystem::path& path, const Tensor& x) {
  if (!x.defined()) throw ValueError("save_npy: the tensor must be defined");
  const std::string header = detail::npy_header(x);
  const Tensor c = contiguous_data(x);
  AtomicFile file(path);
  file.write(header.data(), header.size());
  visit_any(c.dtype(), [&]<class T>() {
    file.write(c.data<T>(), static_cast<std::size_t>(c.numel()) * sizeof(T));
  });
  file.commit();
}

}  // namespace capsfw
