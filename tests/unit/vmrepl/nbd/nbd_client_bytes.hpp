// The job of these helpers: what an NBD client sends, as bytes, for the tests of the cores and
// server.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "vmrepl/nbd/nbd_bytes.hpp"
#include "vmrepl/nbd/nbd_protocol.hpp"

namespace havm::nbd_test {

using Bytes = std::vector<std::byte>;

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

inline Bytes text_bytes(std::string_view text) {
  NbdWriter writer;
  writer.text(text);
  return writer.bytes();
}

inline Bytes client_flags(std::uint32_t flags = nbd_flag_fixed_newstyle | nbd_flag_no_zeroes) {
  NbdWriter writer;
  writer.integer(flags);
  return writer.bytes();
}

inline Bytes option(std::uint32_t type, const Bytes& data = {}) {
  NbdWriter writer;
  writer.integer(nbd_option_magic).integer(type).integer(static_cast<std::uint32_t>(data.size()));
  writer.raw(data);
  return writer.bytes();
}

// Data of INFO and GO.
inline Bytes info_data(std::string_view name, const std::vector<std::uint16_t>& wanted = {}) {
  NbdWriter writer;
  writer.integer(static_cast<std::uint32_t>(name.size())).text(name);
  writer.integer(static_cast<std::uint16_t>(wanted.size()));
  for (const std::uint16_t info : wanted)
    writer.integer(info);
  return writer.bytes();
}

// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
inline Bytes context_data(std::string_view name, const std::vector<std::string>& queries) {
  NbdWriter writer;
  writer.integer(static_cast<std::uint32_t>(name.size())).text(name);
  writer.integer(static_cast<std::uint32_t>(queries.size()));
  for (const std::string& query : queries)
    writer.integer(static_cast<std::uint32_t>(query.size())).text(query);
  return writer.bytes();
}

// What the server answers to an option.
inline Bytes option_reply(std::uint32_t option_type, std::uint32_t type, const Bytes& data = {}) {
  NbdWriter writer;
  writer.integer(nbd_option_reply_magic).integer(option_type).integer(type);
  writer.integer(static_cast<std::uint32_t>(data.size())).raw(data);
  return writer.bytes();
}

inline Bytes request(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset,
                     std::uint32_t length, std::uint16_t flags = 0) {
  NbdWriter writer;
  writer.integer(nbd_request_magic).integer(flags).integer(command).integer(cookie);
  writer.integer(offset).integer(length);
  return writer.bytes();
}

}  // namespace havm::nbd_test
