#include <capsfw/data/safetensors.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <unordered_set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

#include "detail/elements.hpp"

namespace capsfw {
namespace {

using nlohmann::json;

using detail::decode;
using detail::decode_bool;
using detail::kMaxSafetensorsHeader;
using detail::kMetadataName;

// ---- element types ----

struct FileType {
  std::string_view name;
  std::int64_t width;
  DType dtype;
  detail::Decode decode;
};

constexpr FileType kTypes[] = {
    {"F32", 4, DType::f32, decode<float, float>},
    {"F64", 8, DType::f64, decode<double, double>},
    {"I64", 8, DType::i64, decode<std::int64_t, std::int64_t>},
    {"BOOL", 1, DType::b8, decode_bool},
    {"F16", 2, DType::f32, decode<std::uint16_t, float, detail::from_f16>},
    {"BF16", 2, DType::f32, decode<std::uint16_t, float, detail::from_bf16>},
    {"I32", 4, DType::i64, decode<std::int32_t, std::int64_t>},
    {"I16", 2, DType::i64, decode<std::int16_t, std::int64_t>},
    {"I8", 1, DType::i64, decode<std::int8_t, std::int64_t>},
    {"U32", 4, DType::i64, decode<std::uint32_t, std::int64_t>},
    {"U16", 2, DType::i64, decode<std::uint16_t, std::int64_t>},
    {"U8", 1, DType::i64, decode<std::uint8_t, std::int64_t>},
};

// ---- reading ----

struct Entry {
  std::string name;
  const FileType* type = nullptr;
  Shape shape;
  std::int64_t begin = 0, end = 0;  // bytes after the header
};

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : file_(path) {}

  SafetensorsFile read() {
    SafetensorsFile out;
    parse_header();
    check_layout();
    for (const Entry& e : entries_) out.state.set(e.name, tensor(e));
    out.metadata = std::move(metadata_);
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& rule) const {
    throw IoError(fmt::format("load_safetensors: '{}': {}", file_.path().string(), rule));
  }
  [[noreturn]] void fail(const std::string& name, const std::string& rule) const {
    fail(fmt::format("tensor '{}': {}", shown(name, 200), rule));
  }

  void parse_header() {
    std::array<std::uint8_t, 8> prefix{};
    if (file_.read(0, prefix.data(), 8) < 8)
      fail(fmt::format("the file must have at least 8 bytes; got {}", file_.size()));
    std::uint64_t length = 0;
    std::memcpy(&length, prefix.data(), 8);
    const std::int64_t limit = std::min(kMaxSafetensorsHeader, file_.size() - 8);
    if (length > static_cast<std::uint64_t>(limit))
      fail(
          fmt::format("the header must end within the file of {} bytes and have at most {} bytes; "
                      "its first 8 bytes promise {}",
                      file_.size(), kMaxSafetensorsHeader, length));
    std::string text(length, '\0');
    if (file_.read(8, text.data(), text.size()) < text.size()) fail("the file became shorter");
    data_start_ = 8 + static_cast<std::int64_t>(length);
    try {
      // All of it has been dropped by then, but for an empty object.
      [[maybe_unused]] const json rest =
          json::parse(text, [this](int depth, json::parse_event_t event, const json& value) {
            return watch(depth, event, value);
          });
    } catch (const json::exception& e) {
      fail(fmt::format("the header must be JSON; {}", shown(e.what(), 300)));
    }
  }

  /// Sees the header while it is parsed, and refuses what the JSON library would accept silently:
  /// repeated names, any depth, lists and objects of any length. False drops a description, which
  /// by then is an Entry: memory follows the tensors, not the text.
  bool watch(int depth, json::parse_event_t event, const json& value) {
    using Event = json::parse_event_t;
    const bool metadata = name_ == kMetadataName;
    if (depth > 3) fail("the header must not nest deeper than name, field, list");
    switch (event) {
      case Event::object_start:
        open_.emplace_back();
        break;
      case Event::array_start:
        listed_ = 0;
        [[fallthrough]];
      case Event::value:
        if (depth == 0) fail("the header must be a JSON object");
        if (depth == 1 && metadata) fail("__metadata__ must be an object");
        if (depth == 1) fail(name_, "must be described by an object");
        if (depth == 3 && ++listed_ > kMaxListed)
          fail(name_, fmt::format("lists must not be longer than {}", kMaxListed));
        break;
      case Event::key: {
        const auto& key = value.get_ref<const std::string&>();
        if (!open_.back().insert(key).second)
          fail(fmt::format("names must not repeat; got '{}' twice", shown(key, 200)));
        if (open_.size() == 1) name_ = key;
        if (open_.size() == 1 && !is_printable(key))
          fail(name_, "names must not have control characters");
        if (open_.size() > 1 && !metadata && open_.back().size() > kMaxListed)
          fail(name_, fmt::format("must not have more than {} fields", kMaxListed));
        break;
      }
      case Event::object_end:
        open_.pop_back();
        if (depth != 1) break;
        if (metadata)
          metadata_ = metadata_of(value);
        else
          entries_.push_back(entry(name_, value));
        return false;
      case Event::array_end:
        break;
    }
    return true;
  }

