#include <capsfw/optim/json_log.hpp>

#include <cerrno>
#include <cstring>

#include <capsfw/core/error.hpp>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace capsfw {
namespace {

/// True if the file ends in the middle of a line, as a killed process may leave it.
bool ends_mid_line(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in || in.tellg() <= 0) return false;
  in.seekg(-1, std::ios::end);
  return in.get() != '\n';
}

}  // namespace

std::string json_line(const JsonFields& fields) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, value] : fields)
    std::visit([&, &name = key](const auto& v) { object[name] = v; }, value.variant());
  // nlohmann writes NaN and infinities as null.
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

JsonLog::JsonLog(const std::filesystem::path& path, JsonLogOptions options) : path_(path) {
  const bool repair = !options.fresh && ends_mid_line(path);
  errno = 0;
  out_.open(path, std::ios::binary | (options.fresh ? std::ios::trunc : std::ios::app));
  if (!out_)
    throw IoError(fmt::format("log: cannot write '{}': {}. Hint: does its folder exist?",
                              path.string(), std::strerror(errno)));
  if (repair) out_ << '\n';
}

void JsonLog::write(const JsonFields& fields) { write_line(json_line(fields)); }

void JsonLog::write_line(const std::string& line) {
  errno = 0;
  out_ << line + '\n' << std::flush;
  if (!out_)
    throw IoError(
        fmt::format("log: cannot write to '{}': {}", path_.string(), std::strerror(errno)));
}

}  // namespace capsfw
