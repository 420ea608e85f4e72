#pragma once
// Private: UTF-8 (RFC 3629), code point by code point.

#include <cstddef>
#include <string>
#include <string_view>

namespace capsfw::detail {

/// What next_code_point gives for a byte that begins no code point.
inline constexpr char32_t kBadUtf8 = 0xFFFFFFFF;

/// The code point at text[at]; moves `at` behind it. One byte further, and kBadUtf8, where there is
/// none: stray and missing continuation bytes, overlong forms, surrogates, above U+10FFFF.
char32_t next_code_point(std::string_view text, std::size_t& at);

/// C0, DEL and C1.
inline bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0); }

/// Appends a code point.
void append_utf8(std::string& out, char32_t c);

}  // namespace capsfw::detail