  Metadata metadata_of(const json& value) const {
    Metadata out;
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string())
        fail(fmt::format("__metadata__ must hold strings; '{}' is no string", shown(key, 200)));
      out[key] = text.get<std::string>();
    }
    return out;
  }

  /// A list of `field` with integers in [0, 2^63).
  std::vector<std::int64_t> integers(const std::string& name,
                                     const json& value,
                                     const char* field) const {
    std::vector<std::int64_t> out;
    const auto it = value.find(field);
    bool good = it != value.end() && it->is_array();
    if (good)
      for (const json& v : *it) {
        good = good && v.is_number_unsigned() && v.get<std::uint64_t>() <= INT64_MAX;
        if (good) out.push_back(v.get<std::int64_t>());
      }
    if (!good) fail(name, fmt::format("{} must be a list of integers from 0 to 2^63 - 1", field));
    return out;
  }

  Entry entry(const std::string& name, const json& value) const {
    const auto type = value.find("dtype");
    if (type == value.end() || !type->is_string()) fail(name, "dtype must be a string");
    const auto& type_name = type->get_ref<const std::string&>();
    const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](const FileType& t) { return t.name == type_name; });
    if (known == std::end(kTypes)) {
      std::string names;
      for (const FileType& t : kTypes)
        names += fmt::format("{}{}", names.empty() ? "" : ", ", t.name);
      fail(name, fmt::format("dtype must be one of {}; got '{}'", names, shown(type_name)));
    }
    const auto shape = integers(name, value, "shape");
    if (shape.size() > kMaxRank)
      fail(name, fmt::format("at most {} axes; got {}", kMaxRank, shape.size()));
    const auto offsets = integers(name, value, "data_offsets");
    if (offsets.size() != 2)
      fail(name, fmt::format("data_offsets must be two numbers; got {}", offsets.size()));
    Entry e{name, known, Shape(shape), offsets[0], offsets[1]};
    const std::int64_t space = file_.size() - data_start_;
    if (e.begin > e.end || e.end > space)
      fail(name, fmt::format("data_offsets must satisfy 0 <= begin <= end <= {}; got {}, {}. Hint: "
                             "is the file complete?",
                             space, e.begin, e.end));
    const auto bytes = detail::bytes_of_shape(e.shape, e.type->width);
    if (!bytes) fail(name, fmt::format("the shape {} must not overflow", e.shape.str()));
    if (*bytes != e.end - e.begin)
      fail(name, fmt::format("{} of shape {} takes {} bytes; data_offsets give {}", type_name,
                             e.shape.str(), *bytes, e.end - e.begin));
    return e;
  }

  /// Sorted by place, the tensors must cover the bytes after the header exactly once.
  void check_layout() const {
    std::vector<const Entry*> sorted;
    for (const Entry& e : entries_) sorted.push_back(&e);
    std::sort(sorted.begin(), sorted.end(), [](const Entry* a, const Entry* b) {
      return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
    });
    std::int64_t at = 0;
    for (const Entry* e : sorted) {
      if (e->begin != at)
        fail(e->name,
             fmt::format("data must neither overlap nor leave holes; this tensor begins at "
                         "{}, the bytes before it end at {}",
                         e->begin, at));
      at = e->end;
    }
    if (const std::int64_t space = file_.size() - data_start_; at != space)
      fail(fmt::format("the tensors must fill the file; {} of {} bytes belong to none", space - at,
                       space));
  }

  Tensor tensor(const Entry& e) {
    Tensor y = empty(e.shape, e.type->dtype);
    const std::int64_t n = y.numel(), block = kBlock / e.type->width;
    auto* out = visit_any(y.dtype(), [&]<class T>() -> void* { return y.mutable_data<T>(); });
    const auto step = static_cast<std::int64_t>(size_of(y.dtype()));
    for (std::int64_t i = 0; i < n; i += block) {
      const std::int64_t count = std::min(block, n - i);
      const auto bytes = static_cast<std::size_t>(count * e.type->width);
      scratch_.resize(bytes);
      if (file_.read(data_start_ + e.begin + i * e.type->width, scratch_.data(), bytes) < bytes)
        fail(e.name, "the file became shorter while it was read");
      if (e.type->decode(scratch_.data(), count, static_cast<char*>(out) + i * step) != 0)
        fail(e.name, "BOOL elements must be 0 or 1");
    }
    return y;
  }

  static constexpr std::int64_t kBlock = std::int64_t{1} << 20;
  static constexpr std::size_t kMaxListed = 64;  // above what any version of the format has
  InputFile file_;
  std::int64_t data_start_ = 0;
  std::vector<Entry> entries_;  // in the order of the file
  Metadata metadata_;
  std::string name_;                                   // of the description that is being parsed
  std::vector<std::unordered_set<std::string>> open_;  // names of the objects being parsed
  std::size_t listed_ = 0;                             // elements of the list being parsed
  std::vector<std::uint8_t> scratch_;
};

}  // namespace

SafetensorsFile load_safetensors(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace capsfw
