#include "common/page.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <capsfw/core/error.hpp>

namespace capsfw::apps {

std::string base64(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k) word = word << 8 | (k < n ? bytes[i + k] : 0U);
    for (std::size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::uint16_t half_bits(float x) {
  constexpr std::uint16_t kInfinity = 0x7C00, kNan = 0x7E00;
  const auto sign = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16 & 0x8000U);
  const float size = std::abs(x);
  if (std::isnan(x)) return kNan;
  if (size >= 65520.0F) return static_cast<std::uint16_t>(sign | kInfinity);
  // A multiple of the distance between neighbours: 2^-24 at the bottom, 2^-10 of the power of two
  // elsewhere. nearbyint() rounds ties to even; a carry into the exponent is right as it is.
  const int exponent = std::max(size > 0 ? std::ilogb(size) : -14, -14);
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return static_cast<std::uint16_t>(sign |
                                    ((static_cast<std::uint32_t>(exponent + 14) << 10) + steps));
}

float half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 31)
    return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : sign * std::numeric_limits<float>::infinity();
  const int steps = exponent == 0 ? mantissa : mantissa + 1024;
  return sign * std::ldexp(static_cast<float>(steps), std::max(exponent, 1) - 25);
}

std::string page_with_data(std::string_view page, std::string_view json) {
  constexpr std::string_view kElement = "<script id=\"data\" type=\"application/json\">";
  const std::size_t at = page.find(kElement);
  if (at == std::string_view::npos)
    throw ValueError("page_with_data: the page has no <script id=\"data\">");
  std::string out(page.substr(0, at + kElement.size()));
  out.reserve(page.size() + json.size());
  for (const char c : json) out += c == '<' ? std::string_view("\\u003c") : std::string_view(&c, 1);
  return out.append(page.substr(at + kElement.size()));
}

}  // namespace capsfw::apps
