#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/text.hpp>

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

namespace capsfw {
namespace {

using detail::kMaxSafetensorsHeader;
using detail::kMetadataName;
using nlohmann::json;

std::string_view file_name_of(DType t) {
  constexpr std::string_view names[] = {"F32", "F64", "I64", "BOOL"};
  return names[static_cast<std::size_t>(t)];
}

std::string quoted(const std::string& text) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    throw ValueError("save_safetensors: names and metadata must be UTF-8");
  }
}

std::int64_t bytes_of(const Tensor& x) {
  return x.numel() * static_cast<std::int64_t>(size_of(x.dtype()));
}

void append(std::string& list, const std::string& item) {
  if (!list.empty()) list += ',';
  list += item;
}

}  // namespace

void save_safetensors(const std::filesystem::path& path,
                      const StateDict& state,
                      const Metadata& metadata) {
  std::vector<const StateDict::Entry*> entries;
  for (const auto& entry : state) {
    if (entry.first == kMetadataName || !entry.second.defined())
      throw ValueError(fmt::format(
          "save_safetensors: '{}': {}", entry.first,
          entry.second.defined() ? "this name is reserved" : "the tensor must be defined"));
    if (!is_printable(entry.first))
      throw ValueError(
          fmt::format("save_safetensors: '{}': a name must be UTF-8 without control characters",
                      shown(entry.first)));
    entries.push_back(&entry);
  }
  // Wide types first: then every tensor is aligned for readers that map the file.
  auto layout = entries;
  std::stable_sort(layout.begin(), layout.end(), [](auto* a, auto* b) {
    return size_of(a->second.dtype()) > size_of(b->second.dtype());
  });
  std::unordered_map<std::string_view, std::int64_t> begins;
  std::int64_t at = 0;
  for (const auto* entry : layout) {
    begins[entry->first] = at;
    at += bytes_of(entry->second);
  }

  std::string header;
  if (!metadata.empty()) {
    std::string pairs;
    for (const auto& [key, text] : metadata)
      append(pairs, fmt::format("{}:{}", quoted(key), quoted(text)));
    append(header, fmt::format("\"{}\":{{{}}}", kMetadataName, pairs));
  }
  for (const auto* entry : entries) {
    const auto& [name, x] = *entry;
    append(header,
           fmt::format(R"({}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(name),
                       file_name_of(x.dtype()), fmt::join(x.shape().begin(), x.shape().end(), ","),
                       begins[name], begins[name] + bytes_of(x)));
  }
  header = "{" + header + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (static_cast<std::int64_t>(header.size()) > kMaxSafetensorsHeader)
    throw ValueError(fmt::format("save_safetensors: the header must have at most {} bytes; got {}",
                                 kMaxSafetensorsHeader, header.size()));

  AtomicFile file(path);
  const std::uint64_t length = header.size();
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  for (const auto* entry : layout) {
    const Tensor x = contiguous_data(entry->second);
    visit_any(x.dtype(),
              [&]<class T>() { file.write(x.data<T>(), static_cast<std::size_t>(bytes_of(x))); });
  }
  file.commit();
}

}  // namespace capsfw
