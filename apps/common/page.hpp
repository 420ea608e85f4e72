#pragma once
// Pages that hold their data: numbers as text, JSON inside of a script element.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace capsfw::apps {

/// Base64 with padding (RFC 4648, section 4).
std::string base64(std::span<const std::uint8_t> bytes);

/// The nearest number of 16 bits (IEEE 754 binary16, ties to even), as its bits. What is too large
/// becomes an infinity; NaN stays NaN.
std::uint16_t half_bits(float x);
/// The number that has these bits.
float half_value(std::uint16_t bits);

/// `page` with `json` in its empty element <script id="data" ...></script>. Each '<' of the JSON
/// (they stand only in strings) becomes \u003c, so that no text can end the element. ValueError if
/// there is no such element.
std::string page_with_data(std::string_view page, std::string_view json);

}  // namespace capsfw::apps
